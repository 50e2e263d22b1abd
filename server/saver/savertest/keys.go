package savertest

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
)

var keyCases = []testCase{
	{name: "RepeatIsAnsweredAsTheFirst", run: keyRepeat},
	{name: "OtherDigestIsRefused", run: keyOtherDigest},
	{name: "FiftyAtOnceStoreOne", run: keyFiftyAtOnce},
	{name: "RaceOfTwoRequestsHasOneWinner", run: keyRace},
	{name: "IsOfItsProduct", run: keyProduct},
	{name: "IsForgottenAfterItsTime", run: keyForgotten},
	{name: "ManyUsersAndEveryone", run: keyManyUsers},
	{name: "TwiceInOneCall", run: keyTwiceInOneCall},
	{name: "OutlivesItsMessage", run: keyOutlives},
	{name: "OfFoundUsersTheFirstCount", run: keyFound},
	{name: "AnyBytes", run: keyAnyBytes},
	{name: "SurvivesReopening", needs: canReopen, run: keyReopen},
}

func (e *env) keyed(label string, key saver.IdempotencyKey, digest byte, users ...push.UserID) *saver.Publication {
	p := e.to(label, users...)
	p.Key, p.Digest = key, saver.Digest{digest}
	return p
}

// wantRepeat checks the answer to a repeat of first.
func (e *env) wantRepeat(r saver.Published, first *push.Message) {
	e.Helper()
	if r.Err != nil {
		e.Fatalf("a repeat failed: %v", r.Err)
	}
	if !r.Repeated || r.Own != nil || r.Common != nil {
		e.Fatalf("a repeat was answered %+v", r)
	}
	m := r.Message
	if m.ID != first.ID || m.Created != first.Created || m.Expires != first.Expires ||
		m.Persistent != first.Persistent || m.Body != nil {
		e.Fatalf("a repeat was answered with %+v, the first with %+v", m, first)
	}
}

func keyRepeat(e *env) {
	first := e.publish(e.keyed("m", "k", 1, alice))
	if first.Repeated {
		e.Fatal("the first request counts as a repeat")
	}
	for range 3 {
		e.s.Clock.Advance(time.Minute)
		e.wantRepeat(e.publish(e.keyed("m", "k", 1, alice)), first.Message)
	}
	if s := e.state(alice, push.Own); s.Head != s.Origin+1 {
		e.Fatalf("%d entries, want one", s.Head-s.Origin)
	}
}

func keyOtherDigest(e *env) {
	first := e.publish(e.keyed("m", "k", 1, alice))
	e.wantKind("another digest", e.try(e.keyed("n", "k", 2, alice)).Err, push.KindKeyReused)
	e.wantRepeat(e.publish(e.keyed("m", "k", 1, alice)), first.Message)
	e.byName["m"] = first.Message.ID
	if got := len(e.readAll(readOf(alice, push.Own, push.Place{}))); got != 1 {
		e.Fatalf("%d entries, want one", got)
	}
}

// keyFiftyAtOnce also sends to many, so that the first is still being stored when the others come.
func keyFiftyAtOnce(e *env) {
	const n = 50
	many := []push.UserID{alice, bob}
	for i := range 1000 {
		many = append(many, push.UserID(fmt.Sprint("user", i)))
	}
	for round, users := range [][]push.UserID{{alice}, many, many[:200], nil, many} {
		key := saver.IdempotencyKey(fmt.Sprint("k", round))
		rs := e.atOnce(n, func(i int) *saver.Publication {
			p := e.keyed(fmt.Sprintf("m%d-%d", round, i), key, 1, users...)
			p.Everyone = users == nil
			return p
		})
		first := e.oneFirst(rs)
		for _, r := range rs {
			if r.Repeated {
				e.wantRepeat(r, first)
			}
		}
		k := push.Own
		if users == nil {
			k = push.Common
		}
		all := e.readAll(readOf(alice, k, push.Place{}))
		if x := all[len(all)-1]; x.ID != first.ID {
			e.Fatalf("round %d: message %d was stored last, %d was answered", round, x.ID, first.ID)
		}
	}
	for k, want := range []push.Position{4, 1} {
		if s := e.state(alice, push.SlotKind(k)); s.Head != s.Origin+want {
			e.Fatalf("%d entries in slot %d, want %d", s.Head-s.Origin, k, want)
		}
	}
}

