package redis

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
)

// left reports how many turns are taken.
func (t *turns) left() (n int) {
	for i := range t.stripes {
		n += len(t.stripes[i].taken)
	}
	return n
}

// TestTurns_OneWriterOfASlotAtATime: many take several slots each, in whatever order they name them, and nobody meets another in one.
func TestTurns_OneWriterOfASlotAtATime(t *testing.T) {
	turns := newTurns()
	const slots, writers, times = 7, 8, 500
	inside := make([]int, slots) // written under the slot's turn alone, as the race detector sees
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range times {
				a, b := (w+i)%slots, (w*3+i*5)%slots
				held, err := turns.take(t.Context(), []uint64{uint64(a), uint64(b), uint64(a)})
				if err != nil {
					t.Error(err)
					return
				}
				inside[a]++
				if a != b {
					inside[b]++
				}
				turns.release(held)
			}
		})
	}
	wg.Wait()
	got, want := 0, 0
	for _, n := range inside {
		got += n
	}
	for w := range writers {
		for i := range times {
			if want++; (w+i)%slots != (w*3+i*5)%slots {
				want++
			}
		}
	}
	if got != want || turns.left() != 0 {
		t.Errorf("%d visits, want %d; %d turns are left", got, want, turns.left())
	}
}

// TestTurns_WhoGivesUpKeepsNobodyWaiting: one whose context ends waits no longer, holds nothing, and the next in line has its turn.
func TestTurns_WhoGivesUpKeepsNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns()
		first, err := turns.take(t.Context(), []uint64{5})
		if err != nil {
			t.Fatal(err)
		}
		ctx, give := context.WithCancel(t.Context())
		gaveUp := make(chan error, 1)
		go func() {
			_, err := turns.take(ctx, []uint64{3, 5}) // it has 3, and waits for 5
			gaveUp <- err
		}()
		synctest.Wait()
		order := make(chan int, 2)
		for n := range 2 {
			go func() {
				held, err := turns.take(t.Context(), []uint64{5})
				if err != nil {
					t.Error(err)
				}
				order <- n
				turns.release(held)
			}()
			synctest.Wait()
		}
		give()
		synctest.Wait()
		if err := <-gaveUp; err == nil {
			t.Error("it did not give up")
		}
		if held, err := turns.take(t.Context(), []uint64{3}); err != nil {
			t.Error(err)
		} else {
			turns.release(held)
		}
		turns.release(first)
		synctest.Wait()
		if a, b := <-order, <-order; a != 0 || b != 1 {
			t.Errorf("those who waited came in the order %d, %d", a, b)
		}
		if n := turns.left(); n != 0 {
			t.Errorf("%d turns are left", n)
		}
	})
}

// TestTurns_SlotsThatDifferDoNotWait: whoever holds a thousand slots keeps nobody from others.
func TestTurns_SlotsThatDifferDoNotWait(t *testing.T) {
	turns := newTurns()
	var many []uint64
	for n := range uint64(1000) {
		many = append(many, n)
	}
	if _, err := turns.take(t.Context(), many); err != nil {
		t.Fatal(err)
	}
	for n := range uint64(1000) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := turns.take(ctx, []uint64{1000 + n}); err != nil {
			t.Fatalf("slot %d: %v", 1000+n, err)
		}
	}
}
