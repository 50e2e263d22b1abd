package ws

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"unicode/utf8"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/wire"

	"github.com/coder/websocket"
)

// The codes of what this transport refuses besides what wire does. They are sent to the client in an error frame.
const (
	CodeNotText  = "not_text"           // a binary message
	CodeNotUTF8  = "not_utf8"           // a text message, or the reason of a close, that is not UTF-8
	CodeProtocol = "websocket_protocol" // RFC 6455 is broken: mask, reserved bits, opcode, fragments, control frames
)

var (
	errTooLarge   = push.Errorf(push.KindTooLarge, transport.CodeTooLarge, "the message is larger than it may be")
	errProtocol   = push.Errorf(push.KindInvalid, CodeProtocol, "the stream is not what RFC 6455 allows")
	errNotUTF8    = push.Errorf(push.KindInvalid, CodeNotUTF8, "a text message is UTF-8")
	errByeNotUTF8 = push.Errorf(push.KindInvalid, CodeNotUTF8, "the reason of a close frame is UTF-8")
)

// receive decodes a text message, which is whole, and hands its frame to the session. An error is the refusal that ends the
// connection; a frame of an unknown type is refused, and the connection goes on.
func (c *conn) receive(body []byte) error {
	if !utf8.Valid(body) {
		return errNotUTF8
	}
	f, err := wire.DecodeClient(wire.JSON, body)
	if err == nil {
		c.session.Receive(f)
		return nil
	}
	if e, ok := errors.AsType[*push.Error](err); ok && e.Code == wire.CodeUnknown {
		c.session.Refuse(err)
		return nil
	}
	return err
}

// grown returns buf with space behind its end.
func grown(buf []byte) []byte {
	if len(buf) == cap(buf) {
		return slices.Grow(buf, max(512, len(buf)))
	}
	return buf
}

// verdict is why the library reads no further.
type verdict struct {
	bye     []byte // the peer said goodbye: the payload that answers it, not nil
	refusal error  // the peer broke the protocol; nil with no bye: the socket failed
	said    bool   // what was read says so, whatever became of the socket since
}

// judge tells apart why nothing more can be read: the socket failed, the peer said goodbye, or it broke the protocol, in
// which case the library still has a working socket.
func judge(err error) verdict {
	refusal, ours := errors.AsType[*push.Error](err)
	bye, said := errors.AsType[websocket.CloseError](err)
	switch {
	case ours:
		return verdict{refusal: refusal, said: true}
	case said && !utf8.ValidString(bye.Reason):
		return verdict{refusal: errByeNotUTF8, said: true}
	case said:
		payload := []byte{}
		if bye.Code != websocket.StatusNoStatusRcvd {
			payload = binary.BigEndian.AppendUint16(payload, uint16(bye.Code))
		}
		return verdict{bye: payload, said: true}
	case errors.Is(err, net.ErrClosed):
		return verdict{}
	case errors.Is(err, websocket.ErrMessageTooBig):
		return verdict{refusal: errTooLarge}
	}
	return verdict{refusal: errProtocol} // the library's text may quote what came
}

// answerBye answers the peer's close frame with its own code, in order behind what is half written, unless our close
// frame went before it; then both have been said and the socket closes.
func (c *conn) answerBye(payload []byte) {
	c.mu.Lock()
	if c.final == 0 {
		c.final = wire.CloseNormal
	}
	if c.said == nil {
		c.said = new(said)
	}
	c.said.bye = payload
	ended := c.ended
	c.queueAndUnlock(transport.Direct)
	if ended {
		c.drop(wire.CloseNormal)
	}
}

// refuse tells the session what its client sent.
func (c *conn) refuse(err error) {
	c.mu.Lock()
	c.refused = true
	ended := c.ended
	c.mu.Unlock()
	if ended {
		c.shutWrite()
	}
	c.session.Refuse(err)
}

// endRead is the reader's last word, for now in a parked connection and for good in the goroutine form.
func (c *conn) endRead() {
	c.mu.Lock()
	c.reading = false
	last := c.settleLocked()
	c.mu.Unlock()
	if last {
		c.finish()
	}
}

// onPing is called by the reader, from inside the library. Returning false keeps the library from answering.
func (c *conn) onPing(_ context.Context, payload []byte) bool {
	c.alive()
	pong := append([]byte{}, payload...)
	c.say(func(s *said) { s.pong = pong }) // of several pings, the latest is answered (RFC 6455, 5.5.3)
	return false
}

// onPong is called as onPing is.
func (c *conn) onPong(context.Context, []byte) { c.alive() }

// alive reports a control frame to the session, unless it came inside a message: a message that never ends is no life.
func (c *conn) alive() {
	if c.thread != nil && c.thread.inMessage || c.parser != nil {
		return
	}
	c.session.Alive()
}
