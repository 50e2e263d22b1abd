package engine

import (
	"bytes"
	"sync/atomic"

	"carillon/server/transport"
	"carillon/server/wire"
)

const (
	batchOuts = 128       // frames in one write, at most
	batchSize = 64 << 10  // bytes after which no further frame is taken into it
	keepSize  = 256 << 10 // a scratch buffer that grew beyond it is given back
	turns     = 4         // writes in a row to one connection while others wait
)

// drain is what a goroutine needs to write to one connection after another.
type drain struct {
	Turn // whose Buf holds the frames of one write

	// What one attempt to write is about and gave. It stands here because attempt is bound once: a closure for each write
	// would be garbage for each write.
	out     []byte
	n       int
	err     error
	attempt func(fd uintptr) bool

	writes *atomic.Int64 // system calls that wrote, or tried to
}

func newDrain(writes *atomic.Int64) *drain {
	d := &drain{Turn: Turn{batch: transport.Batch{MaxOuts: batchOuts, MaxSize: batchSize}}, writes: writes}
	d.attempt = d.attemptWrite
	return d
}

// work is a drain worker.
func (e *Engine) work(writes *atomic.Int64) {
	d := newDrain(writes)
	e.ready.Work(func(c *Conn) {
		switch {
		case !c.begin():
		case c.writesAtOnce():
			c.drainAtOnce(d)
		default:
			e.running.Go(c.drainWaiting)
		}
	}, e.poller.Help)
}

// begin takes the connection from the ready list; false if there is nothing to do any more.
func (c *Conn) begin() bool {
	c.mu.Lock()
	ok := !c.dead
	if ok {
		c.drain = draining
	} else {
		c.drain = resting
	}
	last := c.settleLocked()
	c.mu.Unlock()
	if last {
		c.finish()
	}
	return ok
}

// drainAtOnce writes what the session has, as long as the kernel takes it and it is this connection's turn.
func (c *Conn) drainAtOnce(d *drain) {
	if u := c.takeUnsent(); u != nil && !c.resume(d, u) {
		return
	}
	for range turns {
		mark := c.collect(d)
		if len(d.Buf) > 0 {
			n, err := c.writeNow(d, d.Buf)
			if err != nil {
				c.Drop(wire.CloseLost)
				c.release(false)
				return
			}
			if n < len(d.Buf) {
				c.stall(&unsent{bytes.Clone(d.Buf[n:]), mark})
				return
			}
		} else if mark == Plain {
			c.release(false)
			return
		}
		c.wrote(mark)
	}
	c.release(true)
}

// writeNow writes as much of p as the kernel takes at once.
func (c *Conn) writeNow(d *drain, p []byte) (int, error) {
	d.writes.Add(1)
	if c.thread != nil {
		return d.tryWrite(c.thread.raw, p)
	}
	return c.sock.Write(p)
}

// stall leaves the connection until the kernel takes more: to a goroutine that waits, or to the loop.
func (c *Conn) stall(u *unsent) {
	if c.thread != nil {
		c.e.running.Go(func() { c.finishWrite(u) })
		return
	}
	c.mu.Lock()
	c.stuck = u
	c.drain = stalled
	dead := c.dead
	last := c.settleLocked()
	c.mu.Unlock()
	switch {
	case last:
		c.finish()
	case !dead:
		c.sock.AwaitWrite()
	}
}

// takeUnsent returns what is left of the last write to a parked connection.
func (c *Conn) takeUnsent() *unsent {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.stuck
	c.stuck = nil
	return u
}

// resume goes on with a write that the kernel took a part of. It returns false if the connection is out of the worker's
// hands again.
func (c *Conn) resume(d *drain, u *unsent) bool {
	n, err := c.writeNow(d, u.rest)
	switch {
	case err != nil:
		c.Drop(wire.CloseLost)
		c.release(false)
		return false
	case n < len(u.rest):
		u.rest = u.rest[n:]
		c.stall(u)
		return false
	}
	c.wrote(u.mark)
	return true
}

// finishWrite waits until the kernel took the rest of a write.
func (c *Conn) finishWrite(u *unsent) {
	if _, err := c.thread.nc.Write(u.rest); err != nil {
		c.Drop(wire.CloseLost)
	} else {
		c.wrote(u.mark)
	}
	c.release(true)
}

// drainWaiting drains a connection that can only be written to by waiting.
func (c *Conn) drainWaiting() {
	d := c.e.drains.Get().(*drain)
	defer c.e.drains.Put(d)
	for {
		mark := c.collect(d)
		if len(d.Buf) > 0 {
			d.writes.Add(1)
			if _, err := c.thread.nc.Write(d.Buf); err != nil {
				c.Drop(wire.CloseLost)
				break
			}
		} else if mark == Plain {
			break
		}
		c.wrote(mark)
	}
	c.release(false)
}

// collect has the dialect put what is to be written next into d.Buf, nothing if there is nothing, and returns its mark.
func (c *Conn) collect(d *drain) Mark {
	if cap(d.Buf) > keepSize {
		d.Buf = nil
	}
	d.Buf, d.Mark = d.Buf[:0], Plain

	c.mu.Lock()
	over := c.dead || c.ending
	if !over {
		c.woken, c.bulk, c.due = false, false, false
		d.Closing = c.closing
	}
	c.mu.Unlock()
	if over {
		return Plain
	}
	d.session = c.session
	c.dialect.Collect(&d.Turn)
	d.session = nil
	d.batch.Reset() // a write may wait for long; it need not hold the messages
	if d.Mark == Goodbye {
		c.mu.Lock()
		c.ending = true
		c.mu.Unlock()
	}
	return d.Mark
}

// wrote does what follows a write that the kernel took whole.
func (c *Conn) wrote(m Mark) {
	if m == Plain {
		return
	}
	if m == Goodbye {
		c.mu.Lock()
		c.ended = true
		c.mu.Unlock()
	}
	c.dialect.Wrote(m)
}

// release gives the connection back, to the end of the ready list if there is more to do.
func (c *Conn) release(more bool) {
	c.mu.Lock()
	c.drain = resting
	if more || c.wantsLocked() {
		c.queueLocked(c.shareLocked())
	}
	last := c.settleLocked()
	c.mu.Unlock()
	if last {
		c.finish()
	}
}
