package ws

import (
	"bytes"

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
}

func newDrain() *drain {
	d := &drain{batch: transport.Batch{MaxOuts: batchOuts, MaxSize: batchSize}}
	d.attempt = d.attemptWrite
	return d
}

// work is a drain worker.
func (t *Transport) work() {
	d := newDrain()
	for c := t.ready.pop(); c != nil; c = t.ready.pop() {
		switch {
		case !c.begin():
		case c.raw != nil:
			c.drainAtOnce(d)
		default:
			t.running.Go(c.drainWaiting)
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
	for range turns {
		closes := c.collect(d)
		if len(d.buf) == 0 {
			c.release(false)
			return
		}
		n, err := d.tryWrite(c.raw)
		if err != nil {
			c.drop(wire.CloseLost)
			c.release(false)
			return
		}
		if n < len(d.buf) {
			rest := bytes.Clone(d.buf[n:])
			c.t.running.Go(func() { c.finishWrite(rest, closes) })
			return
		}
		c.wrote(closes)
	}
	c.release(true)
}

// finishWrite waits until the kernel took the rest of a write.
func (c *conn) finishWrite(rest []byte, closes bool) {
	if _, err := c.nc.Write(rest); err != nil {
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
		if _, err := c.nc.Write(d.buf); err != nil {
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

	c.mu.Lock()
	c.woken = false
	pong, bye, closing := c.pong, c.bye, c.closing
	c.pong = nil
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
	answered, refused := c.bye != nil, c.refused
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
	push := (more || c.woken || c.pong != nil || c.bye != nil || c.closing != 0) && c.queueLocked()
	last := c.settleLocked()
	c.mu.Unlock()
	if push {
		c.t.ready.push(c)
	}
	if last {
		c.finish()
	}
}
