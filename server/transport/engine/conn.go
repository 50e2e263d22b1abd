package engine

import (
	"sync"

	"carillon/server/transport"
	"carillon/server/transport/poller"
	"carillon/server/transport/ready"
	"carillon/server/transport/roster"
	"carillon/server/wire"
)

// Conn is one connection, in either form, to be embedded in a dialect's. Its zero value is ready for [Engine.Accept]; it is not
// to be copied. Three kinds of goroutines work on it: its reader, which is a goroutine of its own or the loop that it is parked
// on; at most one that drains it (a worker, or one that writes by waiting); and whoever calls Wake, Close and Cut.
type Conn struct {
	// Set by Accept, static then.
	e       *Engine
	dialect Dialect
	session transport.Session

	// Set when the socket is handed over, static while the connection stands.
	thread *thread       // of the goroutine form; nil: the connection is parked
	sock   poller.Socket // of a parked connection

	entry roster.Entry[Conn] // among all connections
	place ready.Entry[Conn]  // in the ready list

	// Owned by the reader.
	greeted bool // a first frame was read
	deaf    bool // what comes is discarded

	mu sync.Mutex
	// Guarded by mu. In this order, after the small ones above, they leave no hole.
	final   wire.CloseCode // what Closed will say; 0: nothing decided yet
	closing wire.CloseCode // the session wants to say goodbye with it; 0: it does not
	stuck   *unsent        // what the kernel did not take; nil almost always
	drain   drainState
	asked   transport.Share // for whom it stands in the ready list
	parks   bool            // a descriptor was reserved for it
	stands  bool            // it has a socket, may be read, written and closed
	woken   bool            // Wake was called after the last Take began
	bulk    bool            // with nothing but bulk
	due     bool            // the dialect has something of its own to write
	dead    bool            // the socket is closed, or about to be
	reading bool            // its reader may call dialect and session; falls for good once the goroutine form has made its last call
	done    bool            // somebody calls, or called, Closed
	ending  bool            // our goodbye is collected: nothing may follow it
	ended   bool            // our goodbye is in the kernel's hands
	refused bool            // what the client sent is no frame
}

// unsent is what is left of a write to a parked connection, until the kernel takes it.
type unsent struct {
	rest []byte
	mark Mark // of the whole write
}

// drainState says who has a connection for draining.
type drainState uint8

const (
	resting  drainState = iota // nobody: there is nothing to write
	queued                     // the ready list
	draining                   // a goroutine
	stalled                    // the kernel: it tells the loop when it takes more
)

func (c *Conn) base() *Conn { return c }

// Session returns the session of the connection.
func (c *Conn) Session() transport.Session { return c.session }

// Wake implements transport.Conn.
func (c *Conn) Wake(share transport.Share) {
	c.mu.Lock()
	c.bulk = share == transport.Bulk && (c.bulk || !c.woken)
	c.woken = true
	c.queueLocked(share)
	c.mu.Unlock()
}

// Flush implements transport.Flusher.
func (c *Conn) Flush() {
	c.mu.Lock()
	c.woken, c.bulk = true, false
	here := c.stands && !c.dead && !c.ending && c.drain == resting && c.writesAtOnce()
	if here {
		c.drain = draining
	} else {
		c.queueLocked(transport.Direct)
	}
	c.mu.Unlock()
	if here {
		d := c.e.drains.Get().(*drain)
		c.drainAtOnce(d)
		c.e.drains.Put(d)
	}
}

// writesAtOnce reports whether a write takes what the kernel takes, and does not wait for more.
func (c *Conn) writesAtOnce() bool { return c.thread == nil || c.thread.raw != nil }

// RequestWrite asks for a Collect because the dialect has something of its own to say, which is direct.
func (c *Conn) RequestWrite() {
	c.mu.Lock()
	c.due = true
	c.queueLocked(transport.Direct)
	c.mu.Unlock()
}

// Close implements transport.Conn.
func (c *Conn) Close(code wire.CloseCode) {
	c.mu.Lock()
	if c.final == 0 {
		c.final, c.closing = code, code
	}
	c.queueLocked(transport.Direct)
	c.mu.Unlock()
}

// Cut implements transport.Conn. It resets a TCP connection rather than closing it: the kernel would go on trying to
// deliver megabytes to a client that does not read, without any owner.
func (c *Conn) Cut(code wire.CloseCode) { c.die(code, true) }

