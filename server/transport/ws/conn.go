package ws

import (
	"crypto/tls"
	"net"
	"sync"
	"syscall"

	"carillon/server/transport"
	"carillon/server/wire"

	"github.com/coder/websocket"
)

// conn is one connection. Three kinds of goroutines work on it: its reader; at most one that drains it (a worker, or one
// that writes by waiting); and whoever calls Wake, Close and Cut.
type conn struct {
	// Static after construction.
	t *Transport

	// Set by the handshake, static once the connection stands.
	session transport.Session
	ws      *websocket.Conn
	raw     syscall.RawConn // for a write that does not wait; nil where there is none

	// Owned by the reader.
	early     []byte // what the client sent together with the handshake and is not read yet
	broken    bool   // the socket returned an error
	inMessage bool   // a message has begun and not ended

	// Guarded by Transport.mu.
	before, after *conn

	// Guarded by readyList.mu.
	next *conn

	mu sync.Mutex
	// Guarded by mu.
	nc       net.Conn // nil until the handshake took it; read without mu once the connection stands
	drain    drainState
	stands   bool           // the handshake is over: it may be read, written and closed
	woken    bool           // Wake was called after the last Take began
	dead     bool           // the socket is closed, or about to be
	readDone bool           // the reader has made its last call
	finished bool           // somebody calls, or called, Closed
	final    wire.CloseCode // what Closed will say; 0: nothing decided yet
	closing  wire.CloseCode // the session wants to say goodbye with it; 0: it does not
	bye      []byte         // payload of the close frame that answers the peer's; nil: none came
	pong     []byte         // payload of the pong that is due; nil: none is
	ending   bool           // our close frame is encoded: nothing may follow it
	ended    bool           // our close frame is in the kernel's hands
	refused  bool           // nothing more is decoded: the rest of what comes is discarded
}

// drainState says who has a connection for draining.
type drainState uint8

const (
	resting  drainState = iota // nobody: there is nothing to write
	queued                     // the ready list
	draining                   // a goroutine
)

// Wake implements transport.Conn.
func (c *conn) Wake(transport.Share) {
	c.mu.Lock()
	c.woken = true
	push := c.queueLocked()
	c.mu.Unlock()
	if push {
		c.t.ready.push(c)
	}
}

// Close implements transport.Conn.
func (c *conn) Close(code wire.CloseCode) {
	c.mu.Lock()
	if c.final == 0 {
		c.final, c.closing = code, code
	}
	push := c.queueLocked()
	c.mu.Unlock()
	if push {
		c.t.ready.push(c)
	}
}

// Cut implements transport.Conn. It resets a TCP connection rather than closing it: the kernel would go on trying to
// deliver megabytes to a client that does not read, without any owner.
func (c *conn) Cut(code wire.CloseCode) {
	nc, _ := c.die(code)
	if nc == nil {
		return
	}
	if s, ok := nc.(*tls.Conn); ok {
		nc = s.NetConn() // s.Close would wait to say goodbye
	}
	if l, ok := nc.(interface{ SetLinger(sec int) error }); ok {
		l.SetLinger(0)
	}
	nc.Close()
}

// drop closes the socket, what was written to it before remains to be delivered. Under TLS it may wait.
func (c *conn) drop(code wire.CloseCode) {
	if nc, first := c.die(code); first && nc != nil {
		nc.Close()
	}
}

// die notes the end and returns the socket for the caller to close; first reports whether nobody did before. The reader
// learns of the end from the socket.
func (c *conn) die(code wire.CloseCode) (nc net.Conn, first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.final == 0 {
		c.final = code
	}
	first = !c.dead
	c.dead = true
	return c.nc, first
}

// queueLocked reports whether the caller has to push c to the ready list.
func (c *conn) queueLocked() bool {
	if !c.stands || c.dead || c.ending || c.drain != resting {
		return false
	}
	c.drain = queued
	return true
}

// stand begins the life of the connection after the handshake: what was asked for meanwhile happens now.
func (c *conn) stand() {
	c.mu.Lock()
	c.stands = true
	dead := c.dead
	push := (c.woken || c.closing != 0) && c.queueLocked()
	c.mu.Unlock()
	if dead {
		c.nc.Close()
	}
	if push {
		c.t.ready.push(c)
	}
	c.t.running.Go(c.read)
}

// settleLocked reports whether the caller is the one to call finish: the socket is closed, and nobody else will call the
// session.
func (c *conn) settleLocked() bool {
	if !c.dead || !c.readDone || c.drain == draining || c.finished {
		return false
	}
	c.finished = true
	return true
}

// finish makes the session's last call.
func (c *conn) finish() {
	c.mu.Lock()
	code := c.final
	c.mu.Unlock()
	c.session.Closed(code)
	c.t.leave(c)
}

// shutWrite tells the peer that nothing more comes, while we still read. A client whose stream cannot be understood any
// more answers to that by closing, whether or not it understood the close frame.
func (c *conn) shutWrite() {
	if w, ok := c.nc.(interface{ CloseWrite() error }); ok {
		w.CloseWrite()
	}
}
