package admission

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A node that is shut for its memory and takes nobody allocates nothing, so no collection comes by itself.
func TestGate_ShutForMemoryItCollectsAndOpens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var found, reachable, takes, collections atomic.Int64
		found.Store(200)
		reachable.Store(200)
		takes.Store(int64(100 * time.Millisecond))
		g := newGate(t, Config{HeapBytes: 100, Live: found.Load, Collect: func() {
			time.Sleep(time.Duration(takes.Load()))
			collections.Add(1)
			found.Store(reachable.Load())
		}})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- g.Run(ctx) }()

		time.Sleep(time.Hour)
		if n := collections.Load(); n != 0 {
			t.Errorf("%d collections while nobody asked, want none", n)
		}
		ask := func(d time.Duration) { // ten times a second
			for began := time.Now(); time.Since(began) < d; time.Sleep(100 * time.Millisecond) {
				wantCode(t, refusal(t, g, alice), "overloaded")
			}
		}
		ask(time.Minute)
		if n, most := collections.Load(), int64(time.Minute/collectEvery); n > most || n < most-2 {
			t.Errorf("%d collections in a minute of asking, want one each %v", n, collectEvery)
		}

		// A large heap takes its time, and is looked through more seldom.
		const slow = 2 * time.Second
		takes.Store(int64(slow))
		collections.Store(0)
		ask(5 * time.Minute)
		if n, most := collections.Load(), int64(5*time.Minute/((collectRest+1)*slow)+2); n > most || n < most-3 {
			t.Errorf("%d collections of %v in five minutes, want a twentieth of the time", n, slow)
		}

		reachable.Store(100) // its sessions have gone
		began := time.Now()
		for refusal(t, g, alice) != nil {
			if time.Since(began) > time.Minute {
				t.Fatal("the gate is shut although the memory is there again")
			}
			time.Sleep(100 * time.Millisecond)
		}
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
}
