package bench

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestWindow_BoundsWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindow(3)
		for range 3 {
			if err := w.acquire(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
		}
		got := make(chan error, 1)
		go func() { got <- w.acquire(t.Context(), 2) }()
		synctest.Wait()
		w.release(1)
		synctest.Wait()
		select {
		case <-got:
			t.Fatal("two found room where there was one")
		default:
		}
		w.release(1)
		if err := <-got; err != nil {
			t.Error(err)
		}
		go w.release(3)
		if arrived, err := w.drain(t.Context()); !arrived || err != nil {
			t.Errorf("drained: %v, %v", arrived, err)
		}
		if w.stalls() != 0 {
			t.Error("nothing stalled")
		}
	})
}

func TestWindow_WhatNeverArrivesIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindow(1)
		began := time.Now()
		for range 2 {
			if err := w.acquire(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
		}
		if got := time.Since(began); got != stallPatience || w.stalls() != 1 {
			t.Errorf("waited %v, gave up %d times", got, w.stalls())
		}
		if arrived, err := w.drain(t.Context()); arrived || err != nil {
			t.Errorf("drained: %v, %v", arrived, err)
		}
	})
}

func TestWindow_EndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindow(1)
		ctx, cancel := context.WithCancel(t.Context())
		if err := w.acquire(ctx, 1); err != nil {
			t.Fatal(err)
		}
		got := make(chan error, 1)
		go func() { got <- w.acquire(ctx, 1) }()
		synctest.Wait()
		cancel()
		if err := <-got; err == nil {
			t.Error("it found room")
		}
	})
}
