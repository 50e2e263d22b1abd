package savertest

import (
	"fmt"
	"reflect"
	"slices"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
)

var changeCases = []testCase{
	{name: "ToldToTheRoomsOfAUser", run: changesRooms},
	{name: "NextContinues", run: changesNext},
	{name: "RecallsAreLogged", run: changesRecalls},
	{name: "CommonHeadIsTold", run: changesCommon},
	{name: "OverflowIsTrimmed", run: changesOverflow},
	{name: "PointOfAnotherLifeIsTrimmed", run: changesOtherPoint},
	{name: "FallingBackTrims", needs: canMark, run: changesFallBack},
	{name: "ReopeningTrims", needs: canReopen, run: changesReopen},
	{name: "ManyQueriesInOneCall", run: changesMany},
	{name: "Heads", run: changesHeads},
}

func (e *env) changes(room push.RoomID, s saver.ShardRef, after uint64) saver.ChangeLog {
	e.Helper()
	ls, err := e.s.Store.Changes(e.ctx, room, []saver.ChangeQuery{{ShardRef: s, After: after}})
	if err != nil {
		e.Fatalf("Changes: %v", err)
	}
	if len(ls) != 1 {
		e.Fatalf("%d logs for one query", len(ls))
	}
	if ls[0].Lineage != e.lineage() {
		e.Fatalf("a log of lineage %d, the store is of %d", ls[0].Lineage, e.lineage())
	}
	return ls[0]
}

func (e *env) wantChanges(l saver.ChangeLog, want ...saver.Change) {
	e.Helper()
	if l.Trimmed || len(l.Own) != len(want) || len(want) > 0 && !reflect.DeepEqual(l.Own, want) {
		e.Fatalf("trimmed %v, changes %+v, want %+v", l.Trimmed, l.Own, want)
	}
}

func changesRooms(e *env) {
	users := usersOfShards()[:3]
	e.s.Locator.SetRooms(shop, users[0], "r1")
	e.s.Locator.SetRooms(shop, users[1], "r2", "r1")
	e.s.Locator.SetRooms(forum, users[2], "r1")
	r := e.publish(e.to("m", users...))
	change := func(i int) saver.Change { return saver.Change{User: users[i], Place: r.Own[i].Place} }
	e.wantChanges(e.changes("r1", ref(users[0]).Shard(), 0), change(0))
	e.wantChanges(e.changes("r1", ref(users[1]).Shard(), 0), change(1))
	e.wantChanges(e.changes("r1", ref(users[2]).Shard(), 0))
	e.wantChanges(e.changes("r2", ref(users[0]).Shard(), 0))
	e.wantChanges(e.changes("r2", ref(users[1]).Shard(), 0), change(1))
	e.wantChanges(e.changes("r3", ref(users[1]).Shard(), 0))
	e.wantChanges(e.changes("r1", saver.ShardRef{Product: forum, Shard: ref(users[0]).Shard().Shard}, 0))
}

func changesNext(e *env) {
	sh := ref(alice).Shard()
	e.s.Locator.SetRooms(shop, alice, "r1")
	l := e.changes("r1", sh, 0)
	e.wantChanges(l)
	if again := e.changes("r1", sh, l.Next); again.Next != l.Next || l.Next == 0 {
		e.Fatalf("next %d, then %d", l.Next, again.Next)
	}
	for i := range 5 {
		var want []saver.Change
		for j := range i {
			want = append(want, saver.Change{User: alice, Place: e.send(alice, fmt.Sprint("m", i, j))})
		}
		e.send(bob, fmt.Sprint("b", i)) // is in no room
		p := e.to(fmt.Sprint("n", i), alice)
		p.Message.Persistent = false
		e.publish(p)
		e.publish(e.everyone(fmt.Sprint("e", i)))
		e.wantChanges(e.changes("r1", sh, l.Next), want...) // asking again changes nothing
		next := e.changes("r1", sh, l.Next)
		e.wantChanges(next, want...)
		if next.Next < l.Next || i > 0 && next.Next == l.Next {
			e.Fatalf("next %d after %d", next.Next, l.Next)
		}
		l = next
	}
}

func changesRecalls(e *env) {
	e.s.Locator.SetRooms(shop, alice, "r1")
	id := e.publish(e.to("m", alice, bob)).Message.ID
	l := e.changes("r1", ref(alice).Shard(), 0)
	r := e.recall(id)
	e.recall(id)
	e.wantChanges(e.changes("r1", ref(alice).Shard(), l.Next), saver.Change{User: alice, Place: r.Own[0].Place})
}

func changesCommon(e *env) {
	sh := ref(alice).Shard()
	if l := e.changes("r1", sh, 0); !l.Common.IsZero() {
		e.Fatalf("the head of no slot is %+v", l.Common)
	}
	for _, l := range labelled("m", 3) {
		want := e.publish(e.everyone(l)).Common[sh.Shard].Place
		if l := e.changes("r1", sh, 0); l.Common != want || len(l.Own) != 0 {
			e.Fatalf("log %+v, want the common head at %+v", l, want)
		}
	}
	want := e.recall(e.byName["m2"]).Common[sh.Shard].Place
	if l := e.changes("r1", sh, 0); l.Common != want {
		e.Fatalf("the common head is %+v, want %+v", l.Common, want)
	}
}

