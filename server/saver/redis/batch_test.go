package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/redistest"
	"carillon/server/saver"
	"carillon/server/saver/savertest"
)

// taskOf is a message that a task writes in batches, as each of these tests has one.
type taskOf struct {
	m    *push.Message
	size int // users of each batch
}

func newTask(f *fixture, body int) *taskOf {
	now := f.clock.Milli()
	return &taskOf{size: 3, m: &push.Message{
		ID: 100, Persistent: true, Created: now, Expires: now.Add(7 * day), Body: []byte(`"` + strings.Repeat("x", body) + `"`),
	}}
}

func (k *taskOf) fence(token uint64) saver.Fence {
	return saver.Fence{Product: shop, Shards: savertest.Shards, ID: k.m.ID, Token: token, Until: k.m.Expires.Add(saver.RecordKept), Message: k.m}
}

// batches returns one for users of each shard, and one for the common slot of the first.
func (k *taskOf) batches(token uint64) []*saver.Batch {
	var bs []*saver.Batch
	for s := range push.Shard(savertest.Shards) {
		b := &saver.Batch{Product: shop, Shards: savertest.Shards, Message: k.m, Token: token, Shard: s, Number: 1}
		for i := 0; len(b.Own) < k.size; i++ {
			if u := push.UserID(fmt.Sprint("user-", i)); push.ShardOf(u, savertest.Shards) == s {
				b.Own = append(b.Own, saver.Target{User: u})
			}
		}
		bs = append(bs, b)
	}
	return append(bs, &saver.Batch{Product: shop, Shards: savertest.Shards, Message: k.m, Token: token, Everyone: true})
}

func recalls(bs []*saver.Batch) (out []*saver.Batch) {
	for _, b := range bs {
		r := *b
		r.Recall = true
		out = append(out, &r)
	}
	return out
}

func mustFence(t *testing.T, s *Store, f saver.Fence) {
	t.Helper()
	if err := s.Fence(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

func mustBatch(t *testing.T, s *Store, bs []*saver.Batch) []saver.Batched {
	t.Helper()
	rs := s.Batches(t.Context(), bs)
	for _, r := range rs {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	return rs
}

func isFenced(err error) bool {
	var e *push.Error
	return errors.As(err, &e) && e.Kind == push.KindConflict && e.Code == "fenced"
}

// wantEach checks what every slot of the batches holds.
func (k *taskOf) wantEach(t *testing.T, s *Store, want string) {
	t.Helper()
	for _, b := range k.batches(0) {
		k.want(t, s, b, want)
	}
}

func (k *taskOf) want(t *testing.T, s *Store, b *saver.Batch, want string) {
	t.Helper()
	c := faultCase{everyone: b.Everyone}
	for _, u := range b.Own {
		c.to = append(c.to, u.User)
	}
	all := c.holds(t, s)
	if b.Everyone {
		all = all[b.Shard : b.Shard+1]
	}
	for _, got := range all {
		if got != want {
			t.Fatalf("slots of shard %d hold %q, want %q in each", b.Shard, all, want)
		}
	}
}

// TestBatches_RepeatedAfterAnyCallThatFailedWriteOnce loses the reply of each call in turn, and each call itself, and gives the same batches again, at the same node
// or another.
func TestBatches_RepeatedAfterAnyCallThatFailedWriteOnce(t *testing.T) {
	for _, recall := range []bool{false, true} {
		for _, lost := range []bool{false, true} {
			for _, elsewhere := range []bool{false, true} {
				t.Run(fmt.Sprintf("recall=%v/executed=%v/elsewhere=%v", recall, lost, elsewhere), func(t *testing.T) {
					for at, failed := 1, true; failed; at++ {
						d := &trouble{lost: lost}
						f, well, ill := broken(t, d)
						k := newTask(f, 1000)
						mustFence(t, ill, k.fence(1))
						bs, want := k.batches(1), "100 "
						if recall {
							mustBatch(t, ill, bs)
							bs, want = recalls(bs), "-100 "
						}
						d.at, d.calls = at, 0
						first := ill.Batches(t.Context(), bs)
						failed, d.at = d.calls >= at, 0
						by := ill
						if elsewhere {
							by = well
						}
						again := mustBatch(t, by, bs)
						for i, r := range first {
							switch {
							case r.Err != nil && push.KindOf(r.Err) != push.KindUnavailable:
								t.Fatalf("call %d: %v", at, r.Err)
							case r.Err == nil && (!again[i].Found || !samePlaces(r, again[i])):
								t.Fatalf("call %d: %+v, then %+v", at, r, again[i])
							}
						}
						k.wantEach(t, well, want)
						for i, r := range mustBatch(t, by, bs) {
							if !r.Found || !samePlaces(r, again[i]) {
								t.Fatalf("call %d: %+v, then %+v", at, again[i], r)
							}
						}
						k.wantEach(t, well, want)
					}
				})
			}
		}
	}
}

func samePlaces(a, b saver.Batched) bool {
	same := func(a, b saver.Placed) bool { return a.User == b.User && a.Shard == b.Shard && a.Place == b.Place }
	return slices.EqualFunc(a.Own, b.Own, same) && slices.EqualFunc(a.Common, b.Common, same)
}

// TestFence_ThatFailedIsRepeated: whatever failed, a fence that is answered keeps the older token out, and its body is there.
func TestFence_ThatFailedIsRepeated(t *testing.T) {
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprintf("executed=%v", lost), func(t *testing.T) {
			for at, failed := 1, true; failed; at++ {
				d := &trouble{lost: lost}
				f, well, ill := broken(t, d)
				k := newTask(f, 1000)
				first := k.fence(1)
				first.Message = nil
				mustFence(t, well, first)
				d.at, d.calls = at, 0
				err := ill.Fence(t.Context(), k.fence(2))
				failed, d.at = d.calls >= at, 0
				if err != nil {
					if push.KindOf(err) != push.KindUnavailable {
						t.Fatalf("call %d: %v", at, err)
					}
					mustFence(t, well, k.fence(2))
				}
				for _, r := range well.Batches(t.Context(), k.batches(1)) {
					if !isFenced(r.Err) {
						t.Fatalf("call %d: a batch under the old token: %+v", at, r)
					}
				}
				mustBatch(t, ill, k.batches(2))
				k.wantEach(t, well, "100 ")
			}
		})
	}
}

// TestBatches_OfOneWhoWasOvertaken: between what a batch was decided on and its write, somebody else raises the token, writes the same batch, or both.
func TestBatches_OfOneWhoWasOvertaken(t *testing.T) {
	for _, c := range []struct {
		name           string
		raises, writes bool
	}{{"raised", true, false}, {"written", false, true}, {"raised and written", true, true}} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t, pool.Standalone(t), 2, Config{})
			other, s := f.nodes[0].store, f.nodes[1].store
			k := newTask(f, 10)
			mustFence(t, s, k.fence(1))
			token := uint64(1)
			s.db = &hooked{database: s.db, before: map[int]func(){1: func() {
				if c.raises {
					token = 2
					mustFence(t, other, k.fence(token))
				}
				if c.writes {
					mustBatch(t, other, k.batches(token))
				}
			}}}
			for _, r := range s.Batches(t.Context(), k.batches(1)) {
				if c.raises != isFenced(r.Err) || !c.raises && (r.Err != nil || !r.Found) {
					t.Fatalf("batched %+v", r)
				}
			}
			want := ""
			if c.writes {
				want = "100 "
			}
			k.wantEach(t, other, want)
			mustBatch(t, s, k.batches(token))
			k.wantEach(t, other, "100 ")
		})
	}
}

