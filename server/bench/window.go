package bench

import (
	"context"
	"sync"
	"time"
)

// stallPatience is how long nothing may arrive before what is under way counts as missing.
const stallPatience = 10 * time.Second

// window bounds what is sent and has not arrived, so that a sender goes as fast as its receivers and no queue in between runs
// over. It is safe for concurrent use.
type window struct {
	size int

	// Guarded by mu.
	mu      sync.Mutex
	used    int
	stalled int           // how often what was under way was given up
	changed chan struct{} // closed, and another made, at every release
}

func newWindow(size int) *window { return &window{size: size, changed: make(chan struct{})} }

// acquire waits for room for n. Where nothing moves for too long, what is under way is given up: it was lost, and the count
// at the end will tell.
func (w *window) acquire(ctx context.Context, n int) error {
	for {
		w.mu.Lock()
		if w.used+n <= w.size {
			w.used += n
			w.mu.Unlock()
			return nil
		}
		changed := w.changed
		w.mu.Unlock()
		moved, err := w.wait(ctx, changed)
		if err != nil {
			return err
		}
		if !moved {
			w.giveUp()
		}
	}
}

func (w *window) wait(ctx context.Context, changed <-chan struct{}) (moved bool, err error) {
	stalled := time.NewTimer(stallPatience)
	defer stalled.Stop()
	select {
	case <-changed:
		return true, nil
	case <-stalled.C:
		return false, nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}

// release notes that n arrived.
func (w *window) release(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.used = max(0, w.used-n) // what was given up may still come
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *window) giveUp() {
	w.mu.Lock()
	w.stalled++
	w.mu.Unlock()
	w.release(w.size)
}

// stalls returns how often what was under way was given up.
func (w *window) stalls() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stalled
}

// drain waits until everything has arrived. It returns false if nothing moves any more.
func (w *window) drain(ctx context.Context) (arrived bool, err error) {
	for {
		w.mu.Lock()
		used, changed := w.used, w.changed
		w.mu.Unlock()
		if used == 0 {
			return true, nil
		}
		if moved, err := w.wait(ctx, changed); err != nil || !moved {
			return false, err
		}
	}
}

// news hands what the client processes tell to the window of the phase that is measured.
type news struct {
	mu  sync.Mutex
	all *window // released by one for a message that all have
	one *window // released by one for each message that arrived
}

func (n *news) everywhere(uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.all != nil {
		n.all.release(1)
	}
}

func (n *news) arrived(count uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.one != nil {
		n.one.release(int(count))
	}
}

// set says which windows are released from now on; nil: none.
func (n *news) set(all, each *window) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all, n.one = all, each
}
