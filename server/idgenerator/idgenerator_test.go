package idgenerator_test

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"testing"

	"carillon/server/idgenerator"
	"carillon/server/idgenerator/memory"
	"carillon/server/push"
)

// scripted gives the blocks that a test wants.
type scripted struct {
	reserve func(ctx context.Context, size int64) (push.MsgID, error)
	calls   atomic.Int64
}

func (s *scripted) Reserve(ctx context.Context, size int64) (push.MsgID, error) {
	s.calls.Add(1)
	return s.reserve(ctx, size)
}

func newGenerator(t testing.TB, b idgenerator.Blocks, block int64) *idgenerator.Generator {
	t.Helper()
	g, err := idgenerator.New(b, idgenerator.Config{Block: block})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestGenerator_ConcurrentIDsAreUnique(t *testing.T) {
	for _, block := range []int64{1, 2, 3, 64} {
		g := newGenerator(t, memory.New(memory.Config{}), block)
		const callers, each = 8, 500
		var wg sync.WaitGroup
		var seen sync.Map
		for range callers {
			wg.Go(func() {
				for range each {
					id, err := g.Next(context.Background())
					if err != nil {
						t.Error(err)
						return
					}
					if _, twice := seen.LoadOrStore(id, true); twice {
						t.Errorf("block %d: id %d was given twice", block, id)
					}
				}
			})
		}
		wg.Wait()
	}
}

func TestGenerator_ReservesTheNextBlockBeforeThisOneEnds(t *testing.T) {
	next := push.MsgID(1)
	s := &scripted{reserve: func(_ context.Context, size int64) (push.MsgID, error) {
		first := next
		next += push.MsgID(size)
		return first, nil
	}}
	g := newGenerator(t, s, 10)
	for i := 1; i <= 25; i++ {
		id, err := g.Next(context.Background())
		if err != nil || id != push.MsgID(i) {
			t.Fatalf("got %d, %v, want %d", id, err, i)
		}
		want := int64(1 + (i+4)/10) // at the 6th id of each block the next one is there
		if got := s.calls.Load(); got != want {
			t.Errorf("after id %d: %d reservations, want %d", i, got, want)
		}
	}
}

func TestGenerator_FailureIsToldOnlyWhenIDsAreOut(t *testing.T) {
	fail := errors.New("no disk")
	next, broken := push.MsgID(1), false
	s := &scripted{reserve: func(_ context.Context, size int64) (push.MsgID, error) {
		if broken {
			return 0, fail
		}
		first := next
		next += push.MsgID(size)
		return first, nil
	}}
	g := newGenerator(t, s, 4)
	for i := range 8 {
		id, err := g.Next(context.Background())
		switch {
		case i < 4 && (err != nil || id != push.MsgID(i+1)):
			t.Fatalf("id %d: got %d, %v", i, id, err)
		case i >= 4 && !errors.Is(err, fail):
			t.Fatalf("id %d: got %d, %v, want the failure", i, id, err)
		}
		broken = true
	}
	broken = false
	if id, err := g.Next(context.Background()); err != nil || id != 5 {
		t.Errorf("after the failure: got %d, %v, want 5", id, err)
	}
}

func TestGenerator_RefusesBlocksThatComeAgain(t *testing.T) {
	for _, first := range []push.MsgID{0, -5, 1, 99, math.MaxInt64 - 1} {
		given := false
		s := &scripted{reserve: func(context.Context, int64) (push.MsgID, error) {
			if !given {
				given = true
				return 90, nil
			}
			return first, nil
		}}
		g := newGenerator(t, s, 10)
		var err error
		for n := 0; err == nil; n++ {
			if n > 10 {
				t.Fatalf("a block at %d was taken after 90 to 99", first)
			}
			_, err = g.Next(context.Background())
		}
		var e *push.Error
		if !errors.As(err, &e) || e.Code != "block_repeated" {
			t.Errorf("first %d: got %v", first, err)
		}
	}
}

func TestGenerator_ContextBoundsTheWait(t *testing.T) {
	enter, leave := make(chan struct{}), make(chan struct{})
	s := &scripted{reserve: func(context.Context, int64) (push.MsgID, error) {
		close(enter)
		<-leave
		return 1, nil
	}}
	g := newGenerator(t, s, 10)
	var wg sync.WaitGroup
	wg.Go(func() {
		if id, err := g.Next(context.Background()); err != nil || id != 1 {
			t.Errorf("got %d, %v, want 1", id, err)
		}
	})
	<-enter
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := g.Next(ctx); push.KindOf(err) != push.KindUnavailable {
		t.Errorf("got %v, want KindUnavailable", err)
	}
	close(leave)
	wg.Wait()
}

func TestNew_RefusesBadConfigs(t *testing.T) {
	for _, block := range []int64{-1, math.MinInt64} {
		if _, err := idgenerator.New(memory.New(memory.Config{}), idgenerator.Config{Block: block}); err == nil {
			t.Errorf("a block of %d was taken", block)
		}
	}
	if _, err := idgenerator.New(nil, idgenerator.Config{}); err == nil {
		t.Error("no blocks were taken")
	}
}

func TestFirst_EndsBeforeItOverflows(t *testing.T) {
	cases := []struct {
		next push.MsgID
		size int64
		now  push.MilliTime
		ok   bool
	}{
		{0, 1, 0, true}, {0, 1, -1 << 40, true}, {math.MaxInt64 / 2, 1, 0, true}, {math.MaxInt64/2 + 1, 1, 0, false},
		{0, math.MaxInt64, 0, false}, {0, 1, math.MaxInt64 >> 13, true}, {0, 1, math.MaxInt64>>13 + 1, false}, {0, 0, 0, false},
	}
	for _, c := range cases {
		first, err := idgenerator.First(c.next, c.size, c.now, true)
		if (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
		if err == nil && (first <= 0 || first < c.next || int64(first) > math.MaxInt64-c.size) {
			t.Errorf("%+v: first %d", c, first)
		}
	}
}

func TestGenerator_NextAllocatesNothing(t *testing.T) {
	g := newGenerator(t, memory.New(memory.Config{}), 1<<20)
	ctx := context.Background()
	if _, err := g.Next(ctx); err != nil {
		t.Fatal(err)
	}
	if got := testing.AllocsPerRun(1000, func() { _, _ = g.Next(ctx) }); got != 0 {
		t.Errorf("%v allocations an id", got)
	}
}

func BenchmarkNext(b *testing.B) {
	g := newGenerator(b, memory.New(memory.Config{}), 0)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := g.Next(context.Background()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
