package savertest

import (
	"bytes"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
)

var publishCases = []testCase{
	{name: "PositionsRiseByOneWithEveryAppend", run: positionsRise},
	{name: "SlotBeginsAtItsFirstPosition", run: slotBegins},
	{name: "OrderOfOneCallIsKept", run: orderOfOneCall},
	{name: "ConcurrentPublishersShareOneOrder", run: concurrentPublishers},
	{name: "ConcurrentPublicationsToManyUsersDoNotDeadlock", run: concurrentMany},
	{name: "ManyUsersAllHaveIt", run: manyUsers},
	{name: "EveryoneIsOneEntryAShard", run: everyoneIsOneEntryAShard},
	{name: "MessageIsStampedAndWhole", run: stamped},
	{name: "NonPersistentIsNotStored", run: nonPersistent},
	{name: "FiltersComeBack", run: filtersComeBack},
	{name: "TooLargeIsInNoSlot", run: tooLarge},
	{name: "InvalidIsRefused", run: invalid},
	{name: "OneBadPublicationDoesNotSpoilOthers", run: oneBad},
	{name: "RoomsAreNamed", run: roomsNamed},
	{name: "RoomsAreAskedForOnceStored", needs: asks, run: roomsAskedOnceStored},
}

func positionsRise(e *env) {
	first := e.send(alice, "a")
	r := e.publish(e.to("b", alice))
	places := []push.Place{first, r.Own[0].Place}
	p := e.to("c", alice)
	p.Message.CollapseKey = "k"
	places = append(places, e.publish(p).Own[0].Place)
	p = e.to("d", alice)
	p.Message.CollapseKey = "k"
	places = append(places, e.publish(p).Own[0].Place)
	places = append(places, e.recall(e.byName["a"]).Own[0].Place)
	places = append(places, e.send(alice, "e"))
	for i, at := range places {
		want := push.Place{Epoch: first.Epoch, Lineage: e.lineage(), Pos: first.Pos + push.Position(i)}
		if at != want {
			e.Fatalf("append %d lies at %+v, want %+v", i, at, want)
		}
	}
	if r.Lineage != e.lineage() || r.Now != e.s.Clock.Milli() {
		e.Fatalf("the answer is of lineage %d at %d", r.Lineage, r.Now)
	}
	e.wantAll(alice, push.Own, "b d -a e")
}

func slotBegins(e *env) {
	origin := push.FirstPosition(e.s.Clock.Milli())
	at := e.send(alice, "a")
	if at.Pos != origin+1 || at.Epoch == 0 || at.Epoch >= 1<<63 {
		e.Fatalf("the first entry lies at %+v, want position %d and an epoch from 1 to 2^63-1", at, origin+1)
	}
	got, want := e.state(alice, push.Own), push.SlotState{
		Epoch: at.Epoch, Head: origin + 1, Origin: origin,
		Notes: []push.Note{{Lineage: e.lineage(), Start: origin, At: e.s.Clock.Milli()}},
	}
	if !reflect.DeepEqual(got, want) {
		e.Fatalf("state %+v, want %+v", got, want)
	}
	e.s.Clock.Advance(time.Minute)
	if other := e.send(bob, "b"); other.Pos != push.FirstPosition(e.s.Clock.Milli())+1 || other.Epoch == at.Epoch {
		e.Fatalf("bob's first entry lies at %+v, alice's at %+v", other, at)
	}
}

func orderOfOneCall(e *env) {
	var ps []*saver.Publication
	for i, l := range labelled("m", 30) {
		switch i % 3 {
		case 0:
			ps = append(ps, e.to(l, alice))
		case 1:
			ps = append(ps, e.to(l, bob, alice))
		default:
			ps = append(ps, e.to(l, alice, bob, cathy))
		}
	}
	rs := e.s.Store.Publish(e.ctx, ps)
	if len(rs) != len(ps) {
		e.Fatalf("%d results for %d publications", len(rs), len(ps))
	}
	for i, r := range rs {
		if r.Err != nil {
			e.Fatal(r.Err)
		}
		for j, pl := range r.Own {
			if pl.User != ps[i].Own[j].User || pl.Shard != ref(pl.User).Shard().Shard {
				e.Fatalf("result %d names %s in shard %d at %d", i, pl.User, pl.Shard, j)
			}
		}
	}
	e.wantAll(alice, push.Own, strings.Join(labelled("m", 30), " "))
}

