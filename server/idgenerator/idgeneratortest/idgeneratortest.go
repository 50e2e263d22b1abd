// Package idgeneratortest holds what every implementation of [idgenerator.Blocks] must do, as tests. An implementation
// joins in a few lines:
//
//	func TestConformance(t *testing.T) { idgeneratortest.Run(t, newSubject) }
package idgeneratortest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"carillon/server/clock/clocktest"
	"carillon/server/idgenerator"
	"carillon/server/push"
)

// Subject is an implementation under test.
type Subject struct {
	Blocks idgenerator.Blocks
	Clock  *clocktest.Clock // given to Blocks
	// Crash ends the process without a goodbye, with everything lost that was not flushed, and starts another one.
	Crash func(t *testing.T) idgenerator.Blocks
	// Mark notes what is reserved; the function that it returns starts another process on that, with all that came
	// later lost. nil: it cannot.
	Mark func(t *testing.T) (fallBack func(t *testing.T) idgenerator.Blocks)
}

// Run runs the suite. newSubject returns an empty store; it registers what closes it with t.Cleanup.
func Run(t *testing.T, newSubject func(t *testing.T) *Subject) {
	t.Run("BlocksDoNotOverlap", func(t *testing.T) { overlap(t, newSubject(t)) })
	t.Run("BlocksBeginAtTheClock", func(t *testing.T) { beginAtClock(t, newSubject(t)) })
	t.Run("NewLineageSkipsAMinute", func(t *testing.T) { skip(t, newSubject(t)) })
	t.Run("EmptyBlocksAreRefused", func(t *testing.T) { refuse(t, newSubject(t)) })
	t.Run("ConcurrentReservations", func(t *testing.T) { concurrent(t, newSubject(t)) })
	t.Run("NoIDTwiceOverCrashesAndClocks", func(t *testing.T) { property(t, newSubject, false) })
	if newSubject(t).Mark != nil {
		t.Run("NoIDTwiceOverRollbacks", func(t *testing.T) { property(t, newSubject, true) })
	}
}

func reserve(t *testing.T, b idgenerator.Blocks, size int64) push.MsgID {
	t.Helper()
	first, err := b.Reserve(context.Background(), size)
	if err != nil {
		t.Fatal(err)
	}
	return first
}

func overlap(t *testing.T, s *Subject) {
	end := push.MsgID(1)
	for _, size := range []int64{1, 1, 100, 7, 1 << 20, 1} {
		first := reserve(t, s.Blocks, size)
		if first < end {
			t.Fatalf("a block begins at %d, below %d", first, end)
		}
		end = first + push.MsgID(size)
		s.Clock.Advance(-time.Minute)
	}
}

func beginAtClock(t *testing.T, s *Subject) {
	reserve(t, s.Blocks, 10) // the lineage's first is further on
	s.Clock.Advance(time.Hour)
	want := push.MsgID(s.Clock.Now().UnixMilli()) << idgenerator.TimeShift
	if got := reserve(t, s.Blocks, 10); got != want {
		t.Errorf("got %d, want the clock's %d", got, want)
	}
	s.Clock.Advance(-2 * time.Hour)
	if got := reserve(t, s.Blocks, 10); got != want+10 {
		t.Errorf("with the clock set back: got %d, want %d", got, want+10)
	}
}

func skip(t *testing.T, s *Subject) {
	least := push.MsgID(s.Clock.Now().UnixMilli()) << idgenerator.TimeShift
	first := reserve(t, s.Blocks, 10)
	if first != least+idgenerator.LineageSkip {
		t.Errorf("the first block begins at %d, want a minute above %d", first, least)
	}
	if got := reserve(t, s.Blocks, 10); got != first+10 {
		t.Errorf("the second begins at %d, want %d", got, first+10)
	}
	if got := reserve(t, s.Crash(t), 10); got != first+20 {
		t.Errorf("the first after a restart begins at %d, want %d: the minute is above the clock, not above the last", got, first+20)
	}
	s.Clock.Advance(time.Hour)
	least = push.MsgID(s.Clock.Now().UnixMilli()) << idgenerator.TimeShift
	if got := reserve(t, s.Crash(t), 10); got != least+idgenerator.LineageSkip {
		t.Errorf("the first after an hour and a restart begins at %d, want a minute above %d", got, least)
	}
}

func refuse(t *testing.T, s *Subject) {
	for _, size := range []int64{0, -1} {
		var e *push.Error
		if _, err := s.Blocks.Reserve(context.Background(), size); !errors.As(err, &e) {
			t.Errorf("a block of %d ids: %v", size, err)
		}
	}
}

func concurrent(t *testing.T, s *Subject) {
	const callers, rounds, size = 8, 20, 5
	got := make([][]push.MsgID, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for range rounds {
				first, err := s.Blocks.Reserve(context.Background(), size)
				if err != nil {
					t.Error(err)
					return
				}
				got[i] = append(got[i], first)
			}
		})
	}
	wg.Wait()
	seen := make(map[push.MsgID]bool)
	for _, firsts := range got {
		for _, first := range firsts {
			for id := first; id < first+size; id++ {
				if seen[id] {
					t.Fatalf("id %d was reserved twice", id)
				}
				seen[id] = true
			}
		}
	}
}

// property lets generators live short lives over crashes, a clock that wanders by up to an hour, and, if asked for,
// stores that fall back, and looks for an id given twice. Where stores fall back the clock only goes on: see the
// package's invariants.
func property(t *testing.T, newSubject func(t *testing.T) *Subject, rollbacks bool) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 7))
		s := newSubject(t)
		seen := make(map[push.MsgID]bool)
		blocks := s.Blocks
		g := newGenerator(t, blocks, r)
		var fallBack func(t *testing.T) idgenerator.Blocks
		for range 60 {
			switch n := r.IntN(10); {
			case n < 5:
				for range r.IntN(200) {
					id, err := g.Next(context.Background())
					if err != nil {
						t.Fatal(err)
					}
					if seen[id] {
						t.Fatalf("seed %d: id %d was given twice", seed, id)
					}
					seen[id] = true
				}
			case n < 6:
				blocks = s.Crash(t)
				g = newGenerator(t, blocks, r)
			case n < 7 && rollbacks:
				fallBack = s.Mark(t)
			case n < 8 && fallBack != nil:
				s.Clock.Advance(time.Second) // setting a store back takes its time
				blocks = fallBack(t)
				g = newGenerator(t, blocks, r)
				fallBack = nil
			case rollbacks:
				s.Clock.Advance(time.Duration(r.Int64N(int64(time.Minute))))
			default:
				s.Clock.Advance(time.Duration(r.Int64N(int64(2*time.Hour))) - time.Hour)
			}
		}
		if len(seen) == 0 {
			t.Fatalf("seed %d gave no id", seed)
		}
	}
}

func newGenerator(t *testing.T, b idgenerator.Blocks, r *rand.Rand) *idgenerator.Generator {
	t.Helper()
	g, err := idgenerator.New(b, idgenerator.Config{Block: 1 + r.Int64N(100)})
	if err != nil {
		t.Fatal(err)
	}
	return g
}
