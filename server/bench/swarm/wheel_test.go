package swarm

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestWheel_NothingIsEarlyAndNothingLaterThanTwoTicks(t *testing.T) {
	const tick = 10 * time.Millisecond
	const turn = time.Second
	rnd := rand.New(rand.NewPCG(1, 2))
	now := int64(rnd.Uint64N(1 << 40))
	w := newWheel(now, tick, turn)
	due := make(map[int32]int64)
	next := int32(0)
	put := func(in time.Duration) {
		due[next] = now + int64(in)
		w.add(entry{fd: next}, due[next])
		next++
	}
	for range 1000 {
		put(time.Duration(rnd.Int64N(int64(turn))))
	}
	again := 500
	for len(due) > 0 {
		now += rnd.Int64N(int64(3 * tick / 2))
		w.advance(now, func(e entry) {
			at, ok := due[e.fd]
			if !ok {
				t.Fatalf("%d came twice", e.fd)
			}
			if late := now - at; late < 0 || late > 3*int64(tick) {
				t.Fatalf("%d came %v late", e.fd, time.Duration(late))
			}
			delete(due, e.fd)
			if again > 0 {
				again--
				put(turn - time.Nanosecond)
			}
		})
		if _, waits := w.next(); waits != (len(due) > 0) {
			t.Fatalf("something waits: %v, with %d in it", waits, len(due))
		}
	}
}

func TestWheel_ALongPauseLosesNothing(t *testing.T) {
	w := newWheel(0, time.Second, time.Minute)
	for i := range int32(60) {
		w.add(entry{fd: i}, int64(i)*int64(time.Second))
	}
	got := 0
	w.advance(int64(time.Hour), func(entry) { got++ })
	if got != 60 {
		t.Errorf("%d came, want 60", got)
	}
}

func TestWheel_WhatIsDueBeyondTheTurnComesAtItsEnd(t *testing.T) {
	w := newWheel(0, time.Second, 10*time.Second)
	w.add(entry{fd: 1}, int64(time.Hour))
	got := false
	w.advance(int64(13*time.Second), func(entry) { got = true })
	if !got {
		t.Error("it was lost")
	}
}
