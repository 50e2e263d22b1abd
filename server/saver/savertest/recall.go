package savertest

import (
	"fmt"
	"reflect"
	"sync"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
)

var recallCases = []testCase{
	{name: "LeavesAHoleAndAppends", run: recallOnce},
	{name: "TwiceAppendsNothing", run: recallTwice},
	{name: "ManyAtOnceAppendOne", run: recallAtOnce},
	{name: "UnknownIsNotFound", run: recallUnknown},
	{name: "ManyUsers", run: recallMany},
	{name: "Everyone", run: recallEveryone},
	{name: "ReachesThoseWhoReadIt", run: recallAfterRead},
	{name: "OfWhatIsAHoleAlready", run: recallOfHole},
	{name: "OutlivesAShortMessage", run: recallShort},
	{name: "RacesWithPublish", run: recallRace},
	{name: "SurvivesReopening", needs: canReopen, run: recallReopen},
}

func recallOnce(e *env) {
	f := &push.Filter{Devices: []push.DeviceID{phone}}
	p := e.to("b", alice)
	p.Own[0].Filter = f
	e.send(alice, "a")
	orig := e.publish(p)
	last := e.send(alice, "c")
	e.s.Clock.Advance(time.Minute)
	r := e.recall(p.Message.ID)
	want := last
	want.Pos++
	if !r.First || len(r.Own) != 1 || r.Common != nil || r.Own[0].User != alice || r.Own[0].Place != want ||
		!r.Own[0].Filter.Equal(f) || r.Own[0].Shard != ref(alice).Shard().Shard || r.Lineage != e.lineage() || r.Now != e.s.Clock.Milli() {
		e.Fatalf("recalled %+v, want an entry at %+v", r, want)
	}
	if m := r.Message; m == nil || m.ID != p.Message.ID || m.Body != nil || m.Expires != orig.Message.Expires {
		e.Fatalf("recalled message %+v", r.Message)
	}
	e.wantAll(alice, push.Own, "a c -b")
	entries := e.readAll(readOf(alice, push.Own, last))
	if x := entries[0]; x.Kind != saver.EntryRecall || x.ID != p.Message.ID || x.Message != nil || x.Lost ||
		!x.Filter.Equal(f) || x.Expires < orig.Message.Expires {
		e.Fatalf("the recall is read as %+v", x)
	}
	if s := e.state(alice, push.Own); s.Floor != 0 || s.Head != want.Pos {
		e.Fatalf("state %+v", s)
	}
}

func recallTwice(e *env) {
	for _, p := range []*saver.Publication{e.to("one", alice), e.to("many", alice, bob), e.everyone("all")} {
		id := e.publish(p).Message.ID
		first := e.recall(id)
		e.s.Clock.Advance(time.Minute)
		for range 3 {
			again := e.recall(id)
			if again.First {
				e.Fatal("a second recall counts as the first")
			}
			if !samePlaces(again.Own, first.Own) || !samePlaces(again.Common, first.Common) || again.Message.ID != id {
				e.Fatalf("recalled %+v, before %+v", again, first)
			}
		}
	}
	e.wantAll(alice, push.Own, "-one -many")
	e.wantAll(alice, push.Common, "-all")
}

// samePlaces compares everything but rooms.
func samePlaces(a, b []saver.Placed) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].User != b[i].User || a[i].Shard != b[i].Shard || a[i].Place != b[i].Place {
			return false
		}
	}
	return true
}

func recallAtOnce(e *env) {
	const n = 20
	users := usersOfShards()
	for i := range 500 { // many, so that the first is not done when the others come
		users = append(users, push.UserID(fmt.Sprint("more", i)))
	}
	id := e.publish(e.to("m", users...)).Message.ID
	rs, errs := make([]saver.Recalled, n), make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			rs[i], errs[i] = e.s.Store.Recall(e.ctx, e.recalling(id))
		})
	}
	close(start)
	wg.Wait()
	firsts := 0
	for i := range rs {
		if errs[i] != nil {
			e.Fatal(errs[i])
		}
		if rs[i].First {
			firsts++
		}
		if !samePlaces(rs[i].Own, rs[0].Own) {
			e.Fatal("recalls were answered differently")
		}
	}
	if firsts != 1 {
		e.Fatalf("%d recalls count as the first", firsts)
	}
	for _, u := range users {
		e.wantAll(u, push.Own, "-m")
	}
}

func recallUnknown(e *env) {
	e.send(alice, "m")
	_, err := e.s.Store.Recall(e.ctx, e.recalling(e.lastID+1))
	e.wantKind("recall of an unknown message", err, push.KindNotFound)
	r := e.recalling(e.lastID)
	r.Product = forum
	_, err = e.s.Store.Recall(e.ctx, r)
	e.wantKind("recall of another product's message", err, push.KindNotFound)
	p := e.to("short", alice)
	p.TTL = time.Minute
	e.publish(p)
	e.s.Clock.Advance(time.Minute + saver.RecordKept)
	_, err = e.s.Store.Recall(e.ctx, e.recalling(p.Message.ID))
	e.wantKind("recall of a message long expired", err, push.KindNotFound)
	e.wantAll(alice, push.Own, "m")
}

