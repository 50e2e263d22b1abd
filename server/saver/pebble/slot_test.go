package pebble

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/saver/savertest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestSlot_CacheAgreesWithTheDatabase does random work on one long slot, whose oldest entries are remembered in memory,
// and compares what is remembered with what is stored.
func TestSlot_CacheAgreesWithTheDatabase(t *testing.T) {
	for seed := range uint64(25) {
		f := newFixture(t, vfs.NewMem(), "data")
		w := &slotWorld{t: t, f: f, r: rand.New(rand.NewPCG(seed, 5))}
		w.limits.OwnMessages = 20 + w.r.IntN(150)
		w.limits = w.limits.WithDefaults()
		for i := range 120 {
			w.step()
			w.compare()
			if t.Failed() {
				t.Fatalf("seed %d, step %d", seed, i)
			}
		}
	}
}

type slotWorld struct {
	t      *testing.T
	f      *fixture
	r      *rand.Rand
	limits push.Limits
	ids    int
	places []push.Place
}

func (w *slotWorld) publication() *saver.Publication {
	w.ids++
	p := to(w.ids, "", "alice")
	p.Limits = w.limits
	p.TTL = []time.Duration{time.Second, time.Minute, time.Hour}[w.r.IntN(3)]
	if w.r.IntN(3) == 0 {
		p.Message.CollapseKey = fmt.Sprint("c", w.r.IntN(6))
	}
	return p
}

func (w *slotWorld) step() {
	w.t.Helper()
	ctx := context.Background()
	switch n := w.r.IntN(20); {
	case n < 11:
		ps := make([]*saver.Publication, 1+w.r.IntN(12))
		for i := range ps {
			ps[i] = w.publication()
		}
		for _, r := range w.f.store.Publish(ctx, ps) {
			if r.Err != nil {
				w.t.Fatal(r.Err)
			}
			w.places = append(w.places, r.Own[0].Place)
		}
	case n < 13 && w.ids > 0:
		id := push.MsgID(1 + w.r.IntN(w.ids))
		_, err := w.f.store.Recall(ctx, saver.Recall{Product: "shop", Shards: savertest.Shards, Limits: w.limits, ID: id})
		if err != nil && push.KindOf(err) != push.KindNotFound {
			w.t.Fatal(err)
		}
	case n < 14:
		_, err := w.f.store.Open(ctx, saver.Open{
			UserRef: ref("alice"), Facts: push.DeviceFacts{Device: push.DeviceID(fmt.Sprint("d", w.r.IntN(2)))},
			Limits: w.limits, FirstVisit: push.FirstVisit{Later: push.StartBeginning},
		})
		if err != nil {
			w.t.Fatal(err)
		}
	case n < 16 && len(w.places) > 0:
		at := w.places[max(0, len(w.places)-1-w.r.IntN(100))]
		for d := range 2 {
			a := saver.Ack{UserRef: ref("alice"), Device: push.DeviceID(fmt.Sprint("d", d)), Places: push.Cursor{push.Own: at}}
			if _, err := w.f.store.Ack(ctx, []saver.Ack{a}); err != nil {
				w.t.Fatal(err)
			}
		}
	case n < 17:
		if err := w.f.store.Sweep(ctx); err != nil {
			w.t.Fatal(err)
		}
	case n < 18:
		w.f.store.dropAllCached()
	default:
		w.f.clock.Advance(time.Duration(w.r.IntN(int(2 * time.Minute))))
	}
}

// compare looks at the slot through the cache and through a state that was just read.
func (w *slotWorld) compare() {
	w.t.Helper()
	s := w.f.store
	tx := s.begin([]int{s.stripeOf(ref("alice").Shard())})
	defer tx.leave()
	u, err := tx.user(ref("alice").Shard(), "alice")
	if err != nil {
		w.t.Fatal(err)
	}
	if err := u.own.st.applied(); err != nil {
		w.t.Fatal(err)
	}
	fresh := &slot{kind: push.Own, st: u.own.st, prefix: u.own.prefix}
	if err := fresh.load(tx); err != nil {
		w.t.Fatal(err)
	}
	var cerr, ferr error
	cached, stored := slices.Collect(u.own.kept(tx, &cerr)), slices.Collect(fresh.kept(tx, &ferr))
	if cerr != nil || ferr != nil {
		w.t.Fatal(cerr, ferr)
	}
	if !slices.Equal(cached, stored) {
		w.t.Errorf("remembered %d entries, stored %d:\n%v\n%v", len(cached), len(stored), cached, stored)
	}
	bytes := 0
	for _, e := range stored {
		bytes += e.Size
	}
	if got := u.own.Slot; got.Count != len(stored) || got.Bytes != bytes || got.Head != fresh.Head || got.Freed != fresh.Freed {
		w.t.Errorf("state %+v does not fit %d entries of %d bytes and %+v", got, len(stored), bytes, fresh.Slot)
	}
	if len(u.own.front) > frontMost || u.own.batch != nil {
		w.t.Errorf("%d entries in front, and of a batch that is over %+v", len(u.own.front), u.own.batch)
	}
}

