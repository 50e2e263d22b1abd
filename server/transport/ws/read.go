package ws

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"time"
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

// read is the reader of a connection, from the end of the handshake to the end of the socket.
func (c *conn) read() {
	c.ws.SetReadLimit(int64(c.t.cfg.FirstFrameBytes))
	for c.readMessage() {
		c.ws.SetReadLimit(int64(c.t.cfg.FrameBytes))
	}
	// The library's finalizer and its cycles would keep each other alive; this ends both. It does not touch the socket.
	c.ws.CloseNow()

	c.mu.Lock()
	c.readDone = true
	last := c.settleLocked()
	c.mu.Unlock()
	if last {
		c.finish()
	}
}

// readMessage reads one message and hands its frame to the session. It returns false when there will be no other.
func (c *conn) readMessage() bool {
	// A context that can end would cost a goroutine for each frame, and the session has its own deadlines.
	typ, r, err := c.ws.Reader(context.Background())
	if err != nil {
		c.readFailed(err)
		return false
	}
	if typ != websocket.MessageText {
		c.refuse(push.Errorf(push.KindInvalid, CodeNotText, "messages are text"))
		return false
	}
	f, err := c.readFrame(r)
	refusal, refused := errors.AsType[*push.Error](err)
	switch {
	case err == nil:
		c.session.Receive(f)
	case !refused:
		c.readFailed(err)
		return false
	case refusal.Code == wire.CodeUnknown:
		c.session.Refuse(err)
	default:
		c.refuse(err)
		return false
	}
	return true
}

// errCut is the end of the stream inside a message, which the library takes for the end of the message.
var errCut = errors.New("ws: the stream ends inside a message")

// readFrame reads a text message to its end and decodes it. A *push.Error says that it is no frame, any other error that
// it did not come.
func (c *conn) readFrame(r io.Reader) (wire.Frame, error) {
	buf := c.t.buffers.Get().(*[]byte)
	defer c.t.buffers.Put(buf)
	var err error
	c.inMessage = true
	*buf, err = readAll((*buf)[:0], r)
	c.inMessage = false
	if err != nil {
		return nil, err
	}
	if c.broken {
		return nil, errCut
	}
	if !utf8.Valid(*buf) {
		return nil, push.Errorf(push.KindInvalid, CodeNotUTF8, "a text message is UTF-8")
	}
	return wire.DecodeClient(wire.JSON, *buf)
}

// readAll appends a message to buf. The library holds it to its limit.
func readAll(buf []byte, r io.Reader) ([]byte, error) {
	for {
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, len(buf))
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
	}
}

// readFailed tells apart why nothing more can be read: the socket failed, the peer said goodbye, or it broke the
// protocol, in which case the library still has a working socket.
func (c *conn) readFailed(err error) {
	bye, said := errors.AsType[websocket.CloseError](err)
	switch {
	case said && !utf8.ValidString(bye.Reason):
		c.refuse(push.Errorf(push.KindInvalid, CodeNotUTF8, "the reason of a close frame is UTF-8"))
	case said:
		c.answerBye(bye.Code)
	case c.broken, errors.Is(err, net.ErrClosed):
		c.drop(wire.CloseLost)
	case errors.Is(err, websocket.ErrMessageTooBig):
		c.refuse(push.Errorf(push.KindTooLarge, transport.CodeTooLarge, "the message is larger than it may be"))
	default: // the library's text may quote what came
		c.refuse(push.Errorf(push.KindInvalid, CodeProtocol, "the stream is not what RFC 6455 allows"))
	}
}

// answerBye answers the peer's close frame with its own code, in order behind what is half written, unless our close
// frame went before it; then both have been said and the socket closes.
func (c *conn) answerBye(code websocket.StatusCode) {
	payload := []byte{}
	if code != websocket.StatusNoStatusRcvd {
		payload = binary.BigEndian.AppendUint16(payload, uint16(code))
	}
	c.mu.Lock()
	if c.final == 0 {
		c.final = wire.CloseNormal
	}
	c.bye = payload
	ended := c.ended
	push := c.queueLocked()
	c.mu.Unlock()
	if push {
		c.t.ready.push(c)
	}
	if ended {
		c.drop(wire.CloseNormal)
	}
}

// refuse tells the session and then reads on without looking: were unread bytes left when the socket closes, the kernel
// would reset it, and the client might never see why.
func (c *conn) refuse(err error) {
	c.mu.Lock()
	c.refused = true
	ended := c.ended
	c.mu.Unlock()
	if ended {
		c.shutWrite()
	}
	c.session.Refuse(err)

	buf := c.t.buffers.Get().(*[]byte)
	defer c.t.buffers.Put(buf)
	for {
		if _, err := c.nc.Read((*buf)[:cap(*buf)]); err != nil {
			c.drop(wire.CloseLost)
			return
		}
	}
}

// onPing is called by the reader, from inside the library. Returning false keeps the library from answering.
func (c *conn) onPing(_ context.Context, payload []byte) bool {
	c.alive()
	pong := append([]byte{}, payload...)
	c.mu.Lock()
	c.pong = pong // of several pings, the latest is answered (RFC 6455, 5.5.3)
	push := c.queueLocked()
	c.mu.Unlock()
	if push {
		c.t.ready.push(c)
	}
	return false
}

// onPong is called as onPing is.
func (c *conn) onPong(context.Context, []byte) { c.alive() }

// alive reports a control frame to the session, unless it came inside a message: a message that never ends is no life.
func (c *conn) alive() {
	if !c.inMessage {
		c.session.Alive()
	}
}

// stream is the connection as the library sees it: it reads from the socket and that is all.
type stream conn

// Read implements net.Conn.
func (s *stream) Read(p []byte) (int, error) {
	if len(s.early) > 0 {
		n := copy(p, s.early)
		if s.early = s.early[n:]; len(s.early) == 0 {
			s.early = nil
		}
		return n, nil
	}
	n, err := s.nc.Read(p)
	if err != nil {
		s.broken = true
	}
	return n, err
}

// Write implements net.Conn. The library writes close frames by itself; the drain sends ours in their place.
func (s *stream) Write(p []byte) (int, error) { return len(p), nil }

// Close implements net.Conn. The connection closes its socket, in its own time.
func (s *stream) Close() error { return nil }

func (s *stream) LocalAddr() net.Addr                { return s.nc.LocalAddr() }
func (s *stream) RemoteAddr() net.Addr               { return s.nc.RemoteAddr() }
func (s *stream) SetDeadline(t time.Time) error      { return s.nc.SetDeadline(t) }
func (s *stream) SetReadDeadline(t time.Time) error  { return s.nc.SetReadDeadline(t) }
func (s *stream) SetWriteDeadline(t time.Time) error { return s.nc.SetWriteDeadline(t) }
