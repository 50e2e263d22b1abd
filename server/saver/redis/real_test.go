package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/redistest"
	"carillon/server/saver"
	"carillon/server/saver/savertest"
)

// TestFull_PublishesAreRefusedAndEverythingElseGoesOn fills Redis, drains it by acknowledgements, and publishes again.
func TestFull_PublishesAreRefusedAndEverythingElseGoesOn(t *testing.T) {
	r := redistest.Standalone(t, redistest.MaxMemory(1<<30))
	f := newFixture(t, r, 1, Config{})
	s, ctx := f.nodes[0].store, t.Context()
	phone := saver.Open{UserRef: refOf("alice"), Facts: push.DeviceFacts{Device: "phone", Platform: push.PlatformWeb, Class: "web"}}
	opened, err := s.Open(ctx, phone)
	if err != nil {
		t.Fatal(err)
	}
	var id atomic.Int64
	publish := func(size int) error {
		p := faultCases[0].publication(push.MsgID(id.Add(1)), "")
		p.Message.Body = []byte(`"` + strings.Repeat("x", size) + `"`)
		return s.Publish(ctx, []*saver.Publication{p})[0].Err
	}
	for range 60 {
		if err := publish(50 << 10); err != nil {
			t.Fatal(err)
		}
	}
	all := faultCases[3].publication(1000, "")
	if r := s.Publish(ctx, []*saver.Publication{all})[0]; r.Err != nil {
		t.Fatal(r.Err)
	}
	if err := r.Fill(ctx, 105); err != nil {
		t.Fatal(err)
	}
	var refused *push.Error
	if err := publish(100); !errors.As(err, &refused) || refused.Kind != push.KindUnavailable || refused.Code != "store_full" || refused.After == 0 {
		t.Fatalf("publishing to a full Redis: %v", err)
	}
	if r := s.Publish(ctx, []*saver.Publication{faultCases[3].publication(2000, "k")})[0]; push.KindOf(r.Err) != push.KindUnavailable {
		t.Fatalf("publishing to everyone: %+v", r)
	}
	if n := f.pending(t); n != 0 {
		t.Fatalf("%d publications were begun", n)
	}
	if err := s.Health(ctx); push.KindOf(err) != push.KindUnavailable {
		t.Fatalf("a full store is healthy: %v", err)
	}
	// A device connects, takes back, and acknowledges.
	laptop := phone
	laptop.Facts.Device = "laptop"
	if _, err := s.Open(ctx, laptop); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recall(ctx, saver.Recall{Product: shop, Shards: savertest.Shards, ID: 1000}); err != nil {
		t.Fatal(err)
	}
	faultCases[3].wantEach(t, s, "-1000 ", false)
	to := opened.Starts[push.Own].At
	to.Pos += 60
	for _, d := range []push.DeviceID{"phone", "laptop"} {
		if _, err := s.Ack(ctx, []saver.Ack{{UserRef: phone.UserRef, Device: d, Places: push.Cursor{push.Own: to}}}); err != nil {
			t.Fatal(err)
		}
	}
	faultCases[0].wantEach(t, s, "", false)
	for publish(100) != nil { // until it was noticed that there is room
		if ctx.Err() != nil {
			t.Fatal("publishes are still refused")
		}
	}
}

// load publishes with keys from some callers, repeating what failed, until it is told to end.
type load struct {
	stop     chan struct{}
	wg       sync.WaitGroup
	accepted sync.Map // message id -> to everyone
	failed   atomic.Int64
	count    atomic.Int64
}

func (l *load) start(t *testing.T, stores ...*Store) {
	l.stop = make(chan struct{})
	for n, s := range stores {
		for caller := range 4 {
			l.wg.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-l.stop:
						return
					default:
					}
					c := faultCases[i%4]
					p := c.publication(push.MsgID(1+n*1_000_000_000+caller*1_000_000+i), fmt.Sprint(n, "-", caller, "-", i))
					p.Limits = noLimits
					for {
						r := s.Publish(context.Background(), []*saver.Publication{p})[0]
						if r.Err == nil {
							l.accepted.Store(r.Message.ID, i%4)
							l.count.Add(1)
							break
						}
						if push.KindOf(r.Err) != push.KindUnavailable {
							t.Errorf("publish: %v", r.Err)
							return
						}
						l.failed.Add(1)
					}
				}
			})
		}
	}
}

// more waits until so many more were accepted.
func (l *load) more(t *testing.T, n int64) {
	t.Helper()
	for want := l.count.Load() + n; l.count.Load() < want; {
		if t.Failed() || t.Context().Err() != nil {
			t.Fatal("the load ended")
		}
		time.Sleep(time.Millisecond)
	}
}