func concurrentPublishers(e *env) {
	const publishers, each = 8, 40
	places := make([][]push.Place, publishers)
	pubs := make([][]*saver.Publication, publishers)
	for i := range publishers {
		for _, l := range labelled(fmt.Sprintf("p%d-", i), each) {
			pubs[i] = append(pubs[i], e.to(l, alice))
		}
	}
	var wg sync.WaitGroup
	for i := range publishers {
		wg.Go(func() {
			for _, p := range pubs[i] {
				r := e.s.Store.Publish(e.ctx, []*saver.Publication{p})[0]
				if r.Err != nil {
					e.Errorf("Publish: %v", r.Err)
					return
				}
				places[i] = append(places[i], r.Own[0].Place)
			}
		})
	}
	wg.Wait()
	at := make(map[push.Position]push.MsgID)
	entries := e.readAll(readOf(alice, push.Own, push.Place{}))
	if len(entries) != publishers*each {
		e.Fatalf("%d entries, want %d", len(entries), publishers*each)
	}
	origin := e.state(alice, push.Own).Origin
	for i, x := range entries {
		if x.Pos != origin+1+push.Position(i) {
			e.Fatalf("entry %d lies at %d, want %d", i, x.Pos, origin+1+push.Position(i))
		}
		at[x.Pos] = x.ID
	}
	for i := range publishers {
		for j, pl := range places[i] {
			if j > 0 && pl.Pos <= places[i][j-1].Pos {
				e.Fatalf("publisher %d: %d after %d", i, pl.Pos, places[i][j-1].Pos)
			}
			if at[pl.Pos] != pubs[i][j].Message.ID {
				e.Fatalf("another message lies at the position answered")
			}
		}
	}
}

func concurrentMany(e *env) {
	users := usersOfShards()
	back := make([]push.UserID, len(users))
	for i, u := range users {
		back[len(users)-1-i] = u
	}
	const each = 25
	var wg sync.WaitGroup
	for i, targets := range [][]push.UserID{users, back, users[2:5]} {
		var ps []*saver.Publication
		for _, l := range labelled(fmt.Sprintf("w%d-", i), each) {
			ps = append(ps, e.to(l, targets...), e.everyone(l+"e"))
		}
		wg.Go(func() {
			for _, p := range ps {
				if r := e.s.Store.Publish(e.ctx, []*saver.Publication{p})[0]; r.Err != nil {
					e.Errorf("Publish: %v", r.Err)
				}
			}
		})
	}
	wg.Wait()
	for i, u := range users {
		want := 2 * each
		if i >= 2 && i < 5 {
			want = 3 * each
		}
		if got := len(e.readAll(readOf(u, push.Own, push.Place{}))); got != want {
			e.Fatalf("%d entries in an own slot, want %d", got, want)
		}
		if got := len(e.readAll(readOf(u, push.Common, push.Place{}))); got != 3*each {
			e.Fatalf("%d entries in a common slot, want %d", got, 3*each)
		}
	}
}

// usersOfShards returns one user of each shard, in order of shard.
func usersOfShards() []push.UserID {
	users := make([]push.UserID, Shards)
	for i, found := 0, 0; found < Shards; i++ {
		u := push.UserID(fmt.Sprintf("user-%d", i))
		if s := push.ShardOf(u, Shards); users[s] == "" {
			users[s] = u
			found++
		}
	}
	return users
}

func manyUsers(e *env) {
	users := usersOfShards()
	users = append(users, alice, bob, cathy)
	r := e.publish(e.to("m", users...))
	if len(r.Own) != len(users) || r.Common != nil {
		e.Fatalf("%d own places and %d common ones, want %d and none", len(r.Own), len(r.Common), len(users))
	}
	for i, u := range users {
		e.wantAll(u, push.Own, "m")
		x := e.readAll(readOf(u, push.Own, push.Place{}))[0]
		if pl := r.Own[i]; pl.User != u || pl.Place.Pos != x.Pos || x.ID != r.Message.ID {
			e.Fatalf("%s: placed %+v, read at %d", u, pl, x.Pos)
		}
		e.wantAll(u, push.Common, "")
	}
}

