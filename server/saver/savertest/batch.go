package savertest

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
)

var batchCases = []testCase{
	{name: "IsWrittenOnce", run: batchOnce},
	{name: "LiesAsWhatIsPublished", run: batchAsPublished},
	{name: "OfManyShardsInOneCall", run: batchManyShards},
	{name: "OneBadBatchDoesNotSpoilOthers", run: batchOneBad},
	{name: "IsRefusedUnlessFenced", run: batchUnfenced},
	{name: "FenceIsRaisedAndNeverLowered", run: batchFence},
	{name: "RacersWriteItOnce", run: batchRacers},
	{name: "RacersWithAnotherTokenWriteItOnce", run: batchTokens},
	{name: "UsersHaveTheirOwnBodies", run: batchBodies},
	{name: "LargeBodyIsShared", run: batchLarge},
	{name: "FiltersComeBack", run: batchFilters},
	{name: "Everyone", run: batchEveryone},
	{name: "Collapses", run: batchCollapse},
	{name: "ObeysLimits", run: batchLimits},
	{name: "RecallLeavesAHoleAndAppends", run: batchRecall},
	{name: "RecallOfWhatIsNotWrittenIsAbsent", run: batchAbsent},
	{name: "RecallReachesThoseWhoReadIt", run: batchRecallRead},
	{name: "RecallSparesWhatLiesThereNow", run: batchRecallLost},
	{name: "RecallOfEveryone", run: batchRecallEveryone},
	{name: "RecallBodiesAndFilters", run: batchRecallFilters},
	{name: "RecordsTellPlaces", run: batchRecords},
	{name: "IsNoOrdinaryMessage", run: batchApart},
	{name: "RoomsAreNamedAndToldOnce", run: batchRooms},
	{name: "RoomsAreAskedForOnceStored", needs: asks, run: batchRoomsOnceStored},
	{name: "IsForgottenWithItsFence", run: batchExpires},
	{name: "FenceIsProlonged", run: batchProlonged},
	{name: "InvalidIsRefused", run: batchInvalid},
	{name: "SurvivesReopening", needs: canReopen, run: batchReopen},
	{name: "FallenBackIsWrittenAgain", needs: canMark, run: batchFallBack},
}

// campaign is a message that is written in batches under the newest token.
type campaign struct {
	e     *env
	m     *push.Message
	token uint64
}

func (e *env) campaign(label string) *campaign {
	m := e.message(label)
	m.Created = e.s.Clock.Milli()
	m.Expires = m.Created.Add(week)
	return &campaign{e: e, m: m}
}

func (c *campaign) fenceOf(token uint64) saver.Fence {
	return saver.Fence{Product: shop, Shards: Shards, ID: c.m.ID, Token: token, Until: c.m.Expires.Add(saver.RecordKept), Message: c.m}
}

func (c *campaign) fence(token uint64) {
	c.e.Helper()
	if err := c.e.s.Store.Fence(c.e.ctx, c.fenceOf(token)); err != nil {
		c.e.Fatalf("Fence under %d: %v", token, err)
	}
	c.token = token
}

// own returns a batch for users of one shard, all one for a common slot.
func (c *campaign) own(n int, users ...push.UserID) *saver.Batch {
	b := c.all(n, ref(users[0]).Shard().Shard)
	b.Everyone = false
	for _, u := range users {
		b.Own = append(b.Own, saver.Target{User: u})
	}
	return b
}

func (c *campaign) all(n int, s push.Shard) *saver.Batch {
	return &saver.Batch{
		Product: shop, Shards: Shards, Limits: c.e.limits, Message: c.m, Token: c.token, Shard: s, Number: n, Everyone: true,
	}
}

func recallOf(b *saver.Batch) *saver.Batch {
	r := *b
	r.Recall, r.Bodies = true, nil
	return &r
}

func (e *env) tryBatch(b *saver.Batch) saver.Batched {
	e.Helper()
	rs := e.s.Store.Batches(e.ctx, []*saver.Batch{b})
	if len(rs) != 1 {
		e.Fatalf("%d results for one batch", len(rs))
	}
	return rs[0]
}

