package ws

import (
	"errors"
	"log/slog"
	"net"

	"carillon/server/transport"
	"carillon/server/transport/poller"
	"carillon/server/wire"
)

// park gives a connection to the poller, after what came together with the handshake. The caller is its reader until then.
func (c *conn) park(early []byte) {
	if len(early) > 0 {
		c.take(early)
	}
	c.mu.Lock()
	dead := c.dead
	c.reading = dead // a dead one is not armed, and this is its reader's end
	c.mu.Unlock()
	if !dead {
		err := c.sock.Arm(c)
		if err == nil {
			return
		}
		if !errors.Is(err, net.ErrClosed) {
			c.t.cfg.Log.Warn("ws: a connection is lost", slog.Any("err", err))
		}
		c.drop(wire.CloseLost)
		return
	}
	c.endRead()
}

// Ready implements poller.Handler.
func (c *conn) Ready(readable, writable bool, scratch []byte) {
	if writable {
		c.writable()
	}
	if !readable {
		return
	}
	c.mu.Lock()
	if c.dead {
		c.mu.Unlock()
		return
	}
	c.reading = true
	c.mu.Unlock()
	c.readOnce(scratch)
	c.endRead()
}

// readOnce reads what is there, as much as the scratch buffer holds; the poller calls again for the rest.
func (c *conn) readOnce(scratch []byte) {
	n, err := c.sock.Read(scratch)
	switch {
	case err == poller.ErrWouldBlock:
	case err != nil:
		c.drop(wire.CloseLost)
	case n > 0 && c.deaf:
	case n > 0:
		c.take(scratch[:n])
	case c.saysBye(): // the peer said goodbye and went; the answer is still to be written, or at least tried
		c.sock.Mute()
	default:
		c.drop(wire.CloseLost)
	}
}

// saysBye reports whether the answer to the peer's close frame is on its way.
func (c *conn) saysBye() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.said != nil && c.said.bye != nil && !c.ended
}

// take takes bytes of the client: whole frames go to the library, the beginning of another is kept.
func (c *conn) take(b []byte) {
	if len(c.tail) > 0 {
		c.tail = append(c.tail, b...)
		b = c.tail
	}
	whole, refusal := c.cut(b)
	switch {
	case whole > 0 && !c.parse(b[:whole]):
		c.stopHearing()
	case refusal != nil:
		c.stopHearing()
		c.refuse(refusal)
	}
	switch rest := b[whole:]; {
	case c.deaf || len(rest) == 0:
		c.tail = nil
	case len(c.tail) == 0 || whole > 0:
		c.tail = append(make([]byte, 0, len(rest)), rest...)
	}
}

// stopHearing has what comes from now on discarded.
func (c *conn) stopHearing() {
	c.deaf = true
	if c.parser != nil {
		c.parser.discard()
		c.parser = nil
	}
}

// writable is the kernel's word that it takes more of what a client did not read in time.
func (c *conn) writable() {
	c.sock.Wrote()
	c.mu.Lock()
	push := c.drain == stalled && !c.dead
	if push {
		c.drain, c.asked = queued, transport.Bulk
	}
	c.mu.Unlock()
	if push {
		c.t.ready.push(c, transport.Bulk)
	}
}