// TestBatches_ThatAreAbsentSayNothingAboutLater: a recall that finds nothing looks at the token when it answers.
func TestBatches_ThatAreAbsentSayNothingAboutLater(t *testing.T) {
	f := newFixture(t, pool.Standalone(t), 2, Config{})
	other, s := f.nodes[0].store, f.nodes[1].store
	k := newTask(f, 10)
	mustFence(t, s, k.fence(1))
	s.db = &hooked{database: s.db, before: map[int]func(){1: func() { mustBatch(t, other, k.batches(1)) }}}
	for _, r := range mustBatch(t, s, recalls(k.batches(1))) {
		if r.Absent || r.Found {
			t.Fatalf("what was written just before is answered with %+v", r)
		}
	}
	k.wantEach(t, other, "-100 ")
}

// TestRoundTrips_OfBatches: calls take as many for many shards as for one.
func TestRoundTrips_OfBatches(t *testing.T) {
	p := &trips{t, &trouble{}}
	f, _, s := broken(t, p.d)
	ctx := t.Context()
	for _, shards := range []int{1, 1024} {
		product := push.ProductID(fmt.Sprint("of-", shards))
		users := userOfEach(shards)
		k := newTask(f, 1000)
		of := func(what string) string { return fmt.Sprintf("%s, %d shards", what, shards) }
		fence := func(token uint64) func() error {
			fc := k.fence(token)
			fc.Product, fc.Shards = product, shards
			return func() error { return s.Fence(ctx, fc) }
		}
		batches := func(token uint64, recall, absent bool) func() error {
			var bs []*saver.Batch
			for i := range min(shards, batchesMost) {
				b := &saver.Batch{Product: product, Shards: shards, Message: k.m, Token: token, Shard: push.Shard(i), Recall: recall}
				b.Own = []saver.Target{{User: users[i]}}
				if absent {
					b.Number = 1
				}
				bs = append(bs, b)
			}
			return func() error {
				for _, r := range s.Batches(ctx, bs) {
					if r.Err != nil || r.Absent != absent {
						return fmt.Errorf("absent %v, %w", r.Absent, r.Err)
					}
				}
				return nil
			}
		}
		p.want(of("fence"), 2, fence(1))
		p.want(of("fence again"), 2, fence(2))
		p.want(of("batches"), 2, batches(2, false, false))
		p.want(of("batches again"), 2, batches(2, false, false))
		p.want(of("nothing to recall"), 2, batches(2, true, true))
		p.want(of("recall"), 3, batches(2, true, false))
		p.want(of("recall again"), 2, batches(2, true, false))
		p.want(of("records"), 1, func() error {
			_, err := s.BatchRecords(ctx, saver.BatchesRef{ShardRef: saver.ShardRef{Product: product}, ID: k.m.ID}, make([]int, 1000))
			return err
		})
	}
}