// oneFirst returns the message of the only result that is not a repeat.
func (e *env) oneFirst(rs []saver.Published) (first *push.Message) {
	e.Helper()
	for _, r := range rs {
		switch {
		case r.Err != nil:
			e.Fatal(r.Err)
		case !r.Repeated && first != nil:
			e.Fatalf("messages %d and %d were stored under one key", first.ID, r.Message.ID)
		case !r.Repeated:
			first = r.Message
		}
	}
	if first == nil {
		e.Fatal("every request counts as a repeat")
	}
	return first
}

// atOnce publishes n publications, each by a goroutine of its own; they start together.
func (e *env) atOnce(n int, p func(i int) *saver.Publication) []saver.Published {
	ps, rs := make([]*saver.Publication, n), make([]saver.Published, n)
	for i := range ps {
		ps[i] = p(i)
	}
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range ps {
		wg.Go(func() {
			<-start
			rs[i] = e.s.Store.Publish(e.ctx, ps[i:i+1])[0]
		})
	}
	close(start)
	wg.Wait()
	return rs
}

func keyRace(e *env) {
	for round := range 10 {
		key := saver.IdempotencyKey(fmt.Sprint("k", round))
		rs := e.atOnce(2, func(i int) *saver.Publication { return e.keyed(fmt.Sprintf("m%d-%d", round, i), key, byte(i), alice) })
		won := 0
		for _, r := range rs {
			if r.Err == nil && !r.Repeated {
				won++
			} else {
				e.wantKind("the loser", r.Err, push.KindKeyReused)
			}
		}
		if won != 1 {
			e.Fatalf("%d requests won", won)
		}
	}
	if s := e.state(alice, push.Own); s.Head != s.Origin+10 {
		e.Fatalf("%d entries, want 10", s.Head-s.Origin)
	}
}

func keyProduct(e *env) {
	e.publish(e.keyed("m", "k", 1, alice))
	p := e.keyed("n", "k", 2, alice)
	p.Product = forum
	if r := e.publish(p); r.Repeated {
		e.Fatal("a key of another product was taken for a repeat")
	}
}

func keyForgotten(e *env) {
	for _, ttl := range []time.Duration{time.Minute, time.Hour, 24 * time.Hour} {
		e.limits.KeyTTL = ttl
		key := saver.IdempotencyKey(ttl.String())
		first := e.publish(e.keyed(ttl.String(), key, 1, alice))
		step := ttl / 4
		for range 3 {
			e.s.Clock.Advance(step)
			e.sweep()
			e.wantRepeat(e.publish(e.keyed("repeat", key, 1, alice)), first.Message)
		}
		e.s.Clock.Advance(ttl - 3*step - time.Millisecond)
		e.sweep()
		e.wantRepeat(e.publish(e.keyed("repeat", key, 1, alice)), first.Message)
		e.s.Clock.Advance(time.Millisecond)
		if r := e.publish(e.keyed("new "+ttl.String(), key, 2, alice)); r.Repeated {
			e.Fatalf("a key was remembered for longer than %v", ttl)
		}
		e.sweep()
		e.wantKind("the key's second life", e.try(e.keyed("x", key, 1, alice)).Err, push.KindKeyReused)
	}
}

func keyManyUsers(e *env) {
	users := usersOfShards()
	first := e.publish(e.keyed("m", "many", 1, users...))
	e.wantRepeat(e.publish(e.keyed("m2", "many", 1, users...)), first.Message)
	all := func(label string) *saver.Publication {
		p := e.everyone(label)
		p.Key, p.Digest = "all", saver.Digest{9}
		return p
	}
	bcast := e.publish(all("b"))
	e.wantRepeat(e.publish(all("b2")), bcast.Message)
	for _, u := range users {
		e.wantAll(u, push.Own, "m")
		e.wantAll(u, push.Common, "b")
	}
}

