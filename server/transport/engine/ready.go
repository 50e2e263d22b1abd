package engine

import (
	"sync"

	"carillon/server/transport"
)

// directTurns is how many connections with something direct are served, while others wait with a part of a fan-out, before
// one of those has its turn.
const directTurns = 8

// readyList is the queue of the connections that a drain worker should look at: two of them, one for each share, each
// first in, first out. A connection's own state keeps it from standing there twice, so the lists are linked through the
// connections and never allocate.
type readyList struct {
	mu    sync.Mutex
	there sync.Cond
	// Guarded by mu, and so are Conn.next, Conn.prev, Conn.share and Conn.listed.
	lists  [2]struct{ head, tail *Conn }
	run    int // connections from the direct list in a row, while the other one was waiting
	closed bool
}

func (l *readyList) init() { l.there.L = &l.mu }

// push appends c to the list of its share. It never blocks.
func (l *readyList) push(c *Conn, share transport.Share) {
	l.mu.Lock()
	c.share = share
	l.linkLocked(c)
	l.mu.Unlock()
	l.there.Signal()
}

// promote moves c from the list of the bulk share to the end of the direct one. One that a worker has just taken is where it
// wants to be. Caller and pusher hold Conn.mu, so it is never about to be pushed.
func (l *readyList) promote(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.listed && c.share == transport.Bulk {
		l.unlinkLocked(c)
		c.share = transport.Direct
		l.linkLocked(c)
	}
}

func (l *readyList) linkLocked(c *Conn) {
	q := &l.lists[c.share]
	c.listed, c.prev, c.next = true, q.tail, nil
	if q.tail == nil {
		q.head = c
	} else {
		q.tail.next = c
	}
	q.tail = c
}

func (l *readyList) unlinkLocked(c *Conn) {
	q := &l.lists[c.share]
	if c.prev == nil {
		q.head = c.next
	} else {
		c.prev.next = c.next
	}
	if c.next == nil {
		q.tail = c.prev
	} else {
		c.next.prev = c.prev
	}
	c.listed, c.prev, c.next = false, nil, nil
}

// pop takes the next connection, and waits for one; nil once the list is closed.
func (l *readyList) pop() *Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.closed {
		direct, bulk := l.lists[transport.Direct].head, l.lists[transport.Bulk].head
		c := direct
		switch {
		case bulk == nil: // nobody waits for a turn
			l.run = 0
		case direct == nil || l.run == directTurns:
			c, l.run = bulk, 0
		default:
			l.run++
		}
		if c != nil {
			l.unlinkLocked(c)
			return c
		}
		l.there.Wait()
	}
	return nil
}

// close sends the workers home. What still stands in the list has ended.
func (l *readyList) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.there.Broadcast()
}
