package ws

import "sync"

// readyList is the queue of the connections that a drain worker should look at, first in, first out. A connection's own
// state keeps it from standing there twice, so the list is linked through the connections and never allocates.
type readyList struct {
	mu    sync.Mutex
	there sync.Cond
	// Guarded by mu, and so is conn.next.
	head, tail *conn
	closed     bool
}

func (l *readyList) init() { l.there.L = &l.mu }

// push appends c. It never blocks.
func (l *readyList) push(c *conn) {
	l.mu.Lock()
	if l.tail == nil {
		l.head = c
	} else {
		l.tail.next = c
	}
	l.tail = c
	l.mu.Unlock()
	l.there.Signal()
}

// pop takes the first connection, and waits for one; nil once the list is closed.
func (l *readyList) pop() *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.head == nil && !l.closed {
		l.there.Wait()
	}
	if l.closed {
		return nil
	}
	c := l.head
	l.head, c.next = c.next, nil
	if l.head == nil {
		l.tail = nil
	}
	return c
}

// close sends the workers home. What still stands in the list has ended.
func (l *readyList) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.there.Broadcast()
}