// Drop closes the socket; what was written to it before remains to be delivered. In the goroutine form under TLS it may
// wait. Closed follows with this code, or with the one that was decided before.
func (c *Conn) Drop(code wire.CloseCode) { c.die(code, false) }

// Leave notes that the peer says goodbye in its own way: Closed will say CloseNormal, unless a code was decided before. It
// reports whether our own goodbye is out already; if not, Wrote will tell when it is.
func (c *Conn) Leave() (ended bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.final == 0 {
		c.final = wire.CloseNormal
	}
	return c.ended
}

// Ended reports whether our goodbye is in the kernel's hands.
func (c *Conn) Ended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}

// Refused reports whether the client sent what is no frame.
func (c *Conn) Refused() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refused
}

// Refuse tells the session that its client sent what is no frame, and discards what comes from now on: were unread bytes left
// when the socket closes, the kernel would reset it, and the client might never see why. The reader calls it.
func (c *Conn) Refuse(err error) {
	c.Deafen()
	c.mu.Lock()
	c.refused = true
	ended := c.ended
	c.mu.Unlock()
	if ended {
		c.CloseWrite()
	}
	c.session.Refuse(err)
}

// Deafen has what comes from now on discarded. The reader calls it.
func (c *Conn) Deafen() { c.deaf = true }

// Deaf reports whether what comes is discarded. The reader calls it.
func (c *Conn) Deaf() bool { return c.deaf }

// FrameLimit returns how large the next frame of the client may be. The reader calls it.
func (c *Conn) FrameLimit() int {
	if c.greeted {
		return c.e.cfg.FrameBytes
	}
	return c.e.cfg.FirstFrameBytes
}

// NoteFrame notes that a frame of the client was read, so that the first one's limit ends. The reader calls it.
func (c *Conn) NoteFrame() { c.greeted = true }

// CloseWrite tells the peer that nothing more comes, while we still read. A client whose stream cannot be understood any
// more answers to that by closing, whether or not it understood our goodbye.
func (c *Conn) CloseWrite() {
	if c.thread != nil {
		c.thread.closeWrite()
		return
	}
	c.sock.CloseWrite()
}

// die notes the end and closes the socket. The reader of the goroutine form learns of it from the socket, and makes the last
// call; for a parked connection a drain worker does, unless somebody is at it who will.
func (c *Conn) die(code wire.CloseCode, reset bool) {
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
	bury := !c.reading && (c.drain == resting || c.drain == stalled) && !c.done
	if bury {
		c.drain = queued
	}
	c.mu.Unlock()
	if first || reset {
		c.closeSocket(reset)
	}
	if bury {
		c.e.ready.Push(c, transport.Direct) // a dead one is not promoted, so this may come after the lock
	}
}

func (c *Conn) closeSocket(reset bool) {
	if c.thread != nil {
		c.thread.close(reset)
		return
	}
	c.sock.Close(reset)
}

// queueLocked pushes c to the ready list if there is reason to, or to its more urgent part.
func (c *Conn) queueLocked(share transport.Share) {
	switch {
	case !c.stands || c.dead || c.ending:
	case c.drain == resting:
		c.drain, c.asked = queued, share
		c.e.ready.Push(c, share)
	case c.drain == queued && c.asked == transport.Bulk && share == transport.Direct:
		c.asked = share
		c.e.ready.Promote(c)
	}
}

// wantsLocked reports whether there is something to write.
func (c *Conn) wantsLocked() bool {
	return c.woken || c.due || c.closing != 0
}

// shareLocked returns whose share a write would take now.
func (c *Conn) shareLocked() transport.Share {
	if c.due || c.closing != 0 || c.woken && !c.bulk {
		return transport.Direct
	}
	return transport.Bulk // also where a long queue has a rest, which is no reason to go before others
}

// settleLocked reports whether the caller is the one to call finish: the socket is closed, and nobody else will call the
// session.
func (c *Conn) settleLocked() bool {
	if !c.dead || c.reading || c.drain == draining || c.done {
		return false
	}
	c.done = true
	return true
}

// finish makes the session's last call.
func (c *Conn) finish() {
	c.mu.Lock()
	code := c.final
	c.mu.Unlock()
	c.dialect.Release()
	c.session.Closed(code)
	c.e.live.Leave(c)
}