func everyoneIsOneEntryAShard(e *env) {
	users := usersOfShards()
	r := e.publish(e.everyone("m"))
	if len(r.Common) != Shards || r.Own != nil {
		e.Fatalf("%d common places and %d own ones, want %d and none", len(r.Common), len(r.Own), Shards)
	}
	for i, u := range users {
		head := saver.HeadOf(ptr(e.state(u, push.Common)))
		if pl := r.Common[i]; pl.Shard != push.Shard(i) || pl.User != "" || pl.Place != head {
			e.Fatalf("shard %d: placed %+v", i, pl)
		}
		if s := e.state(u, push.Common); s.Head != s.Origin+1 {
			e.Fatalf("shard %d has %d entries, want one", i, s.Head-s.Origin)
		}
		e.wantAll(u, push.Common, "m")
		e.wantAll(u, push.Own, "")
		if s := e.state(u, push.Own); s.Epoch != 0 {
			e.Fatal("a broadcast made an own slot")
		}
	}
}

func ptr[T any](v T) *T { return &v }

func stamped(e *env) {
	bodies := []struct {
		name string
		body []byte
	}{
		{"empty", nil},
		{"small", []byte(`{"n":1}`)},
		{"zeros", make([]byte, 300)},
		{"largest", bytes.Repeat([]byte{0xff, 0, '"', '\n'}, 64<<10/4)},
	}
	for _, b := range bodies {
		for _, targets := range [][]push.UserID{{alice}, {alice, bob}, nil} {
			p := e.to(b.name, targets...)
			p.Everyone = targets == nil
			p.TTL = 90 * time.Second
			p.Message.Body, p.Message.Kind, p.Message.Ref = b.body, push.BodyBinary, "order-7"
			p.Message.Headers = []push.Header{{Name: "a", Value: ""}, {Name: "lang", Value: "de"}}
			p.Message.CollapseKey, p.Message.Task = "k", true
			asked := *p.Message
			r := e.publish(p)
			want := asked
			want.Created, want.Expires = e.s.Clock.Milli(), e.s.Clock.Milli().Add(90*time.Second)
			e.wantMessage("Published.Message", r.Message, want)
			if !reflect.DeepEqual(*p.Message, asked) {
				e.Fatal("Publish changed the caller's message")
			}
			k := push.Own
			if p.Everyone {
				k = push.Common
			}
			all := e.readAll(readOf(alice, k, push.Place{}))
			x := all[len(all)-1]
			e.wantMessage("Entry.Message", x.Message, want)
			if x.ID != want.ID || x.Expires != want.Expires || x.Kind != saver.EntryMessage || x.Lost {
				e.Fatalf("entry %+v", x)
			}
			e.s.Clock.Advance(time.Millisecond)
		}
	}
}

// wantMessage compares messages; a body without bytes is the same as none.
func (e *env) wantMessage(what string, got *push.Message, want push.Message) {
	e.Helper()
	if got == nil {
		e.Fatalf("%s is nil", what)
	}
	g := *got
	if !bytes.Equal(g.Body, want.Body) {
		e.Fatalf("%s has a body of %d bytes, want %d", what, len(g.Body), len(want.Body))
	}
	g.Body, want.Body = nil, nil
	if !reflect.DeepEqual(g, want) {
		e.Fatalf("%s = %+v, want %+v", what, g, want)
	}
}

