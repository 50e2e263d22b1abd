package memory

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"

	"carillon/server/clock/clocktest"
	"carillon/server/push"
	"carillon/server/register"
	"carillon/server/register/registertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newFixture(hash func(push.ProductID, push.UserID) uint64) registertest.Maker {
	return func(t *testing.T) *registertest.Fixture {
		c := clocktest.New()
		mk := func() register.Register {
			r := New(Config{Clock: c})
			if hash != nil {
				r.hash = hash
			}
			t.Cleanup(func() {
				recount(t, r)
				r.Close()
			})
			return r
		}
		return &registertest.Fixture{Register: mk(), Elapse: c.Advance, Restart: mk}
	}
}

func TestConformance(t *testing.T) { registertest.Run(t, newFixture(nil)) }

// TestConformance_WhenAllUsersCollide puts every user into one chain of one stripe.
func TestConformance_WhenAllUsersCollide(t *testing.T) {
	registertest.Run(t, newFixture(func(push.ProductID, push.UserID) uint64 { return 5 }))
}

// recount walks everything and compares it with the numbers that are kept.
func recount(t *testing.T, r *Register) {
	t.Helper()
	all := map[*counts]int64{}
	shards := map[*counts]map[push.Shard]int32{}
	listed := map[*entry]bool{}
	for i := range r.stripes {
		st := &r.stripes[i]
		lives := map[*life]bool{}
		chained := 0
		for h, e := range st.chains {
			if e == nil {
				t.Errorf("stripe %d keeps an empty chain", i)
			}
			for ; e != nil; e = e.chain {
				if got := r.hash(e.counts.product, e.user); got != h {
					t.Errorf("session of %s lies under another hash", e.user)
				}
				chained++
				all[e.counts]++
				if shards[e.counts] == nil {
					shards[e.counts] = map[push.Shard]int32{}
				}
				shards[e.counts][e.shard]++
				lives[e.counts.life] = true
			}
		}
		inLists := 0
		for l := range lives {
			for e := l.lists[i]; e != nil; e = e.next {
				if listed[e] || e.counts.life != l {
					t.Errorf("session of %s is in a wrong list", e.user)
				}
				listed[e] = true
				inLists++
			}
		}
		if chained != inLists {
			t.Errorf("stripe %d: %d sessions in chains, %d in lists", i, chained, inLists)
		}
	}
	for _, l := range r.lives.Load().list {
		l.products.Range(func(p, v any) bool {
			c := v.(*counts)
			if got := c.all.Load(); got != all[c] {
				t.Errorf("%s in %v: kept %d, counted %d", l.id, p, got, all[c])
			}
			for s, n := range shards[c] {
				if got := c.of(s); got != n {
					t.Errorf("%s in %v, shard %d: kept %d, counted %d", l.id, p, s, got, n)
				}
			}
			return true
		})
	}
}

func mustJoin(t testing.TB, r *Register, boot push.BootID) {
	t.Helper()
	if err := r.Join(context.Background(), register.Room{ID: "north", Boot: boot}); err != nil {
		t.Fatal(err)
	}
}

func mustInsert(t testing.TB, r *Register, s register.Session) register.Session {
	t.Helper()
	in, err := r.Insert(context.Background(), s, nil)
	if err != nil {
		t.Fatal(err)
	}
	return in.Session
}

func sessionOf(i int, boot push.BootID) register.Session {
	u := push.UserID(fmt.Sprintf("user-%07d", i))
	return register.Session{
		Key:   register.Key{Product: "shop", User: u, Device: "3f1c9ab2"},
		Shard: push.ShardOf(u, 64), Platform: push.PlatformWeb, Class: "default", Transport: "ws", Room: "north", Boot: boot,
	}
}

func kept(r *Register) (n int) {
	for i := range r.stripes {
		for _, e := range r.stripes[i].chains {
			for ; e != nil; e = e.chain {
				n++
			}
		}
	}
	return n
}

