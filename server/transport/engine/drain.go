package ws

import (
	"bytes"
	"runtime"
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
	batch transport.Batch
	buf   []byte // frames of one write

	// What one attempt to write gave. It stands here because attempt is bound once: a closure for each write would be
	// garbage for each write.
	n       int
	err     error
	attempt func(fd uintptr) bool

	writes *atomic.Int64 // system calls that wrote, or tried to
}

func newDrain(writes *atomic.Int64) *drain {
	d := &drain{batch: transport.Batch{MaxOuts: batchOuts, MaxSize: batchSize}, writes: writes}
	d.attempt = d.attemptWrite
	return d
}

// yieldEvery is after how many connections a worker looks after what else there is: a long fan-out would otherwise keep the
// pings and acknowledgements that come, and whatever else the process does, waiting for whole time slices.
const yieldEvery = 32

// work is a drain worker.
func (t *Transport) work(writes *atomic.Int64) {
	d := newDrain(writes)
	for n := 1; ; n++ {
		c := t.ready.pop()
		switch {
		case c == nil:
			return
		case !c.begin():
		case c.thread == nil || c.thread.raw != nil:
			c.drainAtOnce(d)
		default:
			t.running.Go(c.drainWaiting)
		}
		if n%yieldEvery == 0 {
			if p := t.poller.Load(); p != nil {
				p.Help()
			}
			runtime.Gosched()
		}
	}
}

// begin takes the connection from the ready list; false if there is nothing to do any more.
func (c *conn) begin() bool {
	c.mu.Lock()
	if c.dead {
		c.drain = resting
	} else {
		c.drain = draining
	}
	dead, last := c.dead, c.settleLocked()
	c.mu.Unlock()
	if last {
		c.finish()
	}
	return !dead
}

// drainAtOnce writes what the session has, as long as the kernel takes it and it is this connection's turn.
func (c *conn) drainAtOnce(d *drain) {
	if rest := c.takeUnsent(); rest != nil && !c.resume(d, rest) {
		return
	}
	for range turns {
		closes := c.collect(d)
		if len(d.buf) == 0 {
			c.release(false)
			return
		}
		n, err := c.writeNow(d)
		if err != nil {
			c.drop(wire.CloseLost)
			c.release(false)
			return
		}
		if n < len(d.buf) {
			c.stall(bytes.Clone(d.buf[n:]), closes)
			return
		}
		c.wrote(closes)
	}
	c.release(true)
}

// writeNow writes as much of d.buf as the kernel takes at once.
func (c *conn) writeNow(d *drain) (int, error) {
	d.writes.Add(1)
	if c.thread != nil {
		return d.tryWrite(c.thread.raw)
	}
	return c.sock.Write(d.buf)
}

// stall leaves the connection until the kernel takes more: to a goroutine that waits, or to the loop.
func (c *conn) stall(rest []byte, closes bool) {
	if c.thread != nil {
		c.t.running.Go(func() { c.finishWrite(rest, closes) })
		return
	}
	c.mu.Lock()
	c.stuck = &unsent{rest: rest, closes: closes}
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
func (c *conn) takeUnsent() *unsent {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.stuck
	c.stuck = nil
	return u
}

// resume goes on with a write that the kernel took a part of. It returns false if the connection is out of the worker's
// hands again.
func (c *conn) resume(d *drain, u *unsent) bool {
	d.buf = append(d.buf[:0], u.rest...)
	n, err := c.writeNow(d)
	switch {
	case err != nil:
		c.drop(wire.CloseLost)
		c.release(false)
		return false
	case n < len(u.rest):
		c.stall(u.rest[n:], u.closes)
		return false
	}
	c.wrote(u.closes)
	return true
}

// finishWrite waits until the kernel took the rest of a write.
func (c *conn) finishWrite(rest []byte, closes bool) {
	if _, err := c.thread.nc.Write(rest); err != nil {
		c.drop(wire.CloseLost)
	} else {
		c.wrote(closes)
	}
	c.release(true)
}

// drainWaiting drains a connection that can only be written to by waiting.
func (c *conn) drainWaiting() {
	d := c.t.drains.Get().(*drain)
	defer c.t.drains.Put(d)
	for {
		closes := c.collect(d)
		if len(d.buf) == 0 {
			break
		}
		d.writes.Add(1)
		if _, err := c.thread.nc.Write(d.buf); err != nil {
			c.drop(wire.CloseLost)
			break
		}
		c.wrote(closes)
	}
	c.release(false)
}

// collect encodes what is to be written next into d.buf, nothing if there is nothing: a pong that is due, what one Take
// returns, and at the end the close frame, of which closes tells.
func (c *conn) collect(d *drain) (closes bool) {
	if cap(d.buf) > keepSize {
		d.buf = nil
	}
	d.buf = d.buf[:0]

	var pong, bye []byte
	c.mu.Lock()
	c.woken, c.bulk = false, false
	closing := c.closing
	if c.said != nil {
		pong, bye = c.said.pong, c.said.bye
		if c.said.pong = nil; bye == nil {
			c.said = nil
		}
	}
	over := c.dead || c.ending
	c.mu.Unlock()

	if over {
		return false
	}
	if bye != nil { // the peer reads no further messages
		return c.collectClose(d, bye)
	}
	if pong != nil {
		d.buf = appendControl(d.buf, opPong, pong)
	}
	if c.session.Take(&d.batch) {
		for i := range d.batch.Outs {
			d.buf = appendText(d.buf, &d.batch.Outs[i])
		}
		d.batch.Reset() // a write may wait for long; it need not hold the messages
		return false
	}
	if closing != 0 {
		return c.collectClose(d, closePayload(closing))
	}
	return false
}

func (c *conn) collectClose(d *drain, payload []byte) bool {
	c.mu.Lock()
	c.ending = true
	c.mu.Unlock()
	d.buf = appendControl(d.buf, opClose, payload)
	return true
}

// wrote does what follows a close frame of ours, once it is in the kernel's hands.
func (c *conn) wrote(closes bool) {
	if !closes {
		return
	}
	c.mu.Lock()
	c.ended = true
	answered, refused := c.said != nil && c.said.bye != nil, c.refused
	c.mu.Unlock()
	switch {
	case answered:
		c.drop(wire.CloseNormal)
	case refused:
		c.shutWrite()
	}
}

// release gives the connection back, to the end of the ready list if there is more to do.
func (c *conn) release(more bool) {
	c.mu.Lock()
	c.drain = resting
	share := transport.Bulk // the rest of a long queue is no reason to go before others
	if c.said != nil || c.closing != 0 || c.woken && !c.bulk {
		share = transport.Direct
	}
	push := (more || c.wantsLocked()) && c.queueLocked()
	if push {
		c.asked = share
	}
	last := c.settleLocked()
	c.mu.Unlock()
	if push {
		c.t.ready.push(c, share)
	}
	if last {
		c.finish()
	}
}
