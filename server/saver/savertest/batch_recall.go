package savertest

import (
	"time"

	"carillon/server/push"
	"carillon/server/saver"
)

func batchRecall(e *env) {
	users := usersIn(3, 4)
	c := e.campaign("m")
	c.fence(1)
	b := c.own(0, users...)
	first := e.batch(b)
	e.send(users[0], "later")
	e.s.Clock.Advance(time.Minute)
	r := e.batch(recallOf(b))
	if r.Found || r.Absent || len(r.Own) != len(users) || r.Common != nil || r.Now != e.s.Clock.Milli() {
		e.Fatalf("recalled %+v", r)
	}
	for i, u := range users {
		if want := saver.HeadOf(ptr(e.state(u, push.Own))); r.Own[i].Place != want || r.Own[i].User != u {
			e.Fatalf("the recall for %s is placed %+v, want %+v", u, r.Own[i], want)
		}
		want := "-m"
		if i == 0 {
			want = "later -m"
		}
		e.wantAll(u, push.Own, want)
	}
	x := e.readAll(readOf(users[1], push.Own, push.Place{}))[0]
	if x.Kind != saver.EntryRecall || x.ID != c.m.ID || x.Expires < c.m.Expires {
		e.Fatalf("the recall is read as %+v", x)
	}
	c.fence(2)
	b.Token = 2
	for range 3 {
		e.s.Clock.Advance(time.Minute)
		if again := e.batch(recallOf(b)); !again.Found || again.Absent || !samePlaces(again.Own, r.Own) {
			e.Fatalf("recalled again: %+v", again)
		}
		// Who did not hear of the recall writes nothing.
		if again := e.batch(b); !again.Found || !samePlaces(again.Own, first.Own) {
			e.Fatalf("written again: %+v", again)
		}
	}
	e.wantAll(users[0], push.Own, "later -m")
	e.wantAll(users[1], push.Own, "-m")
	if s := e.state(users[1], push.Own); s.Head != s.Origin+2 {
		e.Fatalf("%d positions, want 2", s.Head-s.Origin)
	}
}

func batchAbsent(e *env) {
	c := e.campaign("m")
	c.fence(1)
	for _, b := range []*saver.Batch{c.own(0, usersIn(3, 4)...), c.all(1, 3)} {
		for range 2 {
			if r := e.batch(recallOf(b)); !r.Absent || r.Found || r.Own != nil || r.Common != nil {
				e.Fatalf("recalled %+v", r)
			}
		}
		if s := e.state(usersIn(3, 1)[0], push.Own); s.Epoch != 0 {
			e.Fatal("a recall of nothing made a slot")
		}
	}
	if r := e.batchRecords(c, 3, 0, 1); r[0] != nil || r[1] != nil {
		e.Fatalf("records %+v", r)
	}
	// It is not taken back for what comes later: the task's state says that nothing does.
	if r := e.batch(c.own(0, usersIn(3, 4)...)); r.Found {
		e.Fatalf("batched %+v", r)
	}
}

func batchRecallRead(e *env) {
	users := usersIn(1, 2)
	c := e.campaign("m")
	c.fence(1)
	b := c.own(0, users...)
	e.open(users[0], phone)
	at := e.batch(b).Own[0].Place
	e.ackOwn(users[0], phone, at)
	e.wantAll(users[0], push.Own, "")
	e.batch(recallOf(b))
	st := e.open(users[0], phone).Starts[push.Own]
	if st.How != saver.Resumed {
		e.Fatalf("start %+v", st)
	}
	e.wantFrom(users[0], push.Own, st.At, "-m")
	e.wantAll(users[1], push.Own, "-m")
}

func batchRecallLost(e *env) {
	u := usersIn(1, 1)[0]
	c := e.campaign("m")
	c.fence(1)
	b := c.own(0, u)
	was := e.batch(b).Own[0].Place
	e.s.LoseSlot(e.T, ref(u), push.Own)
	if at := e.send(u, "other"); at.Pos != was.Pos {
		e.Fatalf("the new entry lies at %d, want %d", at.Pos, was.Pos)
	}
	e.batch(recallOf(b))
	e.wantAll(u, push.Own, "other -m")
}

func batchRecallEveryone(e *env) {
	c := e.campaign("m")
	c.fence(1)
	f := &push.Filter{Platforms: push.PlatformSet(0).Add(push.PlatformTV), Tags: having("vip")}
	for s := range push.Shard(Shards) {
		b := c.all(0, s)
		b.Filter = f
		e.batch(b)
		r := e.batch(recallOf(b))
		if r.Found || r.Own != nil || len(r.Common) != 1 || r.Common[0].Shard != s || !r.Common[0].Filter.Equal(f) {
			e.Fatalf("recalled %+v", r)
		}
		if again := e.batch(recallOf(b)); !again.Found || !samePlaces(again.Common, r.Common) {
			e.Fatalf("recalled %+v, before %+v", again, r)
		}
	}
	for _, u := range usersOfShards() {
		e.wantAll(u, push.Common, "-m")
		if x := e.readAll(readOf(u, push.Common, push.Place{}))[0]; !x.Filter.Equal(f) {
			e.Fatalf("the recall has filter %+v", x.Filter)
		}
	}
}

func batchRecallFilters(e *env) {
	users := usersIn(1, 3)
	c := e.campaign("m")
	c.fence(1)
	b := c.own(0, users...)
	b.Own[1].Filter = &push.Filter{Classes: []string{"tv"}}
	b.Bodies = [][]byte{[]byte(`"m"`), make([]byte, 2000), []byte(`"m"`)}
	e.batch(b)
	r := e.batch(recallOf(b))
	for i, u := range users {
		e.wantAll(u, push.Own, "-m")
		if x := e.readAll(readOf(u, push.Own, push.Place{}))[0]; !x.Filter.Equal(b.Own[i].Filter) || !r.Own[i].Filter.Equal(b.Own[i].Filter) {
			e.Fatalf("the recall for %s has filter %+v, and is answered with %+v", u, x.Filter, r.Own[i].Filter)
		}
	}
}
