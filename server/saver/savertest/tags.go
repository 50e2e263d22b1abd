package savertest

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
)

var tagCases = []testCase{
	{name: "AreSetAddedAndRemoved", run: tagsChange},
	{name: "OfUserAndDeviceAreToldApart", run: tagsApart},
	{name: "ComeWithTheDevicesArrival", run: tagsOpened},
	{name: "OfTokensAreKeptApart", run: tagsOfTokens},
	{name: "OfTokensCountForThemselves", run: tagsOfTokensLimit},
	{name: "NeedAKnownDevice", run: tagsUnknownDevice},
	{name: "AreLimitedForEachDevice", run: tagsLimit},
	{name: "InBulkHaveEachTheirResult", run: tagsBulk},
	{name: "GoWithTheDevice", run: tagsGoWithDevice},
	{name: "OfAUserOutliveItsDevices", run: tagsOutlive},
	{name: "OfProductsAreApart", run: tagsProducts},
	{name: "AnyBytesInIds", run: tagsAnyBytes},
	{name: "TellWhoHasThem", run: tagsTellWho},
	{name: "TellSomeOfMany", run: tagsTellSome},
	{name: "AreNotAliased", run: tagsNotAliased},
	{name: "ChangedAtOnceAreAllKept", run: tagsConcurrent},
	{name: "OutliveReopening", needs: canReopen, run: tagsReopened},
	{name: "FallBackWithTheStore", needs: canMark, run: tagsFallBack},
}

// tags is short for a list of them.
func tags(ts ...push.Tag) []push.Tag { return ts }

// change changes tags and fails the test on an error.
func (e *env) change(c saver.TagChange) saver.TagsChanged {
	e.Helper()
	r := e.tryChange(c)
	if r.Err != nil {
		e.Fatalf("ChangeTags(%+v): %v", c, r.Err)
	}
	return r
}

func (e *env) tryChange(c saver.TagChange) saver.TagsChanged {
	e.Helper()
	rs := e.s.Store.ChangeTags(e.ctx, []saver.TagChange{c})
	if len(rs) != 1 {
		e.Fatalf("ChangeTags of one change returned %d results", len(rs))
	}
	return rs[0]
}

func (e *env) tagsOf(us ...saver.UserRef) []saver.UserTags {
	e.Helper()
	ts, err := e.s.Store.Tags(e.ctx, us)
	if err != nil || len(ts) != len(us) {
		e.Fatalf("Tags of %d users: %d, %v", len(us), len(ts), err)
	}
	return ts
}

func (e *env) wantTags(u saver.UserRef, want saver.UserTags) {
	e.Helper()
	if got := e.tagsOf(u)[0]; !reflect.DeepEqual(got, want) {
		e.Fatalf("the tags of %s are %q, want %q", u.User, got, want)
	}
}

func tagsChange(e *env) {
	e.open(alice, phone)
	for _, of := range []saver.TagChange{
		{UserRef: ref(alice)}, {UserRef: ref(alice), Device: phone}, {UserRef: ref(alice), Device: phone, Joined: true},
		{UserRef: ref(alice), Device: phone, Token: true},
	} {
		for i, c := range []struct {
			saver.TagChange
			want    []push.Tag
			changed bool
		}{
			{saver.TagChange{}, nil, false},
			{saver.TagChange{Remove: tags("a")}, nil, false},
			{saver.TagChange{Add: tags("b", "a", "b")}, tags("a", "b"), true},
			{saver.TagChange{Add: tags("b")}, tags("a", "b"), false},
			{saver.TagChange{Add: tags("c"), Remove: tags("a", "x")}, tags("b", "c"), true},
			{saver.TagChange{Add: tags("b"), Remove: tags("b")}, tags("b", "c"), false},
			{saver.TagChange{Replace: true, Add: tags("c", "b")}, tags("b", "c"), false},
			{saver.TagChange{Replace: true, Add: tags("d")}, tags("d"), true},
			{saver.TagChange{Replace: true}, nil, true},
			{saver.TagChange{Replace: true}, nil, false},
		} {
			c.UserRef, c.Device, c.Joined, c.Token = of.UserRef, of.Device, of.Joined, of.Token
			r := e.change(c.TagChange)
			if !slices.Equal(r.Tags, c.want) || r.Changed != c.changed {
				e.Fatalf("change %d: %q, changed %v; want %q, %v", i, r.Tags, r.Changed, c.want, c.changed)
			}
		}
		e.wantTags(ref(alice), saver.UserTags{})
	}
}