func (e *env) batch(b *saver.Batch) saver.Batched {
	e.Helper()
	r := e.tryBatch(b)
	if r.Err != nil {
		e.Fatalf("batch %d of shard %d: %v", b.Number, b.Shard, r.Err)
	}
	return r
}

func (e *env) batchRecords(c *campaign, s push.Shard, ns ...int) []*saver.BatchRecord {
	e.Helper()
	rs, err := e.s.Store.BatchRecords(e.ctx, saver.BatchesRef{ShardRef: saver.ShardRef{Product: shop, Shard: s}, ID: c.m.ID}, ns)
	if err != nil {
		e.Fatalf("BatchRecords: %v", err)
	}
	if len(rs) != len(ns) {
		e.Fatalf("%d records for %d numbers", len(rs), len(ns))
	}
	return rs
}

// usersIn returns n users of a shard.
func usersIn(s push.Shard, n int) (users []push.UserID) {
	for i := 0; len(users) < n; i++ {
		if u := push.UserID("user-" + strconv.Itoa(i)); push.ShardOf(u, Shards) == s {
			users = append(users, u)
		}
	}
	return users
}

func batchOnce(e *env) {
	c := e.campaign("m")
	c.fence(1)
	users := usersIn(3, saver.BatchMost+5)
	e.send(users[0], "before")
	one, two := c.own(0, users[:saver.BatchMost]...), c.own(1, users[saver.BatchMost:]...)
	first := e.batch(one)
	if first.Found || first.Common != nil || len(first.Own) != saver.BatchMost || first.Lineage != e.lineage() || first.Now != e.s.Clock.Milli() {
		e.Fatalf("batched %+v", first)
	}
	for i, pl := range first.Own {
		if pl.User != users[i] || pl.Shard != 3 || pl.Place != saver.HeadOf(ptr(e.state(users[i], push.Own))) || pl.Filter != nil {
			e.Fatalf("user %d is placed %+v", i, pl)
		}
	}
	e.s.Clock.Advance(time.Minute)
	e.batch(two)
	e.send(users[1], "after")
	for range 3 {
		for _, b := range []*saver.Batch{one, two} {
			if r := e.batch(b); !r.Found || len(r.Own) != len(b.Own) || b == one && !samePlaces(r.Own, first.Own) {
				e.Fatalf("a repeat is answered with %+v", r)
			}
		}
	}
	e.wantAll(users[0], push.Own, "before m")
	e.wantAll(users[1], push.Own, "m after")
	for _, u := range users[2:] {
		e.wantAll(u, push.Own, "m")
		if s := e.state(u, push.Own); s.Head != s.Origin+1 {
			e.Fatalf("%s has %d positions, want one", u, s.Head-s.Origin)
		}
	}
	again := c.own(0, users[1:saver.BatchMost]...)
	e.wantKind("another batch under the number of one that is written", e.tryBatch(again).Err, push.KindInvalid)
}