func nonPersistent(e *env) {
	e.send(alice, "before")
	p := e.to("m", alice)
	p.Message.Persistent, p.TTL, p.Key = false, 0, "once"
	r := e.publish(p)
	if r.Own != nil || r.Common != nil || r.Repeated {
		e.Fatalf("it was placed: %+v", r)
	}
	want := *p.Message
	want.Created = e.s.Clock.Milli()
	e.wantMessage("Published.Message", r.Message, want)
	e.s.Clock.Advance(time.Minute)
	again := e.to("again", alice)
	again.Message.Persistent, again.TTL, again.Key = false, 0, "once"
	rep := e.publish(again)
	e.wantRepeat(rep, &want)
	b := e.everyone("b")
	b.Message.Persistent, b.TTL = false, 0
	if r := e.publish(b); r.Own != nil || r.Common != nil {
		e.Fatalf("it was placed: %+v", r)
	}
	e.wantAll(alice, push.Own, "before")
	if s := e.state(alice, push.Own); s.Head != s.Origin+1 {
		e.Fatal("it took a position")
	}
	if s := e.state(alice, push.Common); s.Epoch != 0 {
		e.Fatal("it made a common slot")
	}
	_, err := e.s.Store.Message(e.ctx, shop, p.Message.ID)
	e.wantKind("Message of a message that is not persistent", err, push.KindNotFound)
	_, err = e.s.Store.Recall(e.ctx, e.recalling(p.Message.ID))
	e.wantKind("Recall of a message that is not persistent", err, push.KindNotFound)
}

// having is the expression for devices that have all these tags.
func having(tags ...push.Tag) *push.TagExpr {
	e := &push.TagExpr{}
	for _, t := range tags {
		e.All = append(e.All, push.TagTerm{Tag: t})
	}
	return e.Canonical()
}

func filtersComeBack(e *env) {
	one := &push.Filter{
		Devices: []push.DeviceID{phone, tablet}, Platforms: push.PlatformSet(0).Add(push.PlatformIOS),
		Classes: []string{"a", "b"}, Tags: having("t"),
	}
	p := e.to("m", alice, bob, cathy)
	p.Own[0].Filter, p.Own[2].Filter = one, &push.Filter{Classes: []string{"c"}}
	e.publish(p)
	q := e.everyone("all")
	q.Filter = &push.Filter{Platforms: push.PlatformSet(0).Add(push.PlatformWeb), Tags: (&push.TagExpr{
		All: []push.TagTerm{{Tag: "a"}, {Expr: &push.TagExpr{Any: []push.TagTerm{{Tag: "b"}, {Expr: having("c", "d")}}}}},
		Not: []push.TagTerm{{Tag: "e"}},
	}).Canonical()}
	e.publish(q)
	cases := []struct {
		user push.UserID
		slot push.SlotKind
		want *push.Filter
	}{{alice, push.Own, one}, {bob, push.Own, nil}, {cathy, push.Own, p.Own[2].Filter}, {alice, push.Common, q.Filter}}
	for _, c := range cases {
		if got := e.readAll(readOf(c.user, c.slot, push.Place{}))[0].Filter; !got.Equal(c.want) {
			e.Fatalf("the %s entry of %s has filter %+v, want %+v", c.slot, c.user, got, c.want)
		}
	}
}

func tooLarge(e *env) {
	e.limits.OwnBytes, e.limits.CommonBytes = 1000, 2000
	e.send(alice, "before")
	for _, c := range []struct {
		label string
		size  int
		all   bool
		ok    bool
	}{{"o1", 1000, false, true}, {"o2", 1001, false, false}, {"c1", 2000, true, true}, {"c2", 2001, true, false}} {
		p := e.to(c.label, alice, bob)
		if c.all {
			p = e.everyone(c.label)
		}
		p.Message.Body = []byte(strconv.Quote(strings.Repeat("x", c.size-p.Message.Size()+len(p.Message.Body)-2)))
		if got := p.Message.Size(); got != c.size {
			e.Fatalf("a message of %d bytes, want %d", got, c.size)
		}
		r := e.try(p)
		if c.ok {
			if r.Err != nil {
				e.Fatalf("%s: %v", c.label, r.Err)
			}
			continue
		}
		e.wantKind(c.label, r.Err, push.KindTooLarge)
		if _, err := e.s.Store.Message(e.ctx, shop, p.Message.ID); push.KindOf(err) != push.KindNotFound {
			e.Fatalf("%s is on record: %v", c.label, err)
		}
	}
	for _, u := range []push.UserID{alice, bob} {
		s, want := e.state(u, push.Own), push.Position(1)
		if u == alice {
			want = 2
		}
		if s.Head-s.Origin != want {
			e.Fatalf("%s got %d entries, want %d", u, s.Head-s.Origin, want)
		}
	}
	if s := e.state(alice, push.Common); s.Head != s.Origin+1 {
		e.Fatalf("the common slot got %d entries, want 1", s.Head-s.Origin)
	}
}