func keyTwiceInOneCall(e *env) {
	rs := e.s.Store.Publish(e.ctx, []*saver.Publication{
		e.keyed("a", "k", 1, alice), e.to("b", alice), e.keyed("c", "k", 1, alice), e.keyed("d", "k", 2, alice),
	})
	if rs[0].Err != nil || rs[0].Repeated || rs[1].Err != nil {
		e.Fatalf("results %+v and %+v", rs[0], rs[1])
	}
	e.wantRepeat(rs[2], rs[0].Message)
	e.wantKind("another digest", rs[3].Err, push.KindKeyReused)
	e.wantAll(alice, push.Own, "a b")
}

func keyOutlives(e *env) {
	p := e.keyed("short", "k1", 1, alice)
	p.TTL = time.Second
	short := e.publish(p)
	gone := e.publish(e.keyed("recalled", "k2", 1, alice))
	e.recall(gone.Message.ID)
	e.s.Clock.Advance(time.Minute)
	e.sweep()
	e.wantRepeat(e.publish(e.keyed("x", "k1", 1, alice)), short.Message)
	e.wantRepeat(e.publish(e.keyed("y", "k2", 1, alice)), gone.Message)
}

func keyAnyBytes(e *env) {
	keys := []saver.IdempotencyKey{
		"a", "a:", "a:b", ":a", "{a}", "a}", "a\x00", "a\x00b", "\x00", "\xff\xff", "/", "%00", "ä",
		saver.IdempotencyKey(strings.Repeat("k", 255)), saver.IdempotencyKey(strings.Repeat("k", 254)),
	}
	for _, k := range keys {
		if r := e.publish(e.keyed("m"+string(k), k, 1, alice)); r.Repeated {
			e.Fatalf("key %q was taken for another", k)
		}
	}
	for _, k := range keys {
		if r := e.publish(e.keyed("n", k, 1, alice)); !r.Repeated {
			e.Fatalf("key %q was forgotten", k)
		}
	}
}

func keyReopen(e *env) {
	first := e.publish(e.keyed("m", "k", 1, alice))
	e.s.Store = e.s.Reopen(e.T)
	e.wantRepeat(e.publish(e.keyed("m", "k", 1, alice)), first.Message)
	e.wantKind("another digest", e.try(e.keyed("n", "k", 2, alice)).Err, push.KindKeyReused)
}

// keyFound: whoever was found first has the message, also if it was nobody, and is on record.
func keyFound(e *env) {
	found := func(key saver.IdempotencyKey, users ...push.UserID) saver.Published {
		p := e.keyed("m", key, 1, users...)
		p.Found = true
		return e.publish(p)
	}
	everyone := func(key saver.IdempotencyKey) saver.Published {
		p := e.everyone("m")
		p.Key, p.Digest, p.Found = key, saver.Digest{1}, true
		return e.publish(p)
	}
	for i, users := range [][]push.UserID{nil, {alice}, {alice, bob}} {
		key := saver.IdempotencyKey(fmt.Sprint("k", i))
		first := found(key, users...)
		if first.Repeated || len(first.Own) != len(users) {
			e.Fatalf("%d: %+v", i, first)
		}
		e.wantRepeat(found(key, cathy), first.Message)
		e.wantRepeat(found(key), first.Message)
		e.wantRepeat(everyone(key), first.Message)
		rec := e.record(first.Message.ID)
		if rec.Everyone || len(rec.Own) != len(users) {
			e.Fatalf("%d: on record for %+v", i, rec)
		}
		if r := e.recall(first.Message.ID); !r.First || len(r.Own) != len(users) {
			e.Fatalf("%d: recalled from %+v", i, r)
		}
		if r := e.recall(first.Message.ID); r.First {
			e.Fatalf("%d: it was recalled twice", i)
		}
	}
	for u, want := range map[push.UserID]push.Position{alice: 4, bob: 2, cathy: 0} {
		if s := e.state(u, push.Own); s.Head-s.Origin != want {
			e.Errorf("%s got %d entries, want %d", u, s.Head-s.Origin, want)
		}
	}
	if s := e.state(cathy, push.Common); s.Head != s.Origin {
		e.Errorf("everyone got it")
	}
}
