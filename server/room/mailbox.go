package room

import (
	"context"
	"sync"
)

// mailbox is an unbounded queue between those who may not block and workers. What bounds it is its content: a session
// is in each of the room's mailboxes at most once or twice. The zero capacity is given back when it runs empty.
type mailbox[T any] struct {
	ready chan struct{} // holds a token while there may be something

	mu     sync.Mutex
	items  []T
	closed bool
}

func newMailbox[T any]() *mailbox[T] { return &mailbox[T]{ready: make(chan struct{}, 1)} }

func (m *mailbox[T]) put(v T) {
	m.mu.Lock()
	m.items = append(m.items, v)
	m.mu.Unlock()
	m.signal()
}

func (m *mailbox[T]) signal() {
	select {
	case m.ready <- struct{}{}:
	default:
	}
}

// close makes get return nothing once the mailbox is empty.
func (m *mailbox[T]) close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.signal()
}

// get moves at least one and at most cap(dst) items into dst[:0], waiting for them. It returns none when ctx ended, or the
// mailbox is closed and empty.
func (m *mailbox[T]) get(ctx context.Context, dst []T) []T {
	for {
		dst = m.poll(dst)
		if len(dst) > 0 {
			return dst
		}
		m.mu.Lock()
		closed := m.closed && len(m.items) == 0
		m.mu.Unlock()
		if closed {
			m.signal() // for the other workers
			return dst
		}
		select {
		case <-ctx.Done():
			return dst
		case <-m.ready:
		}
	}
}

// poll is get without waiting.
func (m *mailbox[T]) poll(dst []T) []T {
	m.mu.Lock()
	n := min(len(m.items), cap(dst))
	dst = append(dst[:0], m.items[:n]...)
	clear(m.items[:n])
	m.items = m.items[n:]
	more := len(m.items) > 0
	if !more {
		m.items = nil
	}
	m.mu.Unlock()
	if more {
		m.signal()
	}
	return dst
}

func (m *mailbox[T]) isClosed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.closed && len(m.items) == 0
}