// who returns who is told to have a tag, sorted, each with the shard that it is told of.
func (e *env) who(p push.ProductID, tag push.Tag) (users []string) {
	e.Helper()
	shards, err := e.s.Store.Tagged(e.ctx, p, Shards, tag, 100)
	if err != nil || len(shards) != Shards {
		e.Fatalf("Tagged: %d shards, %v", len(shards), err)
	}
	for i, t := range shards {
		if t.Count != len(t.Users) {
			e.Fatalf("shard %d: %d users, and told are %q", i, t.Count, t.Users)
		}
		for _, u := range t.Users {
			if push.ShardOf(u, Shards) != push.Shard(i) {
				e.Fatalf("%s is told of shard %d", u, i)
			}
			users = append(users, string(u))
		}
	}
	slices.Sort(users)
	return users
}

func tagsTellWho(e *env) {
	want := func(tag push.Tag, users ...string) {
		e.Helper()
		if got := e.who(shop, tag); !slices.Equal(got, users) {
			e.Fatalf("with tag %q there are %q, want %q", tag, got, users)
		}
	}
	const odd push.Tag = "a{}:\xff\x00*" // nothing in a tag is a pattern, or ends it
	e.open(alice, phone)
	e.open(bob, phone)
	e.open(bob, laptop)
	want("a")
	e.change(saver.TagChange{UserRef: ref(alice), Add: tags("a", odd)})
	e.change(saver.TagChange{UserRef: ref(bob), Device: phone, Add: tags("a", "b")})
	e.change(saver.TagChange{UserRef: ref(bob), Device: laptop, Joined: true, Add: tags("b", "c")})
	e.change(saver.TagChange{UserRef: ref(cathy), Add: tags("aa")})
	want("a", "alice", "bob")
	want("aa", "cathy")
	want(odd, "alice")
	want("b", "bob")
	want("c", "bob")
	want("*")
	if got := e.who("other", "a"); got != nil {
		e.Fatalf("another product has %q", got)
	}
	e.change(saver.TagChange{UserRef: ref(bob), Device: phone, Remove: tags("b")})
	want("b", "bob") // the laptop has it
	e.change(saver.TagChange{UserRef: ref(alice), Replace: true, Add: tags("c")})
	want("a", "bob")
	want(odd)
	want("c", "alice", "bob")
	if found, err := e.s.Store.DeleteDevice(e.ctx, ref(bob), laptop); err != nil || !found {
		e.Fatalf("DeleteDevice: %v, %v", found, err)
	}
	want("b")
	want("c", "alice")
	e.change(saver.TagChange{UserRef: ref(bob), Device: phone, Replace: true})
	e.change(saver.TagChange{UserRef: ref(alice), Replace: true})
	want("a")
	want("c")
}

func tagsTellSome(e *env) {
	var cs []saver.TagChange
	for i := range 60 {
		cs = append(cs, saver.TagChange{UserRef: ref(push.UserID(fmt.Sprint("user", i))), Add: tags("many")})
	}
	for _, r := range e.s.Store.ChangeTags(e.ctx, cs) {
		if r.Err != nil {
			e.Fatal(r.Err)
		}
	}
	shards, err := e.s.Store.Tagged(e.ctx, shop, Shards, "many", 2)
	if err != nil {
		e.Fatal(err)
	}
	n, told := 0, make(map[push.UserID]bool)
	for i, t := range shards {
		n += t.Count
		if len(t.Users) != min(t.Count, 2) {
			e.Fatalf("shard %d: of %d users %q", i, t.Count, t.Users)
		}
		for _, u := range t.Users {
			told[u] = true
		}
	}
	if n != 60 || len(told) > 2*Shards {
		e.Fatalf("%d users, %d told", n, len(told))
	}
}

