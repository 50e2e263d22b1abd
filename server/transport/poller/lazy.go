package poller

import (
	"sync"
	"sync/atomic"
)

// Lazy is a [Poller] with a loop for each processor that is made for its first socket: a transport that parks nothing has none.
// The zero value is ready. It is safe for concurrent use, but Close comes after the last Reserve.
type Lazy struct {
	mu     sync.Mutex // held while the poller is made or closed
	poller atomic.Pointer[Poller]
}

// Make makes the poller unless there is one. It fails as [New] does; the next one who asks tries again.
func (l *Lazy) Make() error {
	_, err := l.get()
	return err
}

func (l *Lazy) get() (*Poller, error) {
	if p := l.poller.Load(); p != nil {
		return p, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.poller.Load(); p != nil {
		return p, nil
	}
	p, err := New(0)
	if err != nil {
		return nil, err
	}
	l.poller.Store(p)
	return p, nil
}

// Made reports whether there is a poller.
func (l *Lazy) Made() bool { return l.poller.Load() != nil }

// Reserve is [Poller.Reserve] of the poller, which it makes first if need be.
func (l *Lazy) Reserve(s *Socket) error {
	p, err := l.get()
	if err != nil {
		return err
	}
	return p.Reserve(s)
}

// Help is [Poller.Help] of the poller, and nothing where there is none.
func (l *Lazy) Help() {
	if p := l.poller.Load(); p != nil {
		p.Help()
	}
}

// Close is [Poller.Close] of the poller, and nothing where there is none.
func (l *Lazy) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.poller.Swap(nil); p != nil {
		return p.Close()
	}
	return nil
}