// batchAsPublished compares what devices find after a batch with what they find after a publication.
func batchAsPublished(e *env) {
	users := usersIn(2, 2)
	by, published := users[0], users[1]
	c := e.campaign("m")
	c.m.Ref, c.m.Headers, c.m.Kind = "order-7", []push.Header{{Name: "lang", Value: "de"}}, push.BodyBinary
	c.fence(1)
	for _, u := range users {
		e.open(u, phone)
		e.open(u, laptop)
	}
	at := e.batch(c.own(0, by)).Own[0].Place
	p := e.to("p", published)
	p.Message.Ref, p.Message.Headers, p.Message.Kind, p.Message.Body = c.m.Ref, c.m.Headers, c.m.Kind, c.m.Body
	there := e.publish(p).Own[0].Place
	if at.Pos != there.Pos || at.Lineage != there.Lineage {
		e.Fatalf("a batch lies at %+v, a publication at %+v", at, there)
	}
	tail, other := e.tail(readOf(by, push.Own, push.Place{})), e.tail(readOf(published, push.Own, push.Place{}))
	e.wantMessage("what a batch wrote", tail.Entries[0].Message, *c.m)
	got, want := tail.Entries[0], other.Entries[0]
	got.ID, got.Message, want.ID, want.Message = 0, nil, 0, nil
	if !reflect.DeepEqual(got, want) {
		e.Fatalf("a batch is read as %+v, a publication as %+v", got, want)
	}
	for i, u := range users {
		e.ackOwn(u, phone, []push.Place{at, there}[i])
	}
	e.wantAll(by, push.Own, "m")
	for i, u := range users {
		e.ackOwn(u, laptop, []push.Place{at, there}[i])
	}
	e.wantAll(by, push.Own, "")
	a, b := e.user(by), e.user(published)
	a.Slots[push.Own].Epoch, b.Slots[push.Own].Epoch = 0, 0
	for _, v := range []*saver.User{&a, &b} {
		for i := range v.Devices {
			v.Devices[i].Cursors[push.Own].Epoch, v.Devices[i].Start[push.Own].Epoch = 0, 0
		}
	}
	if !reflect.DeepEqual(a, b) {
		e.Fatalf("after a batch the user is %+v, after a publication %+v", a, b)
	}
}

func batchManyShards(e *env) {
	c := e.campaign("m")
	c.fence(1)
	var bs []*saver.Batch
	for s := range push.Shard(Shards) {
		for n := range 3 {
			bs = append(bs, c.own(n, usersIn(s, 30)[n*10:n*10+10]...))
		}
		bs = append(bs, c.all(3, s))
	}
	bs = slices.Insert(bs, 6, bs[5]) // comes twice
	for i := range 2 {
		for j, r := range e.s.Store.Batches(e.ctx, bs) {
			if r.Err != nil {
				e.Fatal(r.Err)
			}
			if r.Found != (i > 0) && j != 5 && j != 6 {
				e.Fatalf("call %d: batch %d was found: %v", i, j, r.Found)
			}
			if bs[j].Everyone != (len(r.Common) == 1) || len(r.Own) != len(bs[j].Own) {
				e.Fatalf("call %d: batch %d is answered with %+v", i, j, r)
			}
		}
	}
	for s := range push.Shard(Shards) {
		for _, u := range usersIn(s, 30) {
			e.wantAll(u, push.Own, "m")
		}
		e.wantAll(usersIn(s, 1)[0], push.Common, "m")
	}
	if rs := e.s.Store.Batches(e.ctx, nil); len(rs) != 0 {
		e.Fatalf("%d results for no batch", len(rs))
	}
}

func batchOneBad(e *env) {
	c, other := e.campaign("m"), e.campaign("other")
	c.fence(1)
	users := usersIn(1, 4)
	bad := c.own(2, users[2])
	bad.Own = append(bad.Own, bad.Own[0])
	rs := e.s.Store.Batches(e.ctx, []*saver.Batch{c.own(0, users[0]), bad, other.own(0, users[3]), c.own(1, users[1])})
	if rs[0].Err != nil || rs[3].Err != nil {
		e.Fatalf("errors %v, %v", rs[0].Err, rs[3].Err)
	}
	e.wantKind("a batch with a user twice", rs[1].Err, push.KindInvalid)
	e.wantFencedErr(rs[2].Err)
	for i, want := range []string{"m", "m", "", ""} {
		e.wantAll(users[i], push.Own, want)
	}
}

