package room

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/transport"
	"carillon/server/wire"
)

func TestWheel_FiresOnceNeverEarlyAtMostATickLate(t *testing.T) {
	start := time.Unix(1e9, 0)
	rng := rand.New(rand.NewPCG(1, 2))
	since := func(t time.Time) moment { return moment(t.Sub(start)) }
	fired := make(map[*session]time.Time)
	w := newWheel(start, wheelTick, func(s *session, now time.Time) {
		if _, twice := fired[s]; twice {
			t.Fatal("fired twice")
		}
		fired[s] = now
	})
	want := make(map[*session]time.Time)
	now := start
	arm := func() {
		s := &session{}
		// Over several rounds of the wheel, and in the past.
		want[s] = now.Add(time.Duration(rng.Int64N(int64(400*time.Second))) - time.Second)
		w.arm(s, since(now)) // armed anew below: only the last one counts
		w.arm(s, since(want[s]))
	}
	var due []*session
	for range 5000 {
		arm()
		now = now.Add(time.Duration(rng.Int64N(int64(150 * time.Millisecond))))
		due = w.advance(now, due)
	}
	gone := 0
	for s := range want { // some leave
		if _, ok := fired[s]; !ok && gone < 100 {
			w.disarm(s)
			delete(want, s)
			gone++
		}
	}
	for w.count() > 0 {
		now = now.Add(wheelTick)
		due = w.advance(now, due)
	}
	for s, at := range want {
		late := fired[s].Sub(at)
		if fired[s].IsZero() || late < 0 || late > wheelTick+150*time.Millisecond && at.After(start) && late > 2*time.Second {
			t.Fatalf("an entry for %v fired at %v", at, fired[s])
		}
	}
	if len(fired) != len(want) {
		t.Errorf("%d entries fired, want %d", len(fired), len(want))
	}
}

func TestWheel_AfterALongStopEverythingDueFires(t *testing.T) {
	start := time.Unix(1e9, 0)
	n := 0
	w := newWheel(start, wheelTick, func(*session, time.Time) { n++ })
	for i := range 1000 {
		w.arm(&session{}, moment(i)*moment(time.Second))
	}
	w.advance(start.Add(500*time.Second), nil)
	if n != 501 || w.count() != 499 {
		t.Errorf("%d fired and %d wait, want 501 and 499", n, w.count())
	}
}

func out(id push.MsgID, persistent bool) wire.Out {
	m := &push.Message{ID: id, Persistent: persistent, Body: []byte("1")}
	return wire.Out{Shared: wire.NewShared(m), Slot: push.Own, Pos: push.Position(id)}
}

func TestQueue_KeepsOrderAndCountsWhateverHappens(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var q queue
	var model []wire.Out
	b := &transport.Batch{MaxOuts: 5, MaxSize: 1 << 20}
	for i := range 20000 {
		switch rng.IntN(4) {
		case 0, 1:
			o := out(push.MsgID(i+1), rng.IntN(2) == 0)
			q.push(o)
			model = append(model, o)
		case 2:
			got := q.dropOldestLive() != nil
			at := slices.IndexFunc(model, func(o wire.Out) bool { return !o.Shared.Message().Persistent })
			if got != (at >= 0) {
				t.Fatalf("dropping answered %v with the oldest at %d", got, at)
			}
			if at >= 0 {
				model = slices.Delete(model, at, at+1)
			}
		case 3:
			b.Reset()
			q.take(b)
			n := min(5, len(model))
			if !slices.Equal(b.Outs, model[:n]) {
				t.Fatal("what was taken is not what was queued first")
			}
			model = model[n:]
		}
		bytes := 0
		for i := range model {
			bytes += model[i].Size()
		}
		if q.len() != len(model) || q.bytes() != bytes {
			t.Fatalf("the queue counts %d frames of %d bytes, want %d of %d", q.len(), q.bytes(), len(model), bytes)
		}
		if q.len() == 0 && q.pending != nil {
			t.Fatal("an empty queue holds memory")
		}
	}
}

func TestMailbox_GivesEverythingOnceToManyWorkers(t *testing.T) {
	m := newMailbox[int]()
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan int)
	done := make(chan struct{})
	for range 4 {
		go func() {
			defer func() { done <- struct{}{} }()
			batch := make([]int, 0, 3)
			for {
				batch = m.get(ctx, batch)
				if len(batch) == 0 {
					return
				}
				for _, v := range batch {
					got <- v
				}
			}
		}()
	}
	go func() {
		for i := range 1000 {
			m.put(i)
		}
	}()
	seen := make(map[int]bool)
	for range 1000 {
		v := <-got
		if seen[v] {
			t.Fatalf("%d came twice", v)
		}
		seen[v] = true
	}
	cancel()
	for range 4 {
		<-done
	}
}

func TestBook_CountsAndFindsAfterRandomComingsAndGoings(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	bs := newBook().shard(saver.ShardRef{Product: product, Shard: 1}, shards)
	var in []*session
	users := []push.UserID{"alice", "bob", "cathy"}
	for range 5000 {
		if len(in) == 0 || rng.IntN(2) == 0 {
			u := users[rng.IntN(len(users))]
			s := &session{bookIndex: -1, names: string(u), userEnd: uint16(len(u))}
			bs.add(s)
			in = append(in, s)
		} else {
			i := rng.IntN(len(in))
			bs.remove(in[i])
			bs.remove(in[i]) // a second time does nothing
			in = slices.Delete(in, i, i+1)
		}
		total := 0
		for _, u := range users {
			for _, s := range bs.appendUser(nil, u) {
				if s.user() != u || !slices.Contains(in, s) {
					t.Fatal("the book names a session that is not there")
				}
				total++
			}
		}
		named := bs.appendUsers(nil)
		slices.Sort(named)
		if want := usersOf(in); !slices.Equal(named, want) {
			t.Fatalf("the book names %v, want %v", named, want)
		}
		if total != len(in) || bs.len() != len(in) {
			t.Fatalf("the book holds %d by user and %d in all, want %d", total, bs.len(), len(in))
		}
	}
}

func usersOf(ss []*session) []push.UserID {
	var us []push.UserID
	for _, s := range ss {
		us = append(us, s.user())
	}
	slices.Sort(us)
	return slices.Compact(us)
}

func TestBucket_HoldsWhatComesInASecond(t *testing.T) {
	const rate = 20
	var b bucket
	spendAll := func(now moment) (n int) {
		for b.spend(now, rate) {
			n++
		}
		return n
	}
	second := moment(time.Second)
	for _, c := range []struct {
		now  moment
		want int
	}{{0, rate}, {0, 0}, {second / 2, rate / 2}, {second, rate / 2}, {100 * second, rate}, {100*second + second/rate, 1}} {
		if got := spendAll(c.now); got != c.want {
			t.Errorf("at %v %d frames were let through, want %d", time.Duration(c.now), got, c.want)
		}
	}
}

func TestQueue_HoldsNoFrameThatItDoesNotCount(t *testing.T) {
	var q queue
	for range 2 { // the second one moves the first out of the room that a pending has for one
		q.push(wire.Out{Frame: &wire.Ping{}})
	}
	p := q.pending
	if p.one[0].Frame != nil {
		t.Error("the first frame stands in two places")
	}
	q.drop()
	for i, o := range p.outs[:cap(p.outs)] {
		if o.Frame != nil {
			t.Errorf("frame %d is still held after drop", i)
		}
	}
}