func TestRegister_EpochsRiseWhenTheClockGoesBack(t *testing.T) {
	c := clocktest.New()
	r := New(Config{Clock: c})
	mustJoin(t, r, 1)
	a := mustInsert(t, r, sessionOf(1, 1))
	c.Advance(-time.Hour)
	b := mustInsert(t, r, sessionOf(1, 1))
	if b.Epoch <= a.Epoch {
		t.Fatalf("epoch %d after the clock went back does not stand above %d", b.Epoch, a.Epoch)
	}
}

func TestRegister_EpochsRiseAboveWhatClientsHadBeforeTheClockWasSetBack(t *testing.T) {
	c := clocktest.New()
	before := New(Config{Clock: c})
	mustJoin(t, before, 1)
	had := mustInsert(t, before, sessionOf(1, 1))
	c.Advance(-time.Hour)
	r := New(Config{Clock: c}) // of the next process
	mustJoin(t, r, 1)
	s := sessionOf(1, 1)
	s.Row = had.Epoch
	came := mustInsert(t, r, s)
	if came.Epoch <= had.Epoch || came.Row != had.Epoch {
		t.Errorf("after session %d its client has session %d, of row %d", had.Epoch, came.Epoch, came.Row)
	}
	s.Row = 1 << 63 // says a client
	if next := mustInsert(t, r, s); next.Epoch != came.Epoch+1 {
		t.Errorf("a client that names what is yet to come has session %d after %d", next.Epoch, came.Epoch)
	}
}