func invalid(e *env) {
	both := e.everyone("both")
	both.Own = []saver.Target{{User: alice}}
	noTTL := e.to("no ttl", alice)
	noTTL.TTL = 0
	negative := e.to("negative", alice)
	negative.TTL = -time.Second
	sorted := e.everyone("an expression that would be read as another")
	sorted.Filter = &push.Filter{Tags: &push.TagExpr{All: []push.TagTerm{{Tag: "b"}, {Tag: "a"}}}}
	empty := e.to("an expression that says nothing", bob, alice)
	empty.Own[1].Filter = &push.Filter{Tags: &push.TagExpr{}}
	for _, p := range []*saver.Publication{both, noTTL, negative, sorted, empty} {
		e.wantKind(e.labels[p.Message.ID], e.try(p).Err, push.KindInvalid)
	}
	e.wantAll(alice, push.Own, "")
	e.wantAll(alice, push.Common, "")
}

func oneBad(e *env) {
	bad := e.to("bad", alice)
	bad.TTL = 0
	rs := e.s.Store.Publish(e.ctx, []*saver.Publication{e.to("a", alice), bad, e.to("b", alice)})
	if rs[0].Err != nil || rs[1].Err == nil || rs[2].Err != nil {
		e.Fatalf("errors: %v, %v, %v", rs[0].Err, rs[1].Err, rs[2].Err)
	}
	e.wantAll(alice, push.Own, "a b")
	if rs := e.s.Store.Publish(e.ctx, nil); len(rs) != 0 {
		e.Fatalf("%d results for no publication", len(rs))
	}
}

func roomsNamed(e *env) {
	e.s.Locator.SetRooms(shop, alice, "r1", "r2")
	e.s.Locator.SetRooms(forum, bob, "r9")
	r := e.publish(e.to("m", bob, alice))
	if got := r.Own[0].Rooms; len(got) != 0 {
		e.Fatalf("rooms %v for bob, who is online elsewhere", got)
	}
	if got, want := r.Own[1].Rooms, []push.RoomID{"r1", "r2"}; !reflect.DeepEqual(got, want) {
		e.Fatalf("rooms %v for alice, want %v", got, want)
	}
	for i, pl := range e.publish(e.everyone("all")).Common {
		var want []push.RoomID
		if push.Shard(i) == ref(alice).Shard().Shard {
			want = []push.RoomID{"r1", "r2"}
		}
		if len(pl.Rooms) != len(want) || len(want) > 0 && !reflect.DeepEqual(pl.Rooms, want) {
			e.Fatalf("rooms %v for shard %d, want %v", pl.Rooms, i, want)
		}
	}
	rec := e.recall(r.Message.ID)
	if got, want := rec.Own[1].Rooms, []push.RoomID{"r1", "r2"}; !reflect.DeepEqual(got, want) {
		e.Fatalf("rooms %v to be told of the recall, want %v", got, want)
	}
}

func roomsAskedOnceStored(e *env) {
	seen := ""
	e.s.Locator.OnAsked(func() {
		own, common := e.readAll(readOf(alice, push.Own, push.Place{})), e.readAll(readOf(alice, push.Common, push.Place{}))
		seen = e.show(own) + "/" + e.show(common)
	})
	for _, c := range []struct {
		p    *saver.Publication
		want string
	}{{e.to("a", alice), "a/"}, {e.to("b", bob, alice), "a b/"}, {e.everyone("c"), "a b/c"}} {
		seen = ""
		e.publish(c.p)
		if seen != c.want {
			e.Fatalf("when rooms were looked up, %q could be read, want %q", seen, c.want)
		}
	}
	seen = ""
	e.recall(e.byName["a"])
	if want := "b -a/c"; seen != want {
		e.Fatalf("when rooms were looked up for a recall, %q could be read, want %q", seen, want)
	}
}