// judge finishes what is unfinished, and checks that everything that was accepted lies in all its slots, once.
func (l *load) judge(t *testing.T, f *fixture) {
	t.Helper()
	close(l.stop)
	l.wg.Wait()
	f.clock.Advance(leaseFor + time.Second)
	s := f.nodes[0].store
	for f.pending(t) > 0 {
		if err := s.Finish(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.clock.Advance(leaseFor + time.Second)
	}
	for i, c := range faultCases[:4] {
		for n, text := range c.holds(t, s) {
			seen := make(map[string]int)
			for _, id := range strings.Fields(text) {
				if seen[id]++; seen[id] > 1 {
					t.Errorf("message %s lies twice in slot %d of %s", id, n, c.name)
				}
			}
			l.accepted.Range(func(id, of any) bool {
				if of == i && seen[fmt.Sprint(id)] == 0 {
					t.Errorf("message %v is not in slot %d of %s", id, n, c.name)
				}
				return true
			})
		}
	}
	t.Logf("%d accepted, %d calls failed", l.count.Load(), l.failed.Load())
}

// noLimits keeps everything that a load publishes.
var noLimits = push.Limits{OwnMessages: 1 << 20, OwnBytes: 1 << 40, CommonMessages: 1 << 20, CommonBytes: 1 << 40}

// TestKilled_WhatWasAcceptedIsThereOnce kills Redis under load and starts it again.
func TestKilled_WhatWasAcceptedIsThereOnce(t *testing.T) {
	r := redistest.Standalone(t)
	f := newFixture(t, r, 2, Config{})
	var l load
	l.start(t, f.nodes[0].store, f.nodes[1].store)
	for range 3 {
		l.more(t, 50)
		n := r.Servers()[0]
		n.Kill()
		if err := n.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	l.more(t, 20)
	l.judge(t, f)
}

// TestFailover_WhatReplicasHaveIsThereOnce kills the primary under load, of each form that has another.
func TestFailover_WhatReplicasHaveIsThereOnce(t *testing.T) {
	for _, c := range []struct {
		form  redistest.Form
		start func(testing.TB, ...redistest.Option) *redistest.Redis
		kept  int
	}{{redistest.FormSentinel, redistest.Sentinel, 2}, {redistest.FormCluster, redistest.Cluster, 1}} {
		t.Run(string(c.form), func(t *testing.T) {
			r := c.start(t)
			f := newFixture(t, r, 2, Config{})
			f.close()
			f.kept = c.kept
			f.open(t)
			var l load
			l.start(t, f.nodes[0].store, f.nodes[1].store)
			l.more(t, 50)
			old := r.Servers()[0]
			if _, err := r.Crash(t.Context(), old); err != nil {
				t.Fatal(err)
			}
			if err := old.Restart(t.Context()); err != nil { // so that there are as many replicas again
				t.Fatal(err)
			}
			if err := r.Await(t.Context()); err != nil {
				t.Fatal(err)
			}
			l.more(t, 50)
			l.judge(t, f)
		})
	}
}

// trips counts how often a store asks the database, each time for whatever number of things at once.
type trips struct {
	t *testing.T
	d *trouble
}

func (p *trips) want(what string, want int, do func() error) {
	p.t.Helper()
	p.d.calls = 0
	if err := do(); err != nil {
		p.t.Fatalf("%s: %v", what, err)
	}
	if p.d.calls != want {
		p.t.Errorf("%s: %d round trips, want %d", what, p.d.calls, want)
	}
}

// TestRoundTrips_DoNotDependOnHowMany: each call takes a number of round trips of its own, for one and for many.
func TestRoundTrips_DoNotDependOnHowMany(t *testing.T) {
	p := &trips{t, &trouble{}}
	f, _, s := broken(t, p.d)
	ctx := t.Context()
	id := push.MsgID(100)
	publish := func(n int, key string, c faultCase) func() error {
		return func() error {
			var ps []*saver.Publication
			for i := range n {
				id++
				k := ""
				if key != "" {
					k = fmt.Sprint(key, i)
				}
				pub := c.publication(id, k)
				if c.name == "one" {
					pub.Own[0].User = push.UserID(fmt.Sprint("user", i))
				}
				ps = append(ps, pub)
			}
			var errs []error
			for _, r := range s.Publish(ctx, ps) {
				errs = append(errs, r.Err)
			}
			return errors.Join(errs...)
		}
	}
	for _, many := range []int{1, 50} {
		p.want(fmt.Sprint("publish ", many), 2, publish(many, "", faultCases[0]))
		p.want(fmt.Sprint("publish with keys ", many), 3, publish(many, fmt.Sprint("a", many), faultCases[0]))
	}
	if err := publish(1, "", faultCases[0])(); err != nil {
		t.Fatal(err)
	}
	p.want("publish one to the same again", 1, publish(1, "", faultCases[0])) // by the state that is remembered
	// Time; bodies; read and write intents; read and write slots; note that they are finished.
	p.want("publish to several", 6, publish(1, "", faultCases[1]))
	for _, many := range []int{0, 1, 3, 50} { // none: nothing is read and written but the intent
		found := faultCases[1].publication(0, "")
		found.Own, found.Found = nil, true
		for i := range many {
			found.Own = append(found.Own, saver.Target{User: push.UserID(fmt.Sprint("found", i))})
		}
		id++
		found.Message.ID = id
		want := 6
		if many == 0 {
			want = 4
		}
		p.want(fmt.Sprint("publish to found ", many), want, func() error { return s.Publish(ctx, []*saver.Publication{found})[0].Err })
	}
	p.want("publish to everyone", 7, publish(1, "", faultCases[4]))
	p.want("publish five to everyone", 7, publish(5, "", faultCases[4]))
	open := func(n int) saver.Open {
		return saver.Open{UserRef: refOf(push.UserID(fmt.Sprint("user", n))), Facts: push.DeviceFacts{Device: "phone", Class: "web"}}
	}
	var acks []saver.Ack
	var reads []saver.Read
	var users []saver.UserRef
	for i := range 50 {
		var o saver.Opened
		p.want("open", 2, func() (err error) { o, err = s.Open(ctx, open(i)); return err })
		to := o.Starts[push.Own].At
		to.Pos = o.Starts[push.Own].Head
		u := open(i).UserRef
		acks = append(acks, saver.Ack{UserRef: u, Device: "phone", Places: push.Cursor{push.Own: to}, Seen: true})
		reads = append(reads, saver.Read{ShardRef: u.Shard(), Slot: push.Own, User: u.User, MaxEntries: 100, MaxBytes: 1 << 20})
		users = append(users, u)
	}
	f.clock.Advance(2 * time.Minute)
	for _, want := range []int{2, 1, 1} { // that it was seen is written once a minute
		p.want("open again", want, func() error { _, err := s.Open(ctx, open(0)); return err })
	}
	p.want("read 50", 2, func() error { _, err := s.Read(ctx, reads); return err })
	p.want("ack 50", 2, func() error { _, err := s.Ack(ctx, acks); return err })
	p.want("devices of 50", 1, func() error { _, err := s.Devices(ctx, users); return err })
	p.want("tags of 50", 1, func() error { _, err := s.Tags(ctx, users); return err })
	p.want("changes", 1, func() error {
		var qs []saver.ChangeQuery
		for i := range savertest.Shards {
			qs = append(qs, saver.ChangeQuery{ShardRef: saver.ShardRef{Product: shop, Shard: push.Shard(i)}})
		}
		_, err := s.Changes(ctx, "r1", qs)
		return err
	})
	p.want("user", 1, func() error { _, err := s.User(ctx, users[0]); return err })
	p.want("message", 2, func() error { _, err := s.Message(ctx, shop, 101); return err })
	p.want("recall", 4, func() error {
		_, err := s.Recall(ctx, saver.Recall{Product: shop, Shards: savertest.Shards, ID: 101})
		return err
	})
}

// TestMemory_OfAMessageStaysSmall stores ten messages of 100 bytes for each of some users who are offline, in the 1 024 shards that a
// product has on Redis.
func TestMemory_OfAMessageStaysSmall(t *testing.T) {
	f := newFixture(t, pool.Standalone(t), 1, Config{})
	s, ctx := f.nodes[0].store, t.Context()
	const users, each, shards = 5000, 10, 1024
	memory := func() int64 { return memoryOf(t, f.redis.Servers()[0].Client()) }
	before := memory()
	id := push.MsgID(1_700_000_000_000 << 12)
	body := []byte(`"` + strings.Repeat("x", 98) + `"`)
	for range each {
		for from := 0; from < users; from += 500 {
			var ps []*saver.Publication
			for u := range 500 {
				id++ // as a node gives them out of its block
				ps = append(ps, &saver.Publication{
					Product: shop, Shards: shards, TTL: 7 * day, Message: &push.Message{ID: id, Body: body, Persistent: true},
					Own: []saver.Target{{User: push.UserID(fmt.Sprintf("user-%07d", from+u))}},
				})
			}
			for _, r := range s.Publish(ctx, ps) {
				if r.Err != nil {
					t.Fatal(r.Err)
				}
			}
		}
	}
	got := (memory() - before) / (users * each)
	t.Logf("%d bytes a message", got)
	if got > 350 {
		t.Errorf("%d bytes of Redis for a message of 100 bytes, at most 350 are meant", got)
	}
}
