// Package roster counts the connections of a transport, from before their session is asked for to the return of its last call,
// so that Close of the transport knows for whom to wait and whom to cut. It stands beside package ready, which holds those of
// them that have something to be written.
//
// Invariants:
//
//   - Once a roster is closed nobody enters it.
//   - Nothing is allocated for a connection: the roster is linked through them.
//   - Whoever calls may hold a connection's own lock; a roster holds its lock for a few lines, and calls nobody under it.
package roster

import (
	"context"
	"sync"
)

// Entry is what a connection has of its place in a roster. The zero value stands in none.
type Entry[T any] struct {
	// Guarded by Roster.mu.
	before, after *T
}

// Roster is the list of those who are there. It is made by [New] and safe for concurrent use.
type Roster[T any] struct {
	entry func(*T) *Entry[T] // static
	empty chan struct{}      // closed by whoever finds, after closed was set, that count is 0

	mu sync.Mutex
	// Guarded by mu, and so is the Entry of each connection.
	closed bool
	first  *T
	count  int // of the list, and of those who joined
}

// New returns an empty roster of connections whose entries entry returns.
func New[T any](entry func(*T) *Entry[T]) *Roster[T] {
	return &Roster[T]{entry: entry, empty: make(chan struct{})}
}

// Enter puts c on the list; false once the roster is closed. [Roster.Leave] follows.
func (r *Roster[T]) Enter(c *T) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.count++
	r.entry(c).after = r.first
	if r.first != nil {
		r.entry(r.first).before = c
	}
	r.first = c
	return true
}

// Leave is the opposite of Enter.
func (r *Roster[T]) Leave(c *T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entry(c)
	if e.before != nil {
		r.entry(e.before).after = e.after
	} else {
		r.first = e.after
	}
	if e.after != nil {
		r.entry(e.after).before = e.before
	}
	*e = Entry[T]{}
	r.partLocked()
}

// Join counts somebody who is not on the list, for whom Close waits as well; false once the roster is closed and empty. Until
// then who is on the list may still need them. [Roster.Part] follows.
func (r *Roster[T]) Join() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed && r.count == 0 {
		return false
	}
	r.count++
	return true
}

// Part is the opposite of Join.
func (r *Roster[T]) Part() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.partLocked()
}

func (r *Roster[T]) partLocked() {
	if r.count--; r.count == 0 && r.closed {
		close(r.empty)
	}
}

// Close refuses who is new, and returns when all have left. When ctx ends before that, it calls cut for each who is still on
// the list, and returns how many those were; cut has to bring about that they leave, as do those who joined.
func (r *Roster[T]) Close(ctx context.Context, cut func(*T)) int {
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		if r.count == 0 {
			close(r.empty)
		}
	}
	r.mu.Unlock()

	select {
	case <-r.empty:
		return 0
	case <-ctx.Done():
	}
	left := r.list()
	for _, c := range left {
		cut(c)
	}
	<-r.empty
	return len(left)
}

func (r *Roster[T]) list() []*T {
	r.mu.Lock()
	defer r.mu.Unlock()
	cs := make([]*T, 0, r.count)
	for c := r.first; c != nil; c = r.entry(c).after {
		cs = append(cs, c)
	}
	return cs
}

// Len returns how many are there, with those who joined.
func (r *Roster[T]) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
}