func tagsApart(e *env) {
	e.open(alice, phone)
	e.open(alice, laptop)
	e.open(bob, phone)
	e.change(saver.TagChange{UserRef: ref(alice), Device: phone, Joined: true, Add: tags("j", "u")})
	e.change(saver.TagChange{UserRef: ref(alice), Device: phone, Add: tags("j", "p")})
	e.change(saver.TagChange{UserRef: ref(alice), Device: laptop, Joined: true, Add: tags("l")})
	e.change(saver.TagChange{UserRef: ref(alice), Add: tags("u")})
	e.wantTags(ref(alice), saver.UserTags{User: tags("u"), Devices: []saver.DeviceTags{
		{Device: laptop, Joined: tags("l")}, {Device: phone, Set: tags("j", "p"), Joined: tags("j", "u")},
	}})
	e.wantTags(ref(bob), saver.UserTags{})
	e.change(saver.TagChange{UserRef: ref(alice), Device: phone, Joined: true, Replace: true})
	e.change(saver.TagChange{UserRef: ref(alice), Device: laptop, Joined: true, Remove: tags("l")})
	e.wantTags(ref(alice), saver.UserTags{User: tags("u"), Devices: []saver.DeviceTags{{Device: phone, Set: tags("j", "p")}}})
}

func tagsOpened(e *env) {
	kept := func(want saver.KeptTags) {
		e.Helper()
		if got := e.open(alice, phone).Tags; !reflect.DeepEqual(got, want) {
			e.Fatalf("opened with %q, want %q", got, want)
		}
	}
	kept(saver.KeptTags{})
	e.change(saver.TagChange{UserRef: ref(alice), Add: tags("u")})
	kept(saver.KeptTags{Given: tags("u")})
	e.change(saver.TagChange{UserRef: ref(alice), Device: phone, Add: tags("a", "u")})
	e.change(saver.TagChange{UserRef: ref(alice), Device: phone, Joined: true, Add: tags("a", "j")})
	kept(saver.KeptTags{Given: tags("a", "u"), Joined: tags("a", "j")})
	if got := e.open(alice, laptop).Tags; !reflect.DeepEqual(got, saver.KeptTags{Given: tags("u")}) {
		e.Fatalf("another device opened with %q", got)
	}
}

// tagsOfTokens: they come with the device's arrival, its user is found by them, they are replaced as one, and go with the device.
func tagsOfTokens(e *env) {
	e.open(alice, phone)
	e.open(alice, laptop)
	who := func(tag push.Tag) int {
		e.Helper()
		shards, err := e.s.Store.Tagged(e.ctx, shop, Shards, tag, 10)
		if err != nil {
			e.Fatal(err)
		}
		n := 0
		for i := range shards {
			n += shards[i].Count
		}
		return n
	}
	token := func(d push.DeviceID, ts ...push.Tag) {
		e.Helper()
		e.change(saver.TagChange{UserRef: ref(alice), Device: d, Token: true, Replace: true, Add: ts})
	}
	token(phone, "t", "x")
	token(laptop, "t")
	e.change(saver.TagChange{UserRef: ref(alice), Device: laptop, Joined: true, Add: tags("t", "j")})
	e.change(saver.TagChange{UserRef: ref(alice), Device: laptop, Add: tags("s")})
	e.wantTags(ref(alice), saver.UserTags{Devices: []saver.DeviceTags{
		{Device: laptop, Set: tags("s"), Joined: tags("j", "t"), Token: tags("t")}, {Device: phone, Token: tags("t", "x")},
	}})
	if got, want := e.open(alice, phone).Tags, (saver.KeptTags{Token: tags("t", "x")}); !reflect.DeepEqual(got, want) {
		e.Fatalf("opened with %q, want %q", got, want)
	}
	if who("t") != 1 || who("x") != 1 {
		e.Fatal("she is not found by the tags of her token")
	}
	token(phone, "y")
	if who("x") != 0 || who("y") != 1 || who("t") != 1 {
		e.Fatal("she is not found by the tags of her newest token alone")
	}
	token(laptop) // its client joined the same tag
	if who("t") != 1 {
		e.Fatal("a tag that was joined went with the token")
	}
	e.wantTags(ref(alice), saver.UserTags{Devices: []saver.DeviceTags{
		{Device: laptop, Set: tags("s"), Joined: tags("j", "t")}, {Device: phone, Token: tags("y")},
	}})
	if found, err := e.s.Store.DeleteDevice(e.ctx, ref(alice), phone); err != nil || !found {
		e.Fatalf("DeleteDevice: %v, %v", found, err)
	}
	if who("y") != 0 {
		e.Fatal("she is found by a tag of a device that is gone")
	}
	if got := e.open(alice, phone).Tags; !reflect.DeepEqual(got, saver.KeptTags{}) {
		e.Fatalf("a deleted device came back with %q", got)
	}
}