func changesOverflow(e *env) {
	sh := ref(alice).Shard()
	e.s.Locator.SetRooms(shop, alice, "r1")
	start := e.changes("r1", sh, 0)
	first := e.send(alice, "first")
	e.wantChanges(e.changes("r1", sh, start.Next), saver.Change{User: alice, Place: first})
	batch := make([]*saver.Publication, 0, 500)
	for i := range saver.ChangesKept {
		batch = append(batch, e.to(fmt.Sprint("m", i), alice))
		if len(batch) == cap(batch) || i == saver.ChangesKept-1 {
			for _, r := range e.s.Store.Publish(e.ctx, batch) {
				if r.Err != nil {
					e.Fatal(r.Err)
				}
			}
			batch = batch[:0]
		}
	}
	for _, after := range []uint64{0, start.Next} {
		l := e.changes("r1", sh, after)
		if !l.Trimmed {
			e.Fatalf("a log of %d changes after %d is not trimmed", len(l.Own), after)
		}
		e.wantChanges(e.changes("r1", sh, l.Next))
		at := e.send(alice, fmt.Sprint("after", after))
		e.wantChanges(e.changes("r1", sh, l.Next), saver.Change{User: alice, Place: at})
	}
}

func changesOtherPoint(e *env) {
	sh := ref(alice).Shard()
	e.s.Locator.SetRooms(shop, alice, "r1")
	at := e.send(alice, "m")
	l := e.changes("r1", sh, 0)
	for _, after := range []uint64{1, 1000, l.Next + 1, l.Next + 1000, 1<<64 - 1} {
		got := e.changes("r1", sh, after)
		if !got.Trimmed || !slices.Contains(got.Own, saver.Change{User: alice, Place: at}) {
			e.Fatalf("a point of another log, %d, is answered %+v", after, got)
		}
		e.wantChanges(e.changes("r1", sh, got.Next))
	}
}

func changesFallBack(e *env) {
	sh := ref(alice).Shard()
	e.s.Locator.SetRooms(shop, alice, "r1")
	e.send(alice, "a")
	back := e.mark()
	e.send(alice, "b")
	l := e.changes("r1", sh, 0)
	back()
	e.send(alice, "c")
	got := e.changes("r1", sh, l.Next)
	if !got.Trimmed {
		e.Fatalf("after falling back the log is %+v", got)
	}
	l = e.changes("r1", sh, got.Next)
	if l.Trimmed || len(l.Own) != 0 {
		e.Fatalf("the log goes on with %+v", l)
	}
	back = e.mark()
	e.send(alice, "d")
	back() // to what the log was when it was asked
	if got := e.changes("r1", sh, l.Next); !got.Trimmed {
		e.Fatalf("after falling back to what was read the log is %+v", got)
	}
}

func changesReopen(e *env) {
	sh := ref(alice).Shard()
	e.s.Locator.SetRooms(shop, alice, "r1")
	e.send(alice, "a")
	l := e.changes("r1", sh, 0)
	e.s.Store = e.s.Reopen(e.T)
	if got := e.changes("r1", sh, l.Next); !got.Trimmed {
		e.Fatalf("after reopening the log is %+v", got)
	}
}

func changesMany(e *env) {
	users := usersOfShards()
	var qs []saver.ChangeQuery
	for _, u := range users {
		e.s.Locator.SetRooms(shop, u, "r1")
		qs = append(qs, saver.ChangeQuery{ShardRef: ref(u).Shard()})
	}
	r := e.publish(e.to("m", users...))
	ls, err := e.s.Store.Changes(e.ctx, "r1", qs)
	if err != nil || len(ls) != len(qs) {
		e.Fatalf("%d logs, %v", len(ls), err)
	}
	for i, l := range ls {
		e.wantChanges(l, saver.Change{User: users[i], Place: r.Own[i].Place})
	}
	if ls, err := e.s.Store.Changes(e.ctx, "r1", nil); err != nil || len(ls) != 0 {
		e.Fatalf("%d logs for no query, %v", len(ls), err)
	}
}

func changesHeads(e *env) {
	// Users of one shard, of whom every third has a slot.
	var users []push.UserID
	want := []push.Place{}
	sh := ref(alice).Shard()
	for i := 0; len(users) < 9; i++ {
		u := push.UserID(fmt.Sprint("u", i))
		if ref(u).Shard() != sh {
			continue
		}
		var at push.Place
		if len(users)%3 == 0 {
			at = e.sendAll(u, labelled(string(u)+"-", len(users)+1)...)
		}
		users, want = append(users, u), append(want, at)
	}
	e.s.Clock.Advance(time.Hour)
	for range 2 {
		got, err := e.s.Store.Heads(e.ctx, sh, users)
		if err != nil || !slices.Equal(got, want) {
			e.Fatalf("heads %+v, %v; want %+v", got, err, want)
		}
		slices.Reverse(users)
		slices.Reverse(want)
	}
	e.open(users[0], phone) // makes a slot, and notes nothing in one that is there
	got, err := e.s.Store.Heads(e.ctx, sh, users[:1])
	if s := e.state(users[0], push.Own); err != nil || got[0] != saver.HeadOf(&s) {
		e.Fatalf("head %+v, %v; the slot is %+v", got, err, s)
	}
	got, err = e.s.Store.Heads(e.ctx, saver.ShardRef{Product: forum, Shard: sh.Shard}, users)
	if err != nil || !slices.Equal(got, make([]push.Place, len(users))) {
		e.Fatalf("heads of another product's users are %+v, %v", got, err)
	}
}
