package redis

import (
	"context"
	"hash/maphash"
	"slices"
)

// turns lets the writers of one node to the same slot go one after the other, so that they do not make each other begin anew.
// It is a fixed number of locks that can be waited for with a context; several are taken in order.
type turns struct {
	seed  maphash.Seed
	locks [turnsCount]chan struct{} // holds an element while taken
}

const turnsCount = 4096

func newTurns() *turns {
	t := &turns{seed: maphash.MakeSeed()}
	for i := range t.locks {
		t.locks[i] = make(chan struct{}, 1)
	}
	return t
}

// of returns the number of a slot's lock.
func (t *turns) of(k slotKeys) int {
	return int(maphash.Comparable(t.seed, k) % turnsCount)
}

// take takes locks, each once, and returns their numbers as release wants them.
func (t *turns) take(ctx context.Context, numbers []int) ([]int, error) {
	slices.Sort(numbers)
	numbers = slices.Compact(numbers)
	for i, n := range numbers {
		select {
		case t.locks[n] <- struct{}{}:
		case <-ctx.Done():
			t.release(numbers[:i])
			return nil, unavailable(ctx.Err())
		}
	}
	return numbers, nil
}

func (t *turns) release(numbers []int) {
	for _, n := range numbers {
		<-t.locks[n]
	}
}