func batchBodies(e *env) {
	users := usersIn(4, 5)
	c := e.campaign("m")
	c.m.CollapseKey = "k"
	f := c.fenceOf(1)
	f.Message = nil
	if err := e.s.Store.Fence(e.ctx, f); err != nil {
		e.Fatal(err)
	}
	c.token = 1
	b := c.own(0, users...)
	b.Bodies = make([][]byte, len(users))
	for i := range users {
		b.Bodies[i] = []byte(strconv.Quote(strings.Repeat("x", 300*i)))
	}
	b.Bodies[4] = nil
	e.batch(b)
	want := *b
	want.Bodies = slices.Clone(b.Bodies)
	for i := range b.Bodies[:4] { // they belong to the store during the call only
		want.Bodies[i] = slices.Clone(b.Bodies[i])
		clear(b.Bodies[i])
	}
	for i, u := range users {
		entries := e.readAll(readOf(u, push.Own, push.Place{}))
		if len(entries) != 1 {
			e.Fatalf("%d entries for %s", len(entries), u)
		}
		e.wantMessage("the message of "+string(u), entries[0].Message, *want.MessageOf(i))
	}
}

func batchLarge(e *env) {
	c := e.campaign("m")
	c.m.Body = []byte(strconv.Quote(strings.Repeat("x", 3000)))
	c.fence(1)
	own, all := c.own(0, usersIn(0, 10)...), c.all(1, 0)
	e.batch(own)
	c.fence(2)
	stop := c.fenceOf(3)
	stop.Message = nil
	if err := e.s.Store.Fence(e.ctx, stop); err != nil {
		e.Fatal(err)
	}
	c.token, all.Token = 3, 3
	e.batch(all)
	// Whoever fenced without the message, and has no bodies either, loses none.
	other := e.campaign("other")
	other.m.Body = c.m.Body
	bare := other.fenceOf(1)
	bare.Message = nil
	if err := e.s.Store.Fence(e.ctx, bare); err != nil {
		e.Fatal(err)
	}
	other.token = 1
	u := usersIn(1, 1)[0]
	e.batch(other.own(0, u))
	e.wantMessage("a message that was not given to its fence", e.readAll(readOf(u, push.Own, push.Place{}))[0].Message, *other.m)
	for _, u := range own.Own {
		e.wantMessage("the message", e.readAll(readOf(u.User, push.Own, push.Place{}))[0].Message, *c.m)
	}
	e.wantMessage("the message to everyone", e.readAll(readOf(own.Own[0].User, push.Common, push.Place{}))[0].Message, *c.m)
	e.s.Clock.Advance(week - time.Minute)
	e.sweep()
	e.wantMessage("the message, just before it expires", e.readAll(readOf(own.Own[0].User, push.Own, push.Place{}))[0].Message, *c.m)
}

func batchFilters(e *env) {
	users := usersIn(0, 3)
	c := e.campaign("m")
	c.fence(1)
	b := c.own(0, users...)
	b.Own[0].Filter = &push.Filter{Devices: []push.DeviceID{phone}, Tags: having("t")}
	b.Own[2].Filter = &push.Filter{Classes: []string{"tv"}}
	e.batch(b)
	all := c.all(1, 0)
	all.Filter = &push.Filter{Platforms: push.PlatformSet(0).Add(push.PlatformWeb)}
	e.batch(all)
	for i, u := range users {
		if x := e.readAll(readOf(u, push.Own, push.Place{}))[0]; !x.Filter.Equal(b.Own[i].Filter) {
			e.Fatalf("the entry of %s has filter %+v", u, x.Filter)
		}
	}
	if x := e.readAll(readOf(users[0], push.Common, push.Place{}))[0]; !x.Filter.Equal(all.Filter) {
		e.Fatalf("the entry for everyone has filter %+v", x.Filter)
	}
}

func batchEveryone(e *env) {
	c := e.campaign("m")
	c.fence(1)
	users := usersOfShards()
	group := c.own(0, users[2])
	e.batch(group)
	for i, u := range users {
		b := c.all(1, push.Shard(i))
		r := e.batch(b)
		head := saver.HeadOf(ptr(e.state(u, push.Common)))
		if r.Found || r.Own != nil || len(r.Common) != 1 || r.Common[0].Shard != b.Shard || r.Common[0].User != "" || r.Common[0].Place != head {
			e.Fatalf("shard %d: %+v", i, r)
		}
		if again := e.batch(b); !again.Found || !samePlaces(again.Common, r.Common) {
			e.Fatalf("shard %d: the repeat is %+v", i, again)
		}
	}
	for i, u := range users {
		e.wantAll(u, push.Common, "m")
		want := ""
		if i == 2 {
			want = "m"
		}
		e.wantAll(u, push.Own, want)
	}
	if r := e.batch(group); !r.Found || len(r.Own) != 1 {
		e.Fatalf("the repeat is %+v", r)
	}
}