func recallMany(e *env) {
	users := usersOfShards()
	p := e.to("m", users...)
	p.Own[3].Filter = &push.Filter{Classes: []string{"tv"}}
	orig := e.publish(p)
	e.send(users[0], "later")
	r := e.recall(p.Message.ID)
	for i, u := range users {
		want := orig.Own[i].Place
		want.Pos++
		if i == 0 {
			want.Pos++
		}
		if pl := r.Own[i]; pl.User != u || pl.Place != want {
			e.Fatalf("the recall for %s lies at %+v, want %+v", u, pl, want)
		}
		show := "-m"
		if i == 0 {
			show = "later -m"
		}
		e.wantAll(u, push.Own, show)
		entries := e.readAll(readOf(u, push.Own, push.Place{}))
		if x := entries[len(entries)-1]; !x.Filter.Equal(p.Own[i].Filter) {
			e.Fatalf("the recall for %s has filter %+v", u, x.Filter)
		}
	}
}

func recallEveryone(e *env) {
	p := e.everyone("m")
	p.Filter = &push.Filter{Platforms: push.PlatformSet(0).Add(push.PlatformTV), Tags: having("vip")}
	orig := e.publish(p)
	r := e.recall(p.Message.ID)
	if len(r.Common) != Shards || r.Own != nil || !r.First {
		e.Fatalf("recalled %+v", r)
	}
	for i, u := range usersOfShards() {
		want := orig.Common[i].Place
		want.Pos++
		if pl := r.Common[i]; pl.Shard != push.Shard(i) || pl.Place != want || !pl.Filter.Equal(p.Filter) {
			e.Fatalf("shard %d: %+v, want %+v", i, pl, want)
		}
		e.wantAll(u, push.Common, "-m")
		if x := e.readAll(readOf(u, push.Common, push.Place{}))[0]; !x.Filter.Equal(p.Filter) {
			e.Fatalf("the recall has filter %+v", x.Filter)
		}
	}
}

func recallAfterRead(e *env) {
	e.open(alice, phone)
	at := e.send(alice, "m")
	e.ackOwn(alice, phone, at)
	e.recall(e.byName["m"])
	st := e.open(alice, phone).Starts[push.Own]
	if st.How != saver.Resumed {
		e.Fatalf("start %+v", st)
	}
	e.wantFrom(alice, push.Own, st.At, "-m")
}

func recallOfHole(e *env) {
	e.limits.OwnMessages = 3
	a := e.to("a", alice)
	a.Message.CollapseKey = "k"
	e.publish(a)
	b := e.to("b", alice)
	b.Message.CollapseKey = "k"
	e.publish(b)
	e.recall(a.Message.ID) // was collapsed
	e.wantAll(alice, push.Own, "b -a")
	e.sendAll(alice, "c", "d", "e")
	r := e.recall(b.Message.ID) // was dropped
	e.wantAll(alice, push.Own, "d e -b")
	if s := e.state(alice, push.Own); r.Own[0].Place.Pos != s.Head {
		e.Fatalf("the recall lies at %d, the head is %d", r.Own[0].Place.Pos, s.Head)
	}
}

func recallShort(e *env) {
	p := e.to("m", alice)
	p.TTL = time.Second
	at := e.publish(p).Own[0].Place
	e.recall(p.Message.ID)
	e.s.Clock.Advance(time.Minute)
	e.sweep()
	e.wantFrom(alice, push.Own, at, "-m")
	e.s.Clock.Advance(saver.RecordKept)
	e.wantFrom(alice, push.Own, at, "")
}

func recallRace(e *env) {
	const n = 30
	ps := make([]*saver.Publication, n)
	for i, l := range labelled("m", n) {
		ps[i] = e.to(l, alice, bob)
	}
	ids := make(chan push.MsgID, n)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(ids)
		for _, p := range ps {
			if r := e.s.Store.Publish(e.ctx, []*saver.Publication{p})[0]; r.Err != nil {
				e.Errorf("Publish: %v", r.Err)
			}
			ids <- p.Message.ID
		}
	})
	wg.Go(func() {
		for id := range ids {
			if _, err := e.s.Store.Recall(e.ctx, e.recalling(id)); err != nil {
				e.Errorf("Recall: %v", err)
			}
		}
	})
	wg.Wait()
	for _, u := range []push.UserID{alice, bob} {
		entries := e.readAll(readOf(u, push.Own, push.Place{}))
		if len(entries) != n {
			e.Fatalf("%d entries, want the %d recalls", len(entries), n)
		}
		for i, x := range entries {
			if x.Kind != saver.EntryRecall || x.ID != ps[i].Message.ID {
				e.Fatalf("entry %d is %+v", i, x)
			}
		}
		if s := e.state(u, push.Own); s.Head != s.Origin+2*n {
			e.Fatalf("%d positions were taken, want %d", s.Head-s.Origin, 2*n)
		}
	}
}

func recallReopen(e *env) {
	id := e.publish(e.to("m", alice, bob)).Message.ID
	e.s.Store = e.s.Reopen(e.T)
	first := e.recall(id)
	e.s.Store = e.s.Reopen(e.T)
	again := e.recall(id)
	if !first.First || again.First || !reflect.DeepEqual(first.Own[0].Place, again.Own[0].Place) {
		e.Fatalf("recalled %+v, then %+v", first, again)
	}
	e.wantAll(alice, push.Own, "-m")
}
