package ws

import (
	"encoding/binary"
	"errors"
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
	errNotText    = push.Errorf(push.KindInvalid, CodeNotText, "messages are text")
	errNotUTF8    = push.Errorf(push.KindInvalid, CodeNotUTF8, "a text message is UTF-8")
	errByeNotUTF8 = push.Errorf(push.KindInvalid, CodeNotUTF8, "the reason of a close frame is UTF-8")
)

// Feed implements engine.Dialect: whole frames are read, the beginning of another is kept.
func (c *conn) Feed(b []byte) {
	kept := c.begun != nil && len(c.begun.tail) > 0
	if kept {
		c.begun.tail = append(c.begun.tail, b...)
		b = c.begun.tail
	}
	whole, refusal := cut(b, c.FrameLimit(), c.t.cfg.FrameBytes)
	switch {
	case whole > 0 && !c.read(b[:whole]):
		c.stopHearing()
		return
	case refusal != nil:
		c.stopHearing()
		c.Refuse(refusal)
		return
	}
	if rest := b[whole:]; !kept || whole > 0 {
		c.keepTail(rest)
	}
}

// read reads whole frames and hands over what they are. It returns false when nothing more is to be read.
func (c *conn) read(frames []byte) bool {
	rest, end := c.readWhole(frames)
	if end.bye == nil && end.refusal == nil {
		return len(rest) == 0 || c.parse(rest)
	}
	c.endBy(end)
	return false
}

// endBy ends the connection for the reason why nothing more is read of it.
func (c *conn) endBy(v verdict) {
	if v.bye != nil {
		c.answerBye(v.bye)
	} else {
		c.Refuse(v.refusal)
	}
}

// keepTail keeps a copy of the beginning of a frame; nothing is kept of nothing.
func (c *conn) keepTail(rest []byte) {
	switch {
	case len(rest) > 0:
		if c.begun == nil {
			c.begun = new(begun)
		}
		c.begun.tail = slices.Clone(rest)
	case c.begun != nil && c.begun.parser == nil:
		c.begun = nil
	case c.begun != nil:
		c.begun.tail = nil
	}
}

// stopHearing has what comes from now on discarded.
func (c *conn) stopHearing() {
	c.Deafen()
	c.forget()
}

// receive decodes a text message, which is whole, and hands its frame to the session. An error is the refusal that ends the
// connection; a frame of an unknown type is refused, and the connection goes on.
func (c *conn) receive(body []byte) error {
	if !utf8.Valid(body) {
		return errNotUTF8
	}
	f, err := wire.DecodeClient(wire.JSON, body)
	if err == nil {
		c.Session().Receive(f)
		return nil
	}
	if e, ok := errors.AsType[*push.Error](err); ok && e.Code == wire.CodeUnknown {
		c.Session().Refuse(err)
		return nil
	}
	return err
}

// verdict is why the library reads no further: one of both.
type verdict struct {
	bye     []byte // the peer said goodbye: the payload that answers it, not nil
	refusal error  // the peer broke the protocol
}

// judge tells apart why the library reads no further.
func judge(err error) verdict {
	if refusal, ok := errors.AsType[*push.Error](err); ok {
		return verdict{refusal: refusal}
	}
	if bye, ok := errors.AsType[websocket.CloseError](err); ok {
		if !utf8.ValidString(bye.Reason) {
			return verdict{refusal: errByeNotUTF8}
		}
		payload := []byte{}
		if bye.Code != websocket.StatusNoStatusRcvd {
			payload = binary.BigEndian.AppendUint16(payload, uint16(bye.Code))
		}
		return verdict{bye: payload}
	}
	if errors.Is(err, websocket.ErrMessageTooBig) {
		return verdict{refusal: errTooLarge}
	}
	return verdict{refusal: errProtocol} // the library's text may quote what came
}