func batchCollapse(e *env) {
	users := usersIn(5, 3)
	for _, l := range []string{"a", "b"} {
		c := e.campaign(l)
		c.m.CollapseKey = "k"
		c.fence(1)
		b := c.own(0, users...)
		if l == "b" {
			b.Own[2].Filter = &push.Filter{Classes: []string{"tv"}}
		}
		e.batch(b)
		e.batch(c.all(1, 5))
	}
	for i, want := range []string{"b", "b", "a b"} {
		e.wantAll(users[i], push.Own, want)
	}
	e.wantAll(users[0], push.Common, "b")
	p := e.to("c", users[0])
	p.Message.CollapseKey = "k"
	e.publish(p)
	e.wantAll(users[0], push.Own, "c")
}

func batchLimits(e *env) {
	e.limit(3, 1<<20)
	users := usersIn(6, 2)
	var heads []push.Position
	for i, l := range labelled("m", 5) {
		c := e.campaign(l)
		c.fence(1)
		r := e.batch(c.own(0, users...))
		heads = append(heads, r.Own[0].Place.Pos)
		e.batch(c.all(1, 6))
		if i == 0 {
			e.send(users[1], "p")
		}
	}
	e.wantAll(users[0], push.Own, "m3 m4 m5")
	e.wantAll(users[1], push.Own, "m3 m4 m5")
	e.wantAll(users[0], push.Common, "m3 m4 m5")
	if s := e.state(users[0], push.Own); s.Floor != heads[1] {
		e.Fatalf("the floor is %d, want %d", s.Floor, heads[1])
	}
	e.limit(3, 1000)
	c := e.campaign("large")
	c.m.Body = make([]byte, 1000)
	c.fence(1)
	e.wantKind("a batch that fits in no slot", e.tryBatch(c.own(0, users...)).Err, push.KindTooLarge)
	c.m.Body = nil
	b := c.own(0, users...)
	b.Bodies = [][]byte{nil, make([]byte, 1000)}
	e.wantKind("a batch of which one body fits in no slot", e.tryBatch(b).Err, push.KindTooLarge)
	e.wantAll(users[0], push.Own, "m3 m4 m5")
}

func batchRecords(e *env) {
	c := e.campaign("m")
	c.fence(1)
	users := usersIn(7, 10)
	own, all := c.own(3, users...), c.all(1<<24, 7)
	placed, common := e.batch(own).Own, e.batch(all).Common
	if r := e.batchRecords(c, 7); len(r) != 0 {
		e.Fatalf("%d records of no number", len(r))
	}
	for recalled := range 2 {
		if recalled == 1 {
			e.s.Clock.Advance(time.Second)
			e.batch(recallOf(own))
		}
		rs := e.batchRecords(c, 7, 0, 3, 1<<24)
		if rs[0] != nil || rs[1] == nil || rs[2] == nil {
			e.Fatalf("records %+v", rs)
		}
		if r := rs[1]; len(r.Own) != len(users) || !r.Common.IsZero() || (r.Recalled == e.s.Clock.Milli()) != (recalled == 1) || r.Now != e.s.Clock.Milli() {
			e.Fatalf("record %+v", r)
		}
		for i, o := range rs[1].Own {
			if o.User != users[i] || o.Place != placed[i].Place {
				e.Fatalf("user %d is on record with %+v, want %+v", i, o, placed[i])
			}
		}
		if r := rs[2]; r.Own != nil || r.Common != common[0].Place || r.Recalled != 0 {
			e.Fatalf("record %+v", r)
		}
	}
	if rs := e.batchRecords(c, 6, 3); rs[0] != nil {
		e.Fatalf("another shard has %+v", rs[0])
	}
	if rs := e.batchRecords(e.campaign("other"), 7, 3); rs[0] != nil {
		e.Fatalf("another message has %+v", rs[0])
	}
}