func TestRegister_SessionsOfEndedLivesAreClearedAway(t *testing.T) {
	const n = 3000
	r := New(Config{Clock: clocktest.New()})
	mustJoin(t, r, 1)
	for i := range n {
		if _, err := r.Insert(t.Context(), sessionOf(i, 1), nil); err != nil {
			t.Fatal(err)
		}
	}
	mustJoin(t, r, 2)
	for range 3 { // renewals alone clear it, and each clears a bounded number
		if _, err := r.Renew(t.Context(), "north", 2); err != nil {
			t.Fatal(err)
		}
	}
	if got := kept(r); got != 0 {
		t.Errorf("%d sessions of the old boot are kept", got)
	}

	for i := range n {
		if _, err := r.Insert(t.Context(), sessionOf(i, 2), nil); err != nil {
			t.Fatal(err)
		}
	}
	mustJoin(t, r, 3)
	for i := n; i < 2*n; i++ { // inserts of others alone clear it too
		if _, err := r.Insert(t.Context(), sessionOf(i, 3), nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := kept(r); got != n {
		t.Errorf("%d sessions are kept, want the %d of the present boot", got, n)
	}
	if r.graves.some.Load() {
		t.Error("there is still something to clear")
	}
	recount(t, r)
}

func TestRegister_LookupOfNobodyAllocatesOnlyItsResult(t *testing.T) {
	r := New(Config{})
	mustJoin(t, r, 1)
	users := []push.UserID{"alice", "bob", "cathy"}
	if got := testing.AllocsPerRun(200, func() { r.RoomsOf("shop", users) }); got > 1 {
		t.Errorf("RoomsOf of nobody: got %v allocations, want at most 1", got)
	}
	if _, err := r.Insert(t.Context(), sessionOf(1, 1), nil); err != nil {
		t.Fatal(err)
	}
	if got := testing.AllocsPerRun(200, func() { r.Count(t.Context(), "shop") }); got > 0 {
		t.Errorf("Count: got %v allocations, want 0", got)
	}
}

// limits are those of a product with two rules, on the platform of sessionOf.
func limits() []push.SessionLimit {
	web := push.PlatformSet(0).Add(push.PlatformWeb)
	return []push.SessionLimit{{Platforms: web, Max: 1, Rule: "one"}, {Platforms: push.AllPlatforms(), Max: 3, Reject: true, Rule: "two"}}
}

// household inserts a phone and a television of the user beside whatever is there.
func household(t testing.TB, r *Register, i int) {
	t.Helper()
	for _, p := range []push.Platform{push.PlatformIOS, push.PlatformTV} {
		s := sessionOf(i, 1)
		s.Device, s.Platform = push.DeviceID(p.String()), p
		if _, err := r.Insert(context.Background(), s, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRegister_LimitsThatLeaveAPlaceCostNoMemory(t *testing.T) {
	r := New(Config{Clock: clocktest.New()})
	mustJoin(t, r, 1)
	household(t, r, 1)
	come := func(limits []push.SessionLimit) float64 {
		return testing.AllocsPerRun(200, func() {
			in, err := r.Insert(t.Context(), sessionOf(1, 1), limits)
			if err != nil || len(in.Replaced) != 0 {
				t.Fatalf("got %+v, %v", in, err)
			}
			if ok, err := r.Remove(t.Context(), in.Session.Key, in.Session.Epoch, 1); !ok || err != nil {
				t.Fatal(ok, err)
			}
		})
	}
	if without, within := come(nil), come(limits()); within > without {
		t.Errorf("got %v allocations, want those without limits, %v", within, without)
	}
}

func BenchmarkInsert(b *testing.B) {
	r := New(Config{})
	mustJoin(b, r, 1)
	ctx := b.Context()
	ss := make([]register.Session, b.N)
	for i := range ss {
		ss[i] = sessionOf(i, 1)
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range ss {
		if _, err := r.Insert(ctx, ss[i], nil); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	runtime.GC()
	runtime.ReadMemStats(&after)
	if b.N >= 10000 {
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(b.N), "heap-B/session")
	}
	runtime.KeepAlive(r)
	runtime.KeepAlive(ss)
}

func filled(b *testing.B, n int) (*Register, []register.Session) {
	r := New(Config{Clock: clocktest.New()}) // no lease runs out
	mustJoin(b, r, 1)
	ss := make([]register.Session, n)
	for i := range ss {
		in, err := r.Insert(b.Context(), sessionOf(i, 1), nil)
		if err != nil {
			b.Fatal(err)
		}
		ss[i] = in.Session
	}
	b.ReportAllocs()
	b.ResetTimer()
	return r, ss
}

func BenchmarkRemoveAndInsert(b *testing.B) {
	for _, n := range []int{1000, 200000} {
		b.Run(fmt.Sprint("online=", n), func(b *testing.B) {
			r, ss := filled(b, n)
			ctx := b.Context()
			for i := range b.N {
				s := &ss[i%n]
				if ok, err := r.Remove(ctx, s.Key, s.Epoch, s.Boot); !ok || err != nil {
					b.Fatal(ok, err)
				}
				s.Epoch = 0
				in, err := r.Insert(ctx, *s, nil)
				if err != nil {
					b.Fatal(err)
				}
				s.Epoch = in.Session.Epoch
			}
		})
	}
}

// BenchmarkRemoveAndInsertWithinLimits is BenchmarkRemoveAndInsert under a session policy, for a user with two more devices
// online. What it costs beside that must not depend on how many others are.
func BenchmarkRemoveAndInsertWithinLimits(b *testing.B) {
	for _, n := range []int{1000, 200000} {
		b.Run(fmt.Sprint("online=", n), func(b *testing.B) {
			r, ss := filled(b, n)
			ls, ctx := limits(), b.Context()
			b.StopTimer()
			for i := range min(n, 1000) {
				household(b, r, i)
			}
			b.StartTimer()
			for i := range b.N {
				s := &ss[i%1000]
				if ok, err := r.Remove(ctx, s.Key, s.Epoch, s.Boot); !ok || err != nil {
					b.Fatal(ok, err)
				}
				s.Epoch = 0
				in, err := r.Insert(ctx, *s, ls)
				if err != nil {
					b.Fatal(err)
				}
				s.Epoch = in.Session.Epoch
			}
		})
	}
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{1000, 200000} {
		b.Run(fmt.Sprint("online=", n), func(b *testing.B) {
			r, ss := filled(b, n)
			one := make([]push.UserID, 1)
			for i := range b.N {
				one[0] = ss[i*7919%n].User
				if got := r.RoomsOf("shop", one); len(got[0]) != 1 {
					b.Fatal("nobody found")
				}
			}
		})
	}
}
