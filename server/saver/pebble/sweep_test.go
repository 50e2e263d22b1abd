package pebble

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"carillon/server/embedded"
	"carillon/server/push"
	"carillon/server/saver"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// keys returns how many keys the store holds.
func (f *fixture) keys(t *testing.T) (n int) {
	t.Helper()
	it, err := f.db.ScanPrefix([]byte{byte(embedded.SpaceSaver)})
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		n++
	}
	if err := it.Err(); err != nil {
		t.Fatal(err)
	}
	return n
}

// fillAll puts something of every kind into the store.
func fillAll(t *testing.T, f *fixture) {
	t.Helper()
	ctx := context.Background()
	for i := range 200 {
		p := to(1+i, fmt.Sprint("key", i), push.UserID(fmt.Sprint("user", i%20)))
		switch i % 4 {
		case 1:
			p.Own, p.Everyone = nil, true
		case 2:
			p.Own = append(p.Own, saver.Target{User: "bob"})
		case 3:
			p.Message.CollapseKey = fmt.Sprint("c", i)
		}
		if r := publish1(f.store, p); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	for i := range 20 {
		o := saver.Open{UserRef: ref(push.UserID(fmt.Sprint("user", i))), Facts: push.DeviceFacts{Device: "phone"}}
		if _, err := f.store.Open(ctx, o); err != nil {
			t.Fatal(err)
		}
		r := saver.Recall{Product: "shop", Shards: 8, ID: push.MsgID(1 + i)}
		if _, err := f.store.Recall(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.store.Changes(ctx, "room", []saver.ChangeQuery{{ShardRef: ref("bob").Shard()}}); err != nil {
		t.Fatal(err)
	}
}

func TestSweep_InTheEndNothingIsLeft(t *testing.T) {
	f := newFixture(t, vfs.NewMem(), "data")
	fillAll(t, f)
	for range 70 {
		f.clock.Advance(24 * time.Hour)
		if err := f.store.Sweep(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if n := f.keys(t); n != 0 {
		t.Errorf("%d keys are left", n)
	}
	for i := range f.store.stripes {
		if st := &f.store.stripes[i]; len(st.logs) > 0 || len(st.users) > 0 || len(st.commons) > 0 {
			t.Errorf("stripe %d still has %d logs, %d users, %d common slots", i, len(st.logs), len(st.users), len(st.commons))
		}
	}
	if k, m := len(f.store.keyGens.from(0)), len(f.store.msgGens.from(0)); k > 0 || m > 0 {
		t.Errorf("%d and %d hours are left", k, m)
	}
}

func TestSweep_StopsWithItsContext(t *testing.T) {
	f := newFixture(t, vfs.NewMem(), "data")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := f.store.Sweep(ctx); err == nil {
		t.Error("swept without a context")
	}
}

// TestRun_SweepsAStepATick moves the clock a second at a time until everything expired is gone.
func TestRun_SweepsAStepATick(t *testing.T) {
	f := newFixture(t, vfs.NewMem(), "data")
	f.store.sweepUsers = 10
	fillAll(t, f)
	before := f.keys(t)
	f.clock.Advance(4 * time.Hour) // past the messages, their keys, and the hour in which their records go
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := f.store.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	waitFor(t, func() bool {
		f.clock.Advance(time.Second)
		return f.keys(t) < before/4
	})
	cancel()
	f.clock.Advance(time.Second)
	wg.Wait()
	for i := range 20 {
		u := push.UserID(fmt.Sprint("user", i))
		if st, err := f.store.state(userPrefix(nil, ref(u).Shard(), u)); err != nil || st.Epoch == 0 {
			t.Errorf("the state of %s's slot is gone: %v", u, err)
		}
	}
}

func TestGenerations_AreFoundAgain(t *testing.T) {
	f := newFixture(t, vfs.NewMem(), "data")
	for i := range 5 {
		if r := publish1(f.store, to(1+i, fmt.Sprint("key", i), "alice")); r.Err != nil {
			t.Fatal(r.Err)
		}
		f.clock.Advance(20 * time.Minute)
	}
	hours := func() (out []hour) {
		for _, g := range append(f.store.keyGens.from(0), f.store.msgGens.from(0)...) {
			out = append(out, g.hour)
		}
		return out
	}
	want := fmt.Sprint(hours())
	f.close()
	f.open(t)
	if got := fmt.Sprint(hours()); got != want {
		t.Errorf("hours %s after opening, want %s", got, want)
	}
	for _, g := range f.store.keyGens.from(0) {
		if g.filter != nil {
			t.Error("an hour that was there before has a filter that knows nothing of it")
		}
	}
}

func TestRun_FlushesAcknowledgementsOfAQuietNode(t *testing.T) {
	mem := vfs.NewCrashableMem()
	f := newFixture(t, mem, "data")
	ctx, cancel := context.WithCancel(context.Background())
	open := saver.Open{
		UserRef: ref("alice"), Facts: push.DeviceFacts{Device: "phone"}, FirstVisit: push.FirstVisit{First: push.StartBeginning},
	}
	if _, err := f.store.Open(ctx, open); err != nil {
		t.Fatal(err)
	}
	at := publish1(f.store, to(1, "", "alice")).Own[0].Place
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := f.store.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	waitFor(t, func() bool { // until the first pass is over
		f.clock.Advance(time.Second)
		return f.store.Sweep(ctx) == nil
	})
	if _, err := f.store.Ack(ctx, []saver.Ack{{UserRef: ref("alice"), Device: "phone", Places: push.Cursor{push.Own: at}}}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		f.clock.Advance(time.Second)
		g := newFixture(t, mem.CrashClone(vfs.CrashCloneCfg{}), "data")
		defer g.close()
		u, err := g.store.User(ctx, ref("alice"))
		if err != nil || len(u.Devices) != 1 {
			t.Fatal(u, err)
		}
		return u.Devices[0].Cursors[push.Own].Pos == at.Pos
	})
	cancel()
	f.clock.Advance(time.Second)
	wg.Wait()
}
