package redis

import (
	"context"
	"sync"
	"testing"
	"time"

	"carillon/server/saver"
)

// TestRun_OneNodeAtATimeSweepsAndAnyFinishes lets two nodes run; the one that sweeps goes, and the other takes over.
func TestRun_OneNodeAtATimeSweepsAndAnyFinishes(t *testing.T) {
	f := newFixture(t, pool.Standalone(t), 2, Config{})
	one, two := f.nodes[0].store, f.nodes[1].store
	ctx := t.Context()
	for _, c := range []struct {
		by   *Store
		me   string
		want bool
	}{{one, "one", true}, {two, "two", false}, {one, "one", true}, {two, "two", false}} {
		if got, err := c.by.holdSweep(ctx, c.me); got != c.want || err != nil {
			t.Fatalf("node %s sweeps: %v, %v", c.me, got, err)
		}
	}
	f.must(t, f.raw.Del(ctx, sweepTag.Key("l", ""))) // its lease ran out
	if got, err := two.holdSweep(ctx, "two"); !got || err != nil {
		t.Fatalf("nobody sweeps: %v, %v", got, err)
	}
	f.must(t, f.raw.Del(ctx, sweepTag.Key("l", "")))

	// A publication that is not finished, and a message that expired.
	c := faultCases[1]
	short := faultCases[0].publication(5, "")
	short.TTL = time.Second
	if r := one.Publish(ctx, []*saver.Publication{short})[0]; r.Err != nil {
		t.Fatal(r.Err)
	}
	d := &trouble{database: two.db, at: 4, lost: true, died: true}
	two.db = d
	if r := two.Publish(ctx, []*saver.Publication{c.publication(7, "")})[0]; r.Err != nil {
		t.Fatal(r.Err)
	}
	two.db = d.database
	if got := c.holds(t, one)[1]; got != "" {
		t.Fatalf("bob's slot holds %q already", got)
	}
	f.nodes[0].store.clock, f.nodes[1].store.clock = f.clock, f.clock
	running, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for _, n := range f.nodes {
		wg.Go(func() {
			if err := n.store.Run(running); err != nil {
				t.Error(err)
			}
		})
	}
	length := func() int64 {
		return f.must(t, f.raw.LLen(ctx, ownKeys(refOf("alice")).entries())).(int64)
	}
	for f.pending(t) > 0 || length() > 1 {
		if t.Context().Err() != nil {
			t.Fatal("it is never finished")
		}
		f.clock.Advance(leaseFor)
	}
	stop()
	wg.Wait()
	c.wantEach(t, one, "7 ", false)
}
