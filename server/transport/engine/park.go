package engine

import (
	"errors"
	"log/slog"
	"net"

	"carillon/server/transport"
	"carillon/server/transport/poller"
	"carillon/server/wire"
)

// park gives a connection to the poller, after what came together with the handshake. The caller is its reader until then.
func (c *Conn) park(early []byte) {
	if len(early) > 0 && !c.isDead() {
		c.dialect.Feed(early)
	}
	c.mu.Lock()
	dead := c.dead
	c.reading = dead // a dead one is not armed, and this is its reader's end
	c.mu.Unlock()
	if !dead {
		err := c.sock.Arm(parked{c})
		if err == nil {
			return
		}
		if !errors.Is(err, net.ErrClosed) {
			c.e.cfg.Log.Warn("a connection is lost", slog.String("transport", string(c.e.cfg.Kind)), slog.Any("err", err))
		}
		c.Drop(wire.CloseLost)
		return
	}
	c.endRead()
}

// parked is a connection as its poller knows it.
type parked struct{ *Conn }

// Ready implements poller.Handler.
func (p parked) Ready(readable, writable bool, scratch []byte) {
	c := p.Conn
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
func (c *Conn) readOnce(scratch []byte) {
	n, err := c.sock.Read(scratch)
	switch {
	case err == poller.ErrWouldBlock:
	case err != nil:
		c.dialect.ReadEnded(err)
	case n == 0:
		c.dialect.ReadEnded(nil)
		c.sock.Mute()
	case !c.deaf:
		c.dialect.Feed(scratch[:n])
	}
}

// endRead is the reader's last word, for now in a parked connection and for good in the goroutine form.
func (c *Conn) endRead() {
	c.mu.Lock()
	c.reading = false
	last := c.settleLocked()
	c.mu.Unlock()
	if last {
		c.finish()
	}
}

// writable is the kernel's word that it takes more of what a client did not read in time.
func (c *Conn) writable() {
	c.sock.Wrote()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.drain == stalled && !c.dead {
		c.drain, c.asked = queued, transport.Bulk
		c.e.ready.Push(c, transport.Bulk)
	}
}