func tagsOfTokensLimit(e *env) {
	e.open(alice, phone)
	of := saver.TagChange{UserRef: ref(alice), Device: phone, Token: true}
	full := of
	full.Add = numberedTags("t", push.MaxTags)
	e.change(saver.TagChange{UserRef: ref(alice), Device: phone, Add: numberedTags("s", push.MaxTags)})
	e.change(full)
	e.change(saver.TagChange{UserRef: ref(alice), Device: phone, Remove: numberedTags("s", 1), Add: tags("swapped")})
	of.Add = tags("one more")
	e.wantCode(e.tryChange(of).Err, push.KindConflict, "too_many_tags")
	e.change(saver.TagChange{UserRef: ref(alice), Device: phone, Replace: true})
	e.wantTags(ref(alice), saver.UserTags{Devices: []saver.DeviceTags{{Device: phone, Token: full.Add}}})
}

func tagsUnknownDevice(e *env) {
	e.open(bob, phone)
	for _, joined := range []bool{false, true} {
		r := e.tryChange(saver.TagChange{UserRef: ref(alice), Device: phone, Joined: joined, Add: tags("a")})
		e.wantCode(r.Err, push.KindNotFound, "device_not_found")
	}
	e.wantTags(ref(alice), saver.UserTags{})
}

func (e *env) wantCode(err error, k push.Kind, code string) {
	e.Helper()
	e.wantKind(code, err, k)
	var pe *push.Error
	if !errors.As(err, &pe) || pe.Code != code {
		e.Fatalf("error %v, want the code %s", err, code)
	}
}

// numberedTags returns tags that begin alike, each as long as a tag can be.
func numberedTags(prefix string, n int) (ts []push.Tag) {
	for i := range n {
		ts = append(ts, push.Tag(fmt.Sprintf("%s%0*d", prefix, push.MaxTag-len(prefix), i)))
	}
	return ts
}

func tagsLimit(e *env) {
	e.open(alice, phone)
	e.open(alice, laptop)
	of := func(d push.DeviceID, joined bool, ts ...push.Tag) saver.TagChange {
		return saver.TagChange{UserRef: ref(alice), Device: d, Joined: joined, Add: ts}
	}
	refused := func(c saver.TagChange) {
		e.Helper()
		before := e.tagsOf(ref(alice))[0]
		r := e.tryChange(c)
		e.wantCode(r.Err, push.KindConflict, "too_many_tags")
		e.wantTags(ref(alice), before)
	}
	user, set, joined := numberedTags("u", 30), numberedTags("s", 20), numberedTags("j", push.MaxTags-50)
	refused(of("", false, numberedTags("x", push.MaxTags+1)...))
	e.change(of("", false, user...))
	e.change(of(phone, false, set...))
	e.change(of(phone, true, joined...))
	e.change(of(laptop, false, numberedTags("l", 5)...)) // each device counts for itself
	for _, c := range []saver.TagChange{of("", false, "x"), of(phone, false, "x"), of(phone, true, "x")} {
		refused(c)
	}
	e.change(of(phone, true, user[0], set[0])) // has them already
	e.change(of(laptop, true, "x"))
	swap := of(phone, false, "x")
	swap.Remove = set[1:2]
	e.change(swap)
	if got := e.tagsOf(ref(alice))[0].Of(phone); len(got.Set) != 20 || len(got.Joined) != len(joined)+2 {
		e.Fatalf("%d set and %d joined", len(got.Set), len(got.Joined))
	}
}