func TestStripe_CacheIsBounded(t *testing.T) {
	f := newFixture(t, vfs.NewMem(), "data")
	f.store.cacheUsers = 4
	for i := range 500 {
		u := push.UserID(fmt.Sprint("user", i))
		if r := publish1(f.store, to(1+i, "", u)); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	for i := range f.store.stripes {
		st := &f.store.stripes[i]
		if len(st.users) > 4 || len(st.commons) > 4 {
			t.Errorf("stripe %d keeps %d users and %d common slots", i, len(st.users), len(st.commons))
		}
	}
}

// The shards of one product fall on a part of the stripes, and may have what the others do not use.
func TestStripe_OneProductMayHaveTheWholeCache(t *testing.T) {
	f := newFixture(t, vfs.NewMem(), "data")
	const most = 2 * stripes
	f.store.cacheUsers = most
	id := 0
	come := func(p push.ProductID, users int) (kept int) {
		t.Helper()
		for i := range users {
			id++
			pub := to(id, "", push.UserID(fmt.Sprint("user", i)))
			pub.Product = p
			if r := publish1(f.store, pub); r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		for i := range f.store.stripes {
			kept += len(f.store.stripes[i].users)
		}
		return kept
	}
	if kept := come("shop", most); kept != most {
		t.Errorf("of %d users of one product %d are kept", most, kept)
	}
	if kept := come("shop", 3*most); kept > most || kept < most/2 {
		t.Errorf("of more users than there is room for %d are kept, and there is room for %d", kept, most)
	}
	for i := range 20 {
		if kept := come(push.ProductID(fmt.Sprint("shop", i)), most); kept > 2*most {
			t.Errorf("with %d products %d users are kept, more than twice the %d", i+2, kept, most)
		}
	}
}

func TestPublish_CollapsesWithinOneCall(t *testing.T) {
	f := newFixture(t, vfs.NewMem(), "data")
	for round := range 3 {
		var ps []*saver.Publication
		for i := range 6 {
			p := to(1+10*round+i, "", "alice")
			p.Message.CollapseKey = fmt.Sprint("c", i%2)
			ps = append(ps, p)
		}
		for _, r := range f.store.Publish(context.Background(), ps) {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		tails, err := f.store.Read(context.Background(), []saver.Read{{
			ShardRef: ref("alice").Shard(), User: "alice", MaxEntries: 99, MaxBytes: 1 << 20,
		}})
		if err != nil {
			t.Fatal(err)
		}
		var got []push.MsgID
		for _, e := range tails[0].Entries {
			got = append(got, e.ID)
		}
		if want := []push.MsgID{push.MsgID(10*round + 5), push.MsgID(10*round + 6)}; !slices.Equal(got, want) {
			t.Errorf("round %d: messages %v are kept, want %v", round, got, want)
		}
	}
}

// Many devices of one user come and acknowledge at once: with more than devicesKept of them, what is known of the user is
// given up at the end of each batch, which has to happen under the stripe's lock. The race detector watches.
func TestStore_DevicesOfOneUserAtOnce(t *testing.T) {
	f := newFixture(t, vfs.NewMem(), "data")
	ctx := context.Background()
	var wg sync.WaitGroup
	for i := range 2 * devicesKept {
		wg.Go(func() {
			d := push.DeviceID(fmt.Sprint("device", i))
			for range 50 {
				o, err := f.store.Open(ctx, saver.Open{UserRef: ref("alice"), Facts: push.DeviceFacts{Device: d}})
				if err != nil {
					t.Error(err)
					return
				}
				a := saver.Ack{UserRef: ref("alice"), Device: d, Seen: true, Places: push.Cursor{o.Starts[0].At, o.Starts[1].At}}
				if _, err := f.store.Ack(ctx, []saver.Ack{a}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	u, err := f.store.User(ctx, ref("alice"))
	if err != nil || len(u.Devices) != 2*devicesKept {
		t.Errorf("%d devices are known, %v, want %d", len(u.Devices), err, 2*devicesKept)
	}
}

// A client that comes back after a moment costs no write, one that comes back later does.
func TestOpen_WritesOnlyWhatIsNew(t *testing.T) {
	f := newFixture(t, vfs.NewMem(), "data")
	ctx := context.Background()
	seen := func(after time.Duration, class string) push.MilliTime {
		t.Helper()
		f.clock.Advance(after)
		o := saver.Open{UserRef: ref("alice"), Facts: push.DeviceFacts{Device: "phone", Class: class}}
		if _, err := f.store.Open(ctx, o); err != nil {
			t.Fatal(err)
		}
		u, err := f.store.User(ctx, ref("alice"))
		if err != nil || len(u.Devices) != 1 || u.Devices[0].Class != class {
			t.Fatalf("got %+v, %v", u.Devices, err)
		}
		return u.Devices[0].Seen
	}
	first := seen(0, "web")
	for _, c := range []struct {
		after time.Duration
		class string
		want  push.MilliTime // after the first
	}{
		{time.Minute - time.Millisecond, "web", 0},
		{time.Millisecond, "web", 60_000},
		{time.Second, "web", 60_000},
		{time.Second, "app", 62_000}, // another class is news, and is not kept back
	} {
		if got := seen(c.after, c.class) - first; got != c.want {
			t.Errorf("%v later, of class %s: seen %d ms after the first time, want %d", c.after, c.class, got, c.want)
		}
	}
}
