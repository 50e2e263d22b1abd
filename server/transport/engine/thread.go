package ws

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"

	"carillon/server/push"
	"carillon/server/wire"

	"github.com/coder/websocket"
)

// thread is what a connection has in the goroutine form: a socket in Go's poller, a goroutine that reads it, and the
// library's connection on top. It is the form for TLS in this process and for systems without an epoll.
type thread struct {
	// Static after the handshake.
	nc  net.Conn
	raw syscall.RawConn // for a write that does not wait; nil where there is none
	ws  *websocket.Conn

	// Owned by the reader.
	early     []byte // what the client sent together with the handshake and is not read yet
	lengths   lengths
	tooLong   bool // a length beyond the limit was announced: the library reads no further
	broken    bool // the socket returned an error
	inMessage bool // a message has begun and not ended
}

// close closes the socket. A reset discards what the kernel still has for a client that does not read.
func (th *thread) close(reset bool) {
	nc := th.nc
	if reset {
		if s, ok := nc.(*tls.Conn); ok {
			nc = s.NetConn() // s.Close would wait to say goodbye
		}
		if l, ok := nc.(interface{ SetLinger(sec int) error }); ok {
			l.SetLinger(0)
		}
	}
	nc.Close()
}

func (th *thread) closeWrite() {
	if w, ok := th.nc.(interface{ CloseWrite() error }); ok {
		w.CloseWrite()
	}
}

// read is the reader of a connection in the goroutine form, from the end of the handshake to the end of the socket.
func (c *conn) read() {
	th := c.thread
	th.ws.SetReadLimit(int64(c.t.cfg.FirstFrameBytes))
	for c.readMessage() {
		th.ws.SetReadLimit(int64(c.t.cfg.FrameBytes))
	}
	// The library's finalizer and its cycles would keep each other alive; this ends both. It does not touch the socket.
	th.ws.CloseNow()
	c.endRead()
}

// readMessage reads one message and hands its frame to the session. It returns false when there will be no other.
func (c *conn) readMessage() bool {
	// A context that can end would cost a goroutine for each frame, and the session has its own deadlines.
	typ, r, err := c.thread.ws.Reader(context.Background())
	if err != nil {
		c.readFailed(err)
		return false
	}
	if typ != websocket.MessageText {
		c.refuseAndDiscard(errNotText)
		return false
	}
	body := c.t.buffers.Get().(*[]byte)
	defer c.t.buffers.Put(body)
	c.thread.inMessage = true
	*body, err = readAll((*body)[:0], r)
	c.thread.inMessage = false
	if err == nil && c.thread.broken {
		err = errCut
	}
	if err != nil {
		c.readFailed(err)
		return false
	}
	if err := c.receive(*body); err != nil {
		c.refuseAndDiscard(err)
		return false
	}
	return true
}

// errCut is the end of the stream inside a message, which the library takes for the end of the message.
var errCut = errors.New("ws: the stream ends inside a message")

// readFailed does what follows when the library reads no further.
func (c *conn) readFailed(err error) {
	end := judge(err)
	switch {
	case end.bye != nil:
		c.answerBye(end.bye)
	case end.refusal == nil, c.thread.broken && !end.said:
		c.drop(wire.CloseLost)
	default:
		c.refuseAndDiscard(end.refusal)
	}
}

// refuseAndDiscard tells the session and then reads on without looking: were unread bytes left when the socket closes, the
// kernel would reset it, and the client might never see why.
func (c *conn) refuseAndDiscard(err error) {
	c.refuse(err)
	buf := c.t.buffers.Get().(*[]byte)
	defer c.t.buffers.Put(buf)
	for {
		if _, err := c.thread.nc.Read((*buf)[:cap(*buf)]); err != nil {
			c.drop(wire.CloseLost)
			return
		}
	}
}

// stream is a connection in the goroutine form as the library sees it: it reads from the socket and that is all.
type stream struct {
	net.Conn // whose deadlines and addresses it is
	t        *Transport
	th       *thread
}

// Read implements net.Conn. A length beyond the limit ends the stream where its header begins.
func (s stream) Read(p []byte) (n int, err error) {
	th := s.th
	if !th.tooLong {
		if n, err = s.take(p); n > 0 {
			var ok bool
			n, ok = th.lengths.pass(p[:n], s.t.cfg.FirstFrameBytes, s.t.cfg.FrameBytes)
			th.tooLong = !ok
		}
	}
	if th.tooLong && n == 0 {
		return 0, websocket.ErrMessageTooBig
	}
	return n, err
}

// take reads what came.
func (s stream) take(p []byte) (int, error) {
	if th := s.th; len(th.early) > 0 {
		n := copy(p, th.early)
		if th.early = th.early[n:]; len(th.early) == 0 {
			th.early = nil
		}
		return n, nil
	}
	n, err := s.Conn.Read(p)
	if n > 0 {
		return n, nil // an error that comes with bytes, as TLS has it, comes again without
	}
	if err != nil {
		s.th.broken = true
	}
	return n, err
}

// Write implements net.Conn. The library writes close frames by itself; the drain sends ours in their place.
func (stream) Write(p []byte) (int, error) { return len(p), nil }

// Close implements net.Conn. The connection closes its socket, in its own time.
func (stream) Close() error { return nil }

// readAll appends a message to buf. The library holds it to its limit.
func readAll(buf []byte, r io.Reader) ([]byte, error) {
	for {
		buf = grown(buf)
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

var errNotText = push.Errorf(push.KindInvalid, CodeNotText, "messages are text")
