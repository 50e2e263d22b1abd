package savertest

import (
	"errors"
	"sync"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
)

func (e *env) wantFenced(b *saver.Batch) {
	e.Helper()
	r := e.tryBatch(b)
	e.wantFencedErr(r.Err)
	if r.Own != nil || r.Common != nil || r.Found {
		e.Fatalf("a batch that is refused is answered with %+v", r)
	}
}

func (e *env) wantFencedErr(err error) {
	e.Helper()
	e.wantKind("a batch under a token that does not count", err, push.KindConflict)
	var pe *push.Error
	if !errors.As(err, &pe) || pe.Code != "fenced" {
		e.Fatalf("the error is %v, want one of code fenced", err)
	}
}

func batchUnfenced(e *env) {
	c, other := e.campaign("m"), e.campaign("other")
	other.fence(1)
	c.token = 1
	b := c.own(0, usersIn(0, 3)...)
	e.wantFenced(b)
	e.wantFenced(recallOf(b))
	f := c.fenceOf(1)
	f.Product = forum
	if err := e.s.Store.Fence(e.ctx, f); err != nil {
		e.Fatal(err)
	}
	e.wantFenced(b)
	c.fence(1)
	b.Token = 2 // of somebody who did not raise it yet
	e.wantFenced(b)
	for _, u := range b.Own {
		if s := e.state(u.User, push.Own); s.Epoch != 0 {
			e.Fatal("a batch that was refused made a slot")
		}
	}
	if r := e.batchRecords(c, 0, 0); r[0] != nil {
		e.Fatalf("a batch that was refused is on record: %+v", r[0])
	}
}

func batchFence(e *env) {
	for _, bug := range trialFenced(e) {
		e.Error(bug)
	}
	c := e.campaign("n")
	users := usersIn(1, 6)
	c.fence(3)
	one, two := c.own(0, users[:3]...), c.own(1, users[3:]...)
	first := e.batch(one)
	c.fence(3)
	for _, lower := range []uint64{1, 2} {
		e.wantFencedErr(e.s.Store.Fence(e.ctx, c.fenceOf(lower)))
	}
	e.batch(two)
	stop := c.fenceOf(1 << 60)
	stop.Message = nil
	if err := e.s.Store.Fence(e.ctx, stop); err != nil {
		e.Fatal(err)
	}
	e.wantFenced(one)
	e.wantFenced(c.own(2, usersIn(2, 2)...))
	e.wantFenced(recallOf(one))
	one.Token = 1 << 60
	if r := e.batch(one); !r.Found || !samePlaces(r.Own, first.Own) {
		e.Fatalf("a batch that comes again under a higher token is answered with %+v", r)
	}
	for _, u := range users {
		e.wantAll(u, push.Own, "n")
	}
}

func batchRacers(e *env) {
	for _, bug := range trialAgain(e) {
		e.Error(bug)
	}
	c := e.campaign("n")
	c.fence(1)
	const racers, numbers = 4, 6
	var bs []*saver.Batch
	for n := range numbers {
		bs = append(bs, c.own(n, usersIn(push.Shard(n%2), numbers*20)[n*20:n*20+20]...))
	}
	results := make([][]saver.Batched, racers)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() {
			<-start
			for _, b := range bs {
				results[i] = append(results[i], e.s.Store.Batches(e.ctx, []*saver.Batch{b})...)
			}
		})
	}
	close(start)
	wg.Wait()
	for n := range bs {
		written := 0
		for i := range racers {
			r := results[i][n]
			if r.Err != nil {
				e.Fatal(r.Err)
			}
			if !r.Found {
				written++
			}
			if !samePlaces(r.Own, results[0][n].Own) {
				e.Fatalf("batch %d was answered differently", n)
			}
		}
		if written != 1 {
			e.Fatalf("batch %d was written %d times", n, written)
		}
		for _, u := range bs[n].Own {
			e.wantEntries(u.User, c.m.ID, 1)
		}
	}
}