func batchApart(e *env) {
	c := e.campaign("m")
	c.fence(1)
	u := usersIn(0, 1)[0]
	e.batch(c.own(0, u))
	e.batch(c.all(1, 0))
	_, err := e.s.Store.Message(e.ctx, shop, c.m.ID)
	e.wantKind("Message of what was written in batches", err, push.KindNotFound)
	_, err = e.s.Store.Recall(e.ctx, e.recalling(c.m.ID))
	e.wantKind("Recall of what was written in batches", err, push.KindNotFound)
	r := readOf(u, push.Own, push.Place{})
	r.Product = forum
	if n := len(e.readAll(r)); n > 0 {
		e.Fatalf("another product has %d entries", n)
	}
	e.wantAll(u, push.Own, "m")
}

func batchRooms(e *env) {
	users := usersIn(2, 3)
	shard := ref(users[0]).Shard()
	e.s.Locator.SetRooms(shop, users[0], "r1", "r2")
	e.s.Locator.SetRooms(forum, users[1], "r9")
	for _, room := range []push.RoomID{"r1", "r2"} {
		e.changes(room, shard, 0)
	}
	c := e.campaign("m")
	c.fence(1)
	want := []push.RoomID{"r1", "r2"}
	own, all := c.own(0, users...), c.all(1, 2)
	var changes []saver.Change
	for _, b := range []*saver.Batch{own, own, all, all, recallOf(own), recallOf(own), recallOf(all), recallOf(all)} {
		r := e.batch(b)
		for i, pl := range r.Own {
			if i == 0 && !slices.Equal(pl.Rooms, want) || i > 0 && len(pl.Rooms) > 0 {
				e.Fatalf("rooms %v for user %d", pl.Rooms, i)
			}
		}
		if b.Everyone && !slices.Equal(r.Common[0].Rooms, want) {
			e.Fatalf("rooms %v for everyone", r.Common[0].Rooms)
		}
		if !r.Found && !b.Everyone {
			changes = append(changes, saver.Change{User: users[0], Place: r.Own[0].Place})
		}
	}
	for _, room := range want {
		e.wantChanges(e.changes(room, shard, 0), changes...)
	}
	if r := e.batch(c.all(1, 3)); len(r.Common[0].Rooms) > 0 {
		e.Fatalf("rooms %v for a shard without sessions", r.Common[0].Rooms)
	}
}

func batchRoomsOnceStored(e *env) {
	u := usersIn(2, 1)[0]
	c := e.campaign("m")
	c.fence(1)
	seen := ""
	e.s.Locator.OnAsked(func() {
		seen = e.show(e.readAll(readOf(u, push.Own, push.Place{}))) + "/" + e.show(e.readAll(readOf(u, push.Common, push.Place{})))
	})
	own, all := c.own(0, u), c.all(1, 2)
	for _, s := range []struct {
		b    *saver.Batch
		want string
	}{{own, "m/"}, {all, "m/m"}, {recallOf(own), "-m/m"}} {
		seen = ""
		if e.batch(s.b); seen != s.want {
			e.Fatalf("when rooms were looked up, %q could be read, want %q", seen, s.want)
		}
	}
}

