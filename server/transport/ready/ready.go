// Package ready holds the connections of a transport that have something to be written, until a worker has time for them.
// It stands between sessions, whose wakes put connections there, and the workers of a transport, which take them out.
//
// Invariants:
//
//   - A connection stands in a list once. That is for its owner to see to: it pushes a connection only after the one before
//     was popped.
//   - Connections with something direct come before those with a part of a fan-out, which still have their turn.
//   - Nothing is allocated: lists are linked through the connections.
//   - Whoever calls may hold the connection's own lock; a list calls nobody and holds its lock for a few lines.
package ready

import (
	"runtime"
	"sync"

	"carillon/server/transport"
)

// directTurns is how many connections with something direct are served, while others wait with a part of a fan-out, before
// one of those has its turn.
const directTurns = 8

// Entry is what a connection has of its place in a list. The zero value stands in none. In which of the two lists it stands,
// its owner knows: with a million connections that are in neither, every word counts.
type Entry[T any] struct {
	// Guarded by List.mu.
	prev, next *T
}

// List is the queue of the connections that a worker should look at: two of them, one for each share, each first in, first
// out. It is made by [New] and safe for concurrent use.
type List[T any] struct {
	entry func(*T) *Entry[T] // static

	mu    sync.Mutex
	there sync.Cond
	// Guarded by mu, and so is the Entry of each connection.
	lists  [2]ends[T]
	run    int // connections from the direct list in a row, while the other one was waiting
	closed bool
}

// ends are those of one list.
type ends[T any] struct{ head, tail *T }

// New returns an empty list of connections whose entries entry returns.
func New[T any](entry func(*T) *Entry[T]) *List[T] {
	l := &List[T]{entry: entry}
	l.there.L = &l.mu
	return l
}

// Push appends c to the list of its share. It never blocks.
func (l *List[T]) Push(c *T, share transport.Share) {
	l.mu.Lock()
	l.linkLocked(&l.lists[share], c)
	l.mu.Unlock()
	l.there.Signal()
}

// Promote moves c, which was pushed for the bulk share and not promoted since, to the end of the direct list. One that a worker
// has just taken is where it wants to be. Whoever pushes and promotes sees to it that c is not about to be pushed.
func (l *List[T]) Promote(c *T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	bulk := &l.lists[transport.Bulk]
	if l.entry(c).prev == nil && bulk.head != c {
		return
	}
	l.unlinkLocked(bulk, c)
	l.linkLocked(&l.lists[transport.Direct], c)
}

func (l *List[T]) linkLocked(q *ends[T], c *T) {
	e := l.entry(c)
	e.prev, e.next = q.tail, nil
	if q.tail == nil {
		q.head = c
	} else {
		l.entry(q.tail).next = c
	}
	q.tail = c
}

func (l *List[T]) unlinkLocked(q *ends[T], c *T) {
	e := l.entry(c)
	if e.prev == nil {
		q.head = e.next
	} else {
		l.entry(e.prev).next = e.next
	}
	if e.next == nil {
		q.tail = e.prev
	} else {
		l.entry(e.next).prev = e.prev
	}
	e.prev, e.next = nil, nil
}

// Pop takes the next connection, and waits for one; nil once the list is closed.
func (l *List[T]) Pop() *T {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.closed {
		direct, bulk := &l.lists[transport.Direct], &l.lists[transport.Bulk]
		q := direct
		switch {
		case bulk.head == nil: // nobody waits for a turn
			l.run = 0
		case direct.head == nil || l.run == directTurns:
			q, l.run = bulk, 0
		default:
			l.run++
		}
		if c := q.head; c != nil {
			l.unlinkLocked(q, c)
			return c
		}
		l.there.Wait()
	}
	return nil
}

// yieldEvery is after how many connections a worker looks after what else there is: a long fan-out would otherwise keep the
// pings and acknowledgements that come, and whatever else the process does, waiting for whole time slices.
const yieldEvery = 32

// Work is a worker: it calls serve for one connection after the other, in their turn, until the list is closed. Now and then
// it calls help, which is to serve what came in meanwhile.
func (l *List[T]) Work(serve func(*T), help func()) {
	for n := 1; ; n++ {
		c := l.Pop()
		if c == nil {
			return
		}
		serve(c)
		if n%yieldEvery == 0 {
			help()
			runtime.Gosched()
		}
	}
}

// Close sends the workers home. What still stands in the list has ended.
func (l *List[T]) Close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.there.Broadcast()
}