// wantEntries checks how many entries of a message lie in a user's slot.
func (e *env) wantEntries(u push.UserID, id push.MsgID, want int) {
	e.Helper()
	n := 0
	for _, x := range e.readAll(readOf(u, push.Own, push.Place{})) {
		if x.ID == id {
			n++
		}
	}
	if n != want {
		e.Fatalf("%s has the message %d times, want %d", u, n, want)
	}
}

// batchTokens lets somebody write who does not know that others took over, one after the other.
func batchTokens(e *env) {
	c := e.campaign("m")
	const tokens, numbers = 5, 12
	batches := func(token uint64) (bs []*saver.Batch) {
		for n := range numbers {
			b := c.own(n, usersIn(push.Shard(n%Shards), 24)[n/Shards*12:n/Shards*12+12]...)
			b.Token = token
			bs = append(bs, b)
		}
		return bs
	}
	var wg sync.WaitGroup
	for token := uint64(1); token <= tokens; token++ {
		c.fence(token)
		bs := batches(token)
		if token == tokens {
			for _, b := range bs {
				e.batch(b)
			}
			continue
		}
		done := make(chan struct{})
		wg.Go(func() {
			for i := 0; ; i++ {
				r := e.tryBatch(bs[i%numbers])
				if i == 3 {
					close(done)
				}
				if r.Err == nil {
					continue
				}
				if push.KindOf(r.Err) != push.KindConflict {
					e.Errorf("batch %d: %v", i, r.Err)
				}
				if i < 3 {
					close(done)
				}
				return
			}
		})
		<-done
	}
	wg.Wait()
	for _, b := range batches(tokens) {
		for _, u := range b.Own {
			e.wantAll(u.User, push.Own, "m")
			if s := e.state(u.User, push.Own); s.Head != s.Origin+1 {
				e.Fatalf("%s has %d positions, want one", u.User, s.Head-s.Origin)
			}
		}
	}
}

func batchExpires(e *env) {
	u := usersIn(2, 1)[0]
	c := e.campaign("m")
	c.m.Expires = c.m.Created.Add(time.Hour)
	c.m.Body = make([]byte, 3000)
	c.fence(1)
	b := c.own(0, u)
	e.batch(b)
	e.s.Clock.Advance(time.Hour + saver.RecordKept - time.Millisecond)
	e.sweep()
	if r := e.batch(b); !r.Found {
		e.Fatal("a batch is forgotten before its fence")
	}
	if r := e.batchRecords(c, 2, 0); r[0] == nil {
		e.Fatal("the record of a batch is forgotten before its fence")
	}
	e.s.Clock.Advance(time.Millisecond)
	for range 2 {
		e.wantFenced(b)
		e.wantFenced(recallOf(b))
		if r := e.batchRecords(c, 2, 0); r[0] != nil {
			e.Fatalf("after its end there is the record %+v", r[0])
		}
		e.sweep()
	}
	// Whoever fences it anew begins anew, with whatever token.
	c.m.Created = e.s.Clock.Milli()
	c.m.Expires = c.m.Created.Add(time.Hour)
	c.token = 0
	c.fence(1)
	if r := e.batch(c.own(0, u)); r.Found {
		e.Fatal("a batch was remembered longer than its fence")
	}
	e.wantEntries(u, c.m.ID, 1)
}

func batchProlonged(e *env) {
	u := usersIn(2, 1)[0]
	c := e.campaign("m")
	c.fence(1)
	until := c.fenceOf(1).Until
	e.batch(c.own(0, u))
	longer, shorter := c.fenceOf(2), c.fenceOf(3)
	longer.Until, shorter.Until = until.Add(day), until.Add(-day)
	for _, f := range []saver.Fence{longer, shorter} {
		if err := e.s.Store.Fence(e.ctx, f); err != nil {
			e.Fatal(err)
		}
	}
	c.token = 3
	e.s.Clock.Advance(week + saver.RecordKept + day - time.Millisecond)
	e.sweep()
	if r := e.batch(c.own(0, u)); !r.Found {
		e.Fatal("a batch is forgotten though its fence was prolonged")
	}
	e.s.Clock.Advance(time.Millisecond)
	e.wantFenced(c.own(0, u))
}