func batchInvalid(e *env) {
	c := e.campaign("m")
	c.fence(1)
	users := usersIn(0, saver.BatchMost+1)
	for name, change := range map[string]func(b *saver.Batch){
		"nobody":            func(b *saver.Batch) { b.Own = nil },
		"both":              func(b *saver.Batch) { b.Everyone = true },
		"too many":          func(b *saver.Batch) { *b = *c.own(0, users...) },
		"another shard's":   func(b *saver.Batch) { b.Own = append(b.Own, saver.Target{User: usersIn(1, 1)[0]}) },
		"no such shard":     func(b *saver.Batch) { b.Shard = Shards },
		"no shards":         func(b *saver.Batch) { b.Shards, b.Shard = 0, 0 },
		"negative":          func(b *saver.Batch) { b.Number = -1 },
		"beyond":            func(b *saver.Batch) { b.Number = 1<<24 + 1 },
		"a body for some":   func(b *saver.Batch) { b.Bodies = make([][]byte, 1) },
		"no message":        func(b *saver.Batch) { b.Message = nil },
		"not persistent":    func(b *saver.Batch) { m := *b.Message; m.Persistent = false; b.Message = &m },
		"without times":     func(b *saver.Batch) { m := *b.Message; m.Created, m.Expires = 0, 0; b.Message = &m },
		"an odd expression": func(b *saver.Batch) { b.Own[1].Filter = &push.Filter{Tags: &push.TagExpr{}} },
	} {
		b := c.own(0, users[:3]...)
		change(b)
		if err := e.tryBatch(b).Err; push.KindOf(err) != push.KindInvalid {
			e.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(f *saver.Fence){
		"no token": func(f *saver.Fence) { f.Token = 0 },
		"no id":    func(f *saver.Fence) { f.ID = 0 },
		"no end":   func(f *saver.Fence) { f.Until = 0 },
		"another":  func(f *saver.Fence) { m := *f.Message; m.ID++; f.Message = &m },
	} {
		f := c.fenceOf(2)
		change(&f)
		if err := e.s.Store.Fence(e.ctx, f); push.KindOf(err) != push.KindInvalid {
			e.Errorf("%s: %v", name, err)
		}
	}
	e.wantAll(users[0], push.Own, "")
}

func batchReopen(e *env) {
	c := e.campaign("m")
	c.m.Body = []byte(strconv.Quote(strings.Repeat("m", 1000)))
	c.fence(2)
	u := usersIn(0, 1)[0]
	b, later := c.own(0, u), c.own(1, usersIn(0, 2)[1])
	first := e.batch(b)
	e.s.Store = e.s.Reopen(e.T)
	if r := e.batch(b); !r.Found || !samePlaces(r.Own, first.Own) {
		e.Fatalf("after reopening a batch is answered with %+v", r)
	}
	e.batch(later)
	old := *b
	old.Token = 1
	e.wantFenced(&old)
	e.wantFencedErr(e.s.Store.Fence(e.ctx, c.fenceOf(1)))
	recalled := e.batch(recallOf(b))
	e.s.Store = e.s.Reopen(e.T)
	if r := e.batch(recallOf(b)); !r.Found || !samePlaces(r.Own, recalled.Own) {
		e.Fatalf("after reopening a recall is answered with %+v", r)
	}
	e.wantAll(u, push.Own, "-m")
	e.wantMessage("the message", e.readAll(readOf(later.Own[0].User, push.Own, push.Place{}))[0].Message, *c.m)
}

// batchFallBack: what was lost is written again, since what is known of it went with it.
func batchFallBack(e *env) {
	c := e.campaign("m")
	users := usersIn(0, 2)
	c.fence(1)
	kept, lost := c.own(0, users[0]), c.own(1, users[1])
	first := e.batch(kept)
	back := e.mark()
	e.batch(lost)
	e.batch(recallOf(kept))
	c.fence(2)
	back()
	e.wantFenced(c.own(1, users[1])) // the raise was lost too: whoever runs the task does it again
	c.fence(2)
	kept.Token, lost.Token = 2, 2
	if r := e.batch(kept); !r.Found || !samePlaces(r.Own, first.Own) {
		e.Fatalf("what was kept is answered with %+v", r)
	}
	if r := e.batch(lost); r.Found || r.Own[0].Place.Lineage != e.lineage() {
		e.Fatalf("what was lost is answered with %+v", r)
	}
	for _, u := range users {
		e.wantAll(u, push.Own, "m")
	}
}