// TestFence_ExpiresByItself: what is kept of a task goes without a sweep, and not before its time.
func TestFence_ExpiresByItself(t *testing.T) {
	f := newFixture(t, pool.Standalone(t), 1, Config{})
	s := f.nodes[0].store
	k := newTask(f, 1000)
	mustFence(t, s, k.fence(1))
	mustBatch(t, s, k.batches(1))
	stop := k.fence(2)
	stop.Message, stop.Until = nil, stop.Until.Add(-day)
	mustFence(t, s, stop)
	lives := 7*day + saver.RecordKept
	_, body := bodyKey(shop, k.m.ID)
	keys := []string{body}
	for i := range savertest.Shards {
		keys = append(keys, batchesKey(tagOf(saver.ShardRef{Product: shop, Shard: push.Shard(i)}), k.m.ID))
	}
	for _, key := range keys {
		left, err := f.raw.PTTL(t.Context(), key).Result()
		if err != nil || left < lives || left > lives+2*time.Hour {
			t.Errorf("%s lives for %v, want %v and an hour or two (%v)", key, left, lives, err)
		}
	}
}

// TestFull_TasksRestAndCanBeStopped: a full Redis takes no batches; it takes the raise of a token, and recalls.
func TestFull_TasksRestAndCanBeStopped(t *testing.T) {
	r := redistest.Standalone(t, redistest.MaxMemory(1<<30))
	f := newFixture(t, r, 1, Config{})
	s, ctx := f.nodes[0].store, t.Context()
	k := newTask(f, 10)
	mustFence(t, s, k.fence(1))
	bs := k.batches(1)
	mustBatch(t, s, bs[:1])
	if err := r.Fill(ctx, 105); err != nil {
		t.Fatal(err)
	}
	var refused *push.Error
	for _, r := range s.Batches(ctx, bs[1:]) {
		if !errors.As(r.Err, &refused) || refused.Code != "store_full" {
			t.Fatalf("a batch to a full Redis: %+v", r)
		}
	}
	stop := k.fence(2)
	stop.Message = nil
	mustFence(t, s, stop)
	bs = k.batches(2)
	if r := mustBatch(t, s, recalls(bs[:2])); r[0].Found || r[0].Absent || !r[1].Absent {
		t.Fatalf("recalled %+v", r)
	}
	k.want(t, s, bs[0], "-100 ")
	k.want(t, s, bs[1], "")
}

// TestBatches_SurviveAFailover: with replicas that confirm, what was answered is there when the primary is gone, token and records too.
func TestBatches_SurviveAFailover(t *testing.T) {
	t.Parallel()
	r := redistest.Replicated(t)
	f := newFixture(t, r, 0, Config{})
	primary := r.Servers()[0]
	s := f.storeAt(t, primary, func(c *redisdb.Config) { c.Durability, c.Replicas = push.DurabilityReplicated, 2 })
	k := newTask(f, 1000)
	ctx := context.WithoutCancel(t.Context())
	until := func(do func() error) { // a busy machine may not wait for replicas in time
		t.Helper()
		for {
			err := do()
			if err == nil {
				return
			}
			if push.KindOf(err) != push.KindUnavailable || t.Context().Err() != nil {
				t.Fatal(err)
			}
		}
	}
	until(func() error { return s.Fence(ctx, k.fence(2)) })
	var places []saver.Batched
	for _, b := range k.batches(2) {
		until(func() error {
			r := s.Batches(ctx, []*saver.Batch{b})[0]
			if r.Err == nil {
				places = append(places, r)
			}
			return r.Err
		})
	}
	successor, err := r.Crash(ctx, primary)
	if err != nil {
		t.Fatal(err)
	}
	next := f.storeAt(t, successor, nil)
	for _, r := range next.Batches(ctx, k.batches(1)) {
		if !isFenced(r.Err) {
			t.Fatalf("a batch under an old token: %+v", r)
		}
	}
	for i, r := range mustBatch(t, next, k.batches(2)) {
		if !r.Found || !samePlaces(r, places[i]) {
			t.Fatalf("batched %+v, then %+v", places[i], r)
		}
	}
	k.wantEach(t, next, "100 ")
}