func tagsBulk(e *env) {
	const n = 300
	users := make([]saver.UserRef, n)
	var cs []saver.TagChange
	for i := range users {
		users[i] = ref(push.UserID(fmt.Sprint("user", i)))
		cs = append(cs, saver.TagChange{UserRef: users[i], Add: tags(push.Tag(fmt.Sprint("t", i)))})
	}
	cs = append(cs,
		saver.TagChange{UserRef: users[0], Device: phone, Add: tags("x")},
		saver.TagChange{UserRef: users[1], Add: tags("y")},
		saver.TagChange{UserRef: users[1], Remove: tags("t1")})
	rs := e.s.Store.ChangeTags(e.ctx, cs)
	if len(rs) != len(cs) {
		e.Fatalf("%d results of %d changes", len(rs), len(cs))
	}
	for i, r := range rs[:n] {
		if r.Err != nil || !r.Changed || !slices.Equal(r.Tags, cs[i].Add) {
			e.Fatalf("change %d: %+v", i, r)
		}
	}
	e.wantCode(rs[n].Err, push.KindNotFound, "device_not_found")
	if !slices.Equal(rs[n+1].Tags, tags("t1", "y")) || !slices.Equal(rs[n+2].Tags, tags("y")) {
		e.Fatalf("two changes of one user: %q, %q", rs[n+1].Tags, rs[n+2].Tags)
	}
	for i, got := range e.tagsOf(append(users, ref("nobody"))...) {
		want := tags(push.Tag(fmt.Sprint("t", i)))
		switch i {
		case 1:
			want = tags("y")
		case n:
			want = nil
		}
		if !slices.Equal(got.User, want) || len(got.Devices) != 0 {
			e.Fatalf("user %d has %+v, want %q", i, got, want)
		}
	}
	if got := e.s.Store.ChangeTags(e.ctx, nil); len(got) != 0 {
		e.Fatalf("no change has %d results", len(got))
	}
}

func tagsGoWithDevice(e *env) {
	e.limits.DevicesPerUser = 2
	tag := func(d push.DeviceID) {
		e.Helper()
		e.change(saver.TagChange{UserRef: ref(alice), Device: d, Add: tags("a")})
		e.change(saver.TagChange{UserRef: ref(alice), Device: d, Joined: true, Add: tags("b")})
	}
	e.open(alice, dev(1))
	tag(dev(1))
	if found, err := e.s.Store.DeleteDevice(e.ctx, ref(alice), dev(1)); !found || err != nil {
		e.Fatal(found, err)
	}
	e.wantTags(ref(alice), saver.UserTags{})
	if got := e.open(alice, dev(1)).Tags; !reflect.DeepEqual(got, saver.KeptTags{}) {
		e.Fatalf("a deleted device came back with %q", got)
	}
	tag(dev(1))
	e.s.Clock.Advance(time.Minute)
	e.open(alice, dev(2))
	tag(dev(2))
	e.open(alice, dev(3)) // dev(1) makes room
	e.wantTags(ref(alice), saver.UserTags{Devices: []saver.DeviceTags{{Device: dev(2), Set: tags("a"), Joined: tags("b")}}})
	e.s.Clock.Advance(61 * day)
	e.open(alice, dev(3)) // forgets who was unseen for too long
	e.wantTags(ref(alice), saver.UserTags{})
	tag(dev(3))
	e.s.Clock.Advance(61 * day)
	e.sweep()
	e.wantTags(ref(alice), saver.UserTags{})
}

func tagsOutlive(e *env) {
	e.open(alice, phone)
	e.send(alice, "m")
	for _, u := range []push.UserID{alice, bob} { // bob never connects
		e.change(saver.TagChange{UserRef: ref(u), Add: tags("u")})
	}
	e.change(saver.TagChange{UserRef: ref(alice), Device: phone, Add: tags("p")})
	e.s.Clock.Advance(200 * day)
	for range 3 {
		e.sweep()
	}
	for _, u := range []push.UserID{alice, bob} {
		e.wantTags(ref(u), saver.UserTags{User: tags("u")})
		if got := e.user(u); len(got.Devices) != 0 || got.Slots[push.Own].Epoch != 0 {
			e.Fatalf("%s still has %+v", u, got)
		}
		if got := e.open(u, phone); !got.New || !slices.Equal(got.Tags.Given, tags("u")) {
			e.Fatalf("%s came back with %+v", u, got)
		}
	}
}

func tagsProducts(e *env) {
	there := ref(alice)
	there.Product = forum
	e.open(alice, phone)
	e.openWith(alice, phone, func(o *saver.Open) { o.UserRef = there })
	e.change(saver.TagChange{UserRef: ref(alice), Add: tags("shop")})
	e.change(saver.TagChange{UserRef: there, Add: tags("forum")})
	e.change(saver.TagChange{UserRef: there, Device: phone, Add: tags("p")})
	if _, err := e.s.Store.DeleteDevice(e.ctx, ref(alice), phone); err != nil {
		e.Fatal(err)
	}
	e.wantTags(ref(alice), saver.UserTags{User: tags("shop")})
	e.wantTags(there, saver.UserTags{User: tags("forum"), Devices: []saver.DeviceTags{{Device: phone, Set: tags("p")}}})
}

