package engine

import (
	"crypto/tls"
	"io"
	"net"
	"syscall"

	"carillon/server/wire"
)

// thread is what a connection has in the goroutine form: a socket in Go's poller, and a goroutine that reads it. It is the form
// for TLS in this process and for systems without an epoll.
type thread struct {
	// Static.
	nc  net.Conn
	raw syscall.RawConn // for a write that does not wait; nil where there is none
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

// closeWrite ends our direction. Under TLS that is an alert; where none can be sent, because the handshake is not over, it is
// the end of the stream below.
func (th *thread) closeWrite() {
	type halfCloser interface{ CloseWrite() error }
	w, ok := th.nc.(halfCloser)
	if !ok || w.CloseWrite() == nil {
		return
	}
	if s, ok := th.nc.(*tls.Conn); ok {
		if w, ok := s.NetConn().(halfCloser); ok {
			w.CloseWrite()
		}
	}
}

// readSize is how much the goroutine form reads at once. Its buffer is held for as long as the connection lasts, and frames of
// clients are short.
const readSize = 1 << 10

// read is the reader of a connection in the goroutine form, until nothing more can be read.
func (c *Conn) read(early []byte) {
	if len(early) > 0 && !c.isDead() {
		c.dialect.Feed(early)
	}
	buf := make([]byte, readSize)
	for {
		n, err := c.thread.nc.Read(buf)
		if n > 0 && !c.deaf && !c.isDead() { // TLS may give the last bytes and the end at once
			c.dialect.Feed(buf[:n])
		}
		if err == nil {
			continue
		}
		if err == io.EOF {
			err = nil
		}
		c.dialect.ReadEnded(err)
		break
	}
	c.endRead()
}

func (c *Conn) isDead() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dead
}

// abandon ends a connection that had a session before it had a socket.
func (c *Conn) abandon() {
	c.mu.Lock()
	if c.final == 0 {
		c.final = wire.CloseLost
	}
	c.dead, c.done = true, true
	c.mu.Unlock()
	c.sock.Close(false)
	c.finish()
}
