package redis

import (
	"context"
	"hash/maphash"
	"slices"
	"sync"
)

// turns lets the writers of one node to the same slot go one after the other, so that they do not make each other begin anew. A turn can be
// waited for with a context, in the order of coming; several are taken in the order of their numbers. Turns are by slot, and not a fixed number of
// locks that slots share: a batch holds a hundred of them over its round trips, and others would wait for it without any slot in common.
type turns struct {
	seed    maphash.Seed
	stripes [turnStripes]turnStripe
}

// turnStripe holds the turns that are taken of some slots, and who waits for them.
type turnStripe struct {
	mu    sync.Mutex
	taken map[uint64][]chan struct{} // guarded by mu; one of a waiter is closed when it has its turn
}

const turnStripes = 64

func newTurns() *turns {
	t := &turns{seed: maphash.MakeSeed()}
	for i := range t.stripes {
		t.stripes[i].taken = make(map[uint64][]chan struct{})
	}
	return t
}

// of returns the number of a slot.
func (t *turns) of(k slotKeys) uint64 { return maphash.Comparable(t.seed, k) }

// take takes turns, each once, and returns their numbers as release wants them.
func (t *turns) take(ctx context.Context, numbers []uint64) ([]uint64, error) {
	slices.Sort(numbers)
	numbers = slices.Compact(numbers)
	for i, n := range numbers {
		if err := t.stripes[n%turnStripes].take(ctx, n); err != nil {
			t.release(numbers[:i])
			return nil, unavailable(err)
		}
	}
	return numbers, nil
}

func (t *turns) release(numbers []uint64) {
	for _, n := range numbers {
		t.stripes[n%turnStripes].release(n)
	}
}

func (s *turnStripe) take(ctx context.Context, n uint64) error {
	s.mu.Lock()
	waiting, taken := s.taken[n]
	if !taken {
		s.taken[n] = nil
		s.mu.Unlock()
		return nil
	}
	mine := make(chan struct{})
	s.taken[n] = append(waiting, mine)
	s.mu.Unlock()
	select {
	case <-mine:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	if i := slices.Index(s.taken[n], mine); i >= 0 {
		s.taken[n] = slices.Delete(s.taken[n], i, i+1)
		s.mu.Unlock()
		return ctx.Err()
	}
	s.mu.Unlock()
	s.release(n) // it was given to us meanwhile
	return ctx.Err()
}

// release gives the turn to whoever waits longest for it.
func (s *turnStripe) release(n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting := s.taken[n]
	if len(waiting) == 0 {
		delete(s.taken, n)
		return
	}
	close(waiting[0])
	s.taken[n] = slices.Delete(waiting, 0, 1)
}
