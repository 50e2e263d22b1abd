package ws

import (
	"sync"

	"carillon/server/transport"
	"carillon/server/transport/poller"
	"carillon/server/wire"
)

// conn is one connection, in either form. Three kinds of goroutines work on it: its reader, which is a goroutine of its own
// or the loop that it is parked on; at most one that drains it (a worker, or one that writes by waiting); and whoever calls
// Wake, Close and Cut.
type conn struct {
	// Static after construction.
	t *Transport

	// Set by the handshake, static once the connection stands.
	session transport.Session
	thread  *thread       // of the goroutine form; nil: the connection is parked
	sock    poller.Socket // of a parked connection

	// Owned by the reader.
	tail   []byte  // of a parked connection: the beginning of a frame that has not come whole; nil almost always
	parser *parser // of a parked connection: inside a message of several frames; nil almost always

	// Guarded by Transport.mu.
	before, after *conn

	// Guarded by readyList.mu.
	prev, next *conn
	share      transport.Share
	listed     bool
	urgent     bool // it was promoted before it was pushed

	// Owned by the reader.
	greeted bool // a first message was read
	deaf    bool // of a parked connection: what comes is discarded

	mu sync.Mutex
	// Guarded by mu.
	said    *said   // control frames of ours that are due; nil almost always
	stuck   *unsent // what the kernel did not take; nil almost always
	drain   drainState
	asked   transport.Share // for whom it stands in the ready list
	stands  bool            // the handshake is over: it may be read, written and closed
	woken   bool            // Wake was called after the last Take began
	bulk    bool            // with nothing but bulk
	dead    bool            // the socket is closed, or about to be
	reading bool            // its reader may call the session; falls for good once the goroutine form has made its last call
	done    bool            // somebody calls, or called, Closed
	ending  bool            // our close frame is encoded: nothing may follow it
	ended   bool            // our close frame is in the kernel's hands
	refused bool            // what the client sent is no frame
	final   wire.CloseCode  // what Closed will say; 0: nothing decided yet
	closing wire.CloseCode  // the session wants to say goodbye with it; 0: it does not
}

// said are the control frames of ours that are due.
type said struct {
	pong []byte // payload of the pong; nil: none is due
	bye  []byte // payload of the close frame that answers the peer's; nil: none came
}

// unsent is what is left of a write to a parked connection, until the kernel takes it.
type unsent struct {
	rest   []byte
	closes bool // our close frame is its end
}

// drainState says who has a connection for draining.
type drainState uint8

const (
	resting  drainState = iota // nobody: there is nothing to write
	queued                     // the ready list
	draining                   // a goroutine
	stalled                    // the kernel: it tells the loop when it takes more
)

// Wake implements transport.Conn.
func (c *conn) Wake(share transport.Share) {
	c.mu.Lock()
	c.bulk = share == transport.Bulk && (c.bulk || !c.woken)
	c.woken = true
	c.queueAndUnlock(share)
}

// Close implements transport.Conn.
func (c *conn) Close(code wire.CloseCode) {
	c.mu.Lock()
	if c.final == 0 {
		c.final, c.closing = code, code
	}
	c.queueAndUnlock(transport.Direct)
}

// Cut implements transport.Conn. It resets a TCP connection rather than closing it: the kernel would go on trying to
// deliver megabytes to a client that does not read, without any owner.
func (c *conn) Cut(code wire.CloseCode) { c.die(code, true) }

// drop closes the socket; what was written to it before remains to be delivered. In the goroutine form under TLS it may
// wait.
func (c *conn) drop(code wire.CloseCode) { c.die(code, false) }

// die notes the end and closes the socket. The reader of the goroutine form learns of it from the socket, and makes the last
// call; for a parked connection a drain worker does, unless somebody is at it who will.
func (c *conn) die(code wire.CloseCode, reset bool) {
	c.mu.Lock()
	if c.final == 0 {
		c.final = code
	}
	first := !c.dead
	c.dead = true
	if !c.stands {
		c.mu.Unlock()
		return // stand finds it dead
	}
	bury := c.thread == nil && !c.reading && (c.drain == resting || c.drain == stalled) && !c.done
	if bury {
		c.drain = queued
	}
	c.mu.Unlock()
	if first || reset {
		c.closeSocket(reset)
	}
	if bury {
		c.t.ready.push(c, transport.Direct)
	}
}

func (c *conn) closeSocket(reset bool) {
	if c.thread != nil {
		c.thread.close(reset)
		return
	}
	c.sock.Close(reset)
}

// queueAndUnlock pushes c to the ready list if there is reason to, or to its more urgent part. It unlocks mu.
func (c *conn) queueAndUnlock(share transport.Share) {
	push := c.queueLocked()
	promote := !push && share == transport.Direct && c.drain == queued && c.asked == transport.Bulk
	if push || promote {
		c.asked = share
	}
	c.mu.Unlock()
	switch {
	case push:
		c.t.ready.push(c, share)
	case promote:
		c.t.ready.promote(c)
	}
}

// queueLocked reports whether the caller has to push c to the ready list.
func (c *conn) queueLocked() bool {
	if !c.stands || c.dead || c.ending || c.drain != resting {
		return false
	}
	c.drain = queued
	return true
}

// wantsLocked reports whether there is something to write.
func (c *conn) wantsLocked() bool {
	return c.woken || c.said != nil || c.closing != 0
}

// stand begins the life of the connection after the handshake: what was asked for meanwhile happens now. early is what the
// client sent together with it.
func (c *conn) stand(early []byte) {
	c.mu.Lock()
	c.stands, c.reading = true, true
	dead := c.dead
	share := transport.Direct
	if c.woken && c.bulk {
		share = transport.Bulk
	}
	push := c.wantsLocked() && c.queueLocked()
	c.asked = share
	c.mu.Unlock()
	if dead {
		c.closeSocket(true)
	}
	if push {
		c.t.ready.push(c, share)
	}
	if c.thread != nil {
		c.t.running.Go(c.read)
	} else {
		c.park(early)
	}
}

// settleLocked reports whether the caller is the one to call finish: the socket is closed, and nobody else will call the
// session.
func (c *conn) settleLocked() bool {
	if !c.dead || c.reading || c.drain == draining || c.done {
		return false
	}
	c.done = true
	return true
}

// finish makes the session's last call.
func (c *conn) finish() {
	c.mu.Lock()
	code := c.final
	c.mu.Unlock()
	if c.parser != nil {
		c.parser.discard()
		c.parser = nil
	}
	c.session.Closed(code)
	c.t.leave(c)
}

// shutWrite tells the peer that nothing more comes, while we still read. A client whose stream cannot be understood any
// more answers to that by closing, whether or not it understood the close frame.
func (c *conn) shutWrite() {
	if c.thread != nil {
		c.thread.closeWrite()
		return
	}
	c.sock.CloseWrite()
}

// say queues a control frame of ours.
func (c *conn) say(note func(*said)) {
	c.mu.Lock()
	if c.said == nil {
		c.said = new(said)
	}
	note(c.said)
	c.queueAndUnlock(transport.Direct)
}