func tagsAnyBytes(e *env) {
	e.limits.DevicesPerUser = 1000
	ids := strange()
	for _, id := range ids {
		e.change(saver.TagChange{UserRef: ref(push.UserID(id)), Add: tags(push.Tag(id))})
		e.open(alice, push.DeviceID(id))
		e.change(saver.TagChange{UserRef: ref(alice), Device: push.DeviceID(id), Add: tags(push.Tag(id))})
	}
	of := e.tagsOf(ref(alice))[0]
	for _, id := range ids {
		e.wantTags(ref(push.UserID(id)), saver.UserTags{User: tags(push.Tag(id))})
		if got := of.Of(push.DeviceID(id)).Set; !slices.Equal(got, tags(push.Tag(id))) {
			e.Fatalf("device %q has %q", id, got)
		}
	}
	if len(of.Devices) != len(ids) {
		e.Fatalf("%d devices have tags, want %d", len(of.Devices), len(ids))
	}
}

func tagsNotAliased(e *env) {
	e.open(alice, phone)
	add := tags("a", "b")
	first := e.change(saver.TagChange{UserRef: ref(alice), Add: add})
	e.change(saver.TagChange{UserRef: ref(alice), Device: phone, Add: add})
	e.change(saver.TagChange{UserRef: ref(alice), Device: phone, Joined: true, Add: add})
	e.change(saver.TagChange{UserRef: ref(alice), Device: phone, Token: true, Add: add})
	want := e.tagsOf(ref(alice))[0].Clone()
	o := e.open(alice, phone)
	got := e.tagsOf(ref(alice))
	for _, ts := range [][]push.Tag{
		add, first.Tags, o.Tags.Given, o.Tags.Joined, o.Tags.Token,
		got[0].User, got[0].Devices[0].Set, got[0].Devices[0].Joined, got[0].Devices[0].Token,
	} {
		ts[0], ts[1] = "x", "y"
	}
	got[0].Devices[0].Device = "x"
	e.wantTags(ref(alice), want)
}

func tagsConcurrent(e *env) {
	const n = 8
	e.open(alice, phone)
	var wg sync.WaitGroup
	for w := range n {
		wg.Go(func() {
			for i := range push.MaxTags / n {
				c := saver.TagChange{UserRef: ref(alice), Add: tags(push.Tag(fmt.Sprint(w, "-", i)))}
				if w%2 == 0 {
					c.Device, c.Joined = phone, w%4 == 0
				}
				if r := e.tryChange(c); r.Err != nil || !r.Changed {
					e.Errorf("change: %+v", r)
				}
			}
		})
	}
	wg.Wait()
	if got := e.tagsOf(ref(alice))[0]; got.Count() != push.MaxTags {
		e.Fatalf("%d tags are kept, want %d: %q", got.Count(), push.MaxTags, got)
	}
}

// tagged gives alice and her phone tags.
func tagged(e *env) saver.UserTags {
	e.open(alice, phone)
	e.change(saver.TagChange{UserRef: ref(alice), Add: tags("u")})
	e.change(saver.TagChange{UserRef: ref(alice), Device: phone, Add: tags("p")})
	e.change(saver.TagChange{UserRef: ref(alice), Device: phone, Joined: true, Add: tags("j")})
	e.change(saver.TagChange{UserRef: ref(alice), Device: phone, Token: true, Add: tags("t")})
	return saver.UserTags{User: tags("u"), Devices: []saver.DeviceTags{{Device: phone, Set: tags("p"), Joined: tags("j"), Token: tags("t")}}}
}

func tagsReopened(e *env) {
	want := tagged(e)
	e.change(saver.TagChange{UserRef: ref(bob), Add: tags("b")})
	e.change(saver.TagChange{UserRef: ref(bob), Replace: true})
	for range 2 {
		e.s.Store = e.s.Reopen(e.T)
		e.wantTags(ref(alice), want)
		e.wantTags(ref(bob), saver.UserTags{})
	}
	if got := e.open(alice, phone).Tags; !slices.Equal(got.Given, tags("p", "u")) || !slices.Equal(got.Joined, tags("j")) {
		e.Fatalf("opened with %q", got)
	}
}

func tagsFallBack(e *env) {
	want := tagged(e)
	back := e.mark()
	e.change(saver.TagChange{UserRef: ref(alice), Add: tags("later")})
	e.change(saver.TagChange{UserRef: ref(alice), Device: phone, Replace: true})
	back()
	e.wantTags(ref(alice), want)
}
