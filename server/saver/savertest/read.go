package savertest

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
)

var readCases = []testCase{
	{name: "CutAtEachPointCoversAllOnce", run: readCuts},
	{name: "FromEachPosition", run: readFromEach},
	{name: "IsRepeatable", run: readRepeatable},
	{name: "BytesEndATail", run: readBytes},
	{name: "SlotThatDoesNotExist", run: readNoSlot},
	{name: "PlacesAreJudged", run: readJudged},
	{name: "OneCallManySlots", run: readMany},
	{name: "ExpiredIsAHole", run: readExpired},
	{name: "ThroughCoversAllHoles", run: readAllHoles},
}

// holed fills alice's two slots with entries and every kind of hole, and returns what each still holds.
func holed(e *env) (own, common string) {
	for i, l := range labelled("m", 40) {
		for _, p := range []*saver.Publication{e.to(l, alice), e.everyone(l + "c")} {
			switch i % 5 {
			case 1:
				p.TTL = time.Second
			case 2:
				p.Message.CollapseKey = "k"
			case 4:
				p.Own = append(p.Own, saver.Target{User: bob})
				if p.Everyone {
					p.Own = nil
				}
			}
			e.publish(p)
		}
	}
	for _, l := range []string{"m1", "m6", "m40"} {
		e.recall(e.byName[l])
		e.recall(e.byName[l+"c"])
	}
	e.s.Clock.Advance(time.Second)
	var want []string
	for i, l := range labelled("m", 40) {
		if i%5 != 1 && (i%5 != 2 || i == 37) && l != "m1" && l != "m6" && l != "m40" {
			want = append(want, l)
		}
	}
	want = append(want, "-m1", "-m6", "-m40")
	own = strings.Join(want, " ")
	for i, l := range want {
		want[i] = l + "c"
	}
	return own, strings.Join(want, " ")
}

func readCuts(e *env) {
	own, common := holed(e)
	for k, want := range []string{own, common} {
		for cut := 1; cut <= 45; cut++ {
			r := readOf(alice, push.SlotKind(k), push.Place{})
			r.MaxEntries = cut
			if got := e.show(e.readAll(r)); got != want {
				e.Fatalf("in cuts of %d: %q, want %q", cut, got, want)
			}
			r.MaxEntries, r.MaxBytes = 100, 40*cut
			if got := e.show(e.readAll(r)); got != want {
				e.Fatalf("in cuts of %d bytes: %q, want %q", r.MaxBytes, got, want)
			}
		}
	}
}

func readFromEach(e *env) {
	own, common := holed(e)
	for k, all := range []string{own, common} {
		kind := push.SlotKind(k)
		s := e.state(alice, kind)
		entries := e.readAll(readOf(alice, kind, push.Place{}))
		if got := e.show(entries); got != all {
			e.Fatalf("%q, want %q", got, all)
		}
		for pos := s.Origin; pos <= s.Head; pos++ {
			var want []saver.Entry
			for _, x := range entries {
				if x.Pos > pos {
					want = append(want, x)
				}
			}
			e.wantFrom(alice, kind, push.Place{Epoch: s.Epoch, Lineage: s.Lineage(), Pos: pos}, e.show(want))
		}
	}
}

func readRepeatable(e *env) {
	holed(e)
	before := e.user(alice)
	r := readOf(alice, push.Own, push.Place{})
	r.MaxEntries = 7
	first := e.tail(r)
	for range 3 {
		if again := e.tail(r); !reflect.DeepEqual(again, first) {
			e.Fatalf("read %+v, then %+v", first, again)
		}
	}
	if after := e.user(alice); !reflect.DeepEqual(after, before) {
		e.Fatal("reading changed what is stored")
	}
}

func readBytes(e *env) {
	for _, l := range []string{"a", "b", "c", "d"} {
		e.send(alice, l)
		e.publish(e.everyone(l + l))
	}
	for k := range 2 {
		r := readOf(alice, push.SlotKind(k), push.Place{})
		size := e.tail(r).Entries[0].Message.Size()
		for _, c := range []struct{ max, want int }{
			{1, 1}, {size - 1, 1}, {size, 1}, {size + 1, 2}, {2 * size, 2}, {2*size + 1, 3}, {4 * size, 4}, {1 << 30, 4},
		} {
			r.MaxBytes = c.max
			if got := len(e.tail(r).Entries); got != c.want {
				e.Fatalf("%d messages of %d bytes with MaxBytes %d, want %d", got, size, c.max, c.want)
			}
		}
	}
}

func readNoSlot(e *env) {
	e.send(bob, "m")
	for _, k := range []push.SlotKind{push.Own, push.Common} {
		for _, from := range []push.Place{{}, {Epoch: 7, Lineage: 7, Pos: 7}} {
			got := e.tail(readOf(alice, k, from))
			want := saver.Tail{Lineage: e.lineage(), Now: e.s.Clock.Milli()}
			if got.Known || got.More() || len(got.Entries) > 0 || !reflect.DeepEqual(got.State, push.SlotState{}) ||
				got.Lineage != want.Lineage || got.Now != want.Now {
				e.Fatalf("a slot that does not exist was read as %+v", got)
			}
		}
	}
}

func readJudged(e *env) {
	last := e.sendAll(alice, "a", "b", "c")
	s := e.state(alice, push.Own)
	at := func(pos push.Position) push.Place {
		return push.Place{Epoch: last.Epoch, Lineage: last.Lineage, Pos: pos}
	}
	cases := []struct {
		name  string
		from  push.Place
		start push.Position
		known bool
		want  string
	}{
		{"none", push.Place{}, s.Origin, false, "a b c"},
		{"origin", at(s.Origin), s.Origin, true, "a b c"},
		{"first", at(s.Origin + 1), s.Origin + 1, true, "b c"},
		{"head", at(s.Head), s.Head, true, ""},
		{"future", at(s.Head + 1000), s.Head, true, ""},
		{"far future", at(1<<53 - 1), s.Head, true, ""},
		{"another epoch", push.Place{Epoch: last.Epoch + 1, Lineage: last.Lineage, Pos: last.Pos}, s.Origin, false, "a b c"},
		{"another lineage", push.Place{Epoch: last.Epoch, Lineage: last.Lineage + 1, Pos: last.Pos}, s.Origin, false, "a b c"},
	}
	for _, c := range cases {
		t := e.tail(readOf(alice, push.Own, c.from))
		if t.Start != at(c.start) || t.Known != c.known || e.show(t.Entries) != c.want || t.Through != s.Head {
			e.Fatalf("%s: start %+v, known %v, %q through %d", c.name, t.Start, t.Known, e.show(t.Entries), t.Through)
		}
		if !reflect.DeepEqual(t.State, s) {
			e.Fatalf("%s: state %+v, want %+v", c.name, t.State, s)
		}
	}
	// A place before the origin is one of the slot's, if it says so; it reads everything.
	if t := e.tail(readOf(alice, push.Own, at(1))); e.show(t.Entries) != "a b c" {
		e.Fatalf("a place before the origin reads %q", e.show(t.Entries))
	}
}

func readMany(e *env) {
	e.sendAll(alice, "a", "b")
	e.sendAll(bob, "c")
	e.publish(e.everyone("d"))
	one := readOf(alice, push.Own, push.Place{})
	one.MaxEntries = 1
	rs := []saver.Read{
		readOf(bob, push.Own, push.Place{}), one, readOf(cathy, push.Own, push.Place{}),
		readOf(alice, push.Common, push.Place{}), one,
	}
	ts, err := e.s.Store.Read(e.ctx, rs)
	if err != nil {
		e.Fatal(err)
	}
	var got []string
	for _, t := range ts {
		got = append(got, e.show(t.Entries))
	}
	if want := []string{"c", "a", "", "d", "a"}; !reflect.DeepEqual(got, want) {
		e.Fatalf("tails %q, want %q", got, want)
	}
	if ts, err := e.s.Store.Read(e.ctx, nil); err != nil || len(ts) != 0 {
		e.Fatalf("no requests: %v, %v", ts, err)
	}
}

func readExpired(e *env) {
	for i, ttl := range []time.Duration{time.Hour, time.Second, time.Minute, time.Hour} {
		for _, p := range []*saver.Publication{e.to(fmt.Sprint("m", i), alice), e.everyone(fmt.Sprint("m", i))} {
			p.TTL = ttl
			e.publish(p)
		}
	}
	for _, c := range []struct {
		by   time.Duration
		want string
	}{
		{0, "m0 m1 m2 m3"}, {999 * time.Millisecond, "m0 m1 m2 m3"}, {time.Millisecond, "m0 m2 m3"},
		{59 * time.Second, "m0 m3"}, {time.Hour, ""},
	} {
		e.s.Clock.Advance(c.by)
		for k := range push.SlotKind(2) {
			all := e.readAll(readOf(alice, k, push.Place{}))
			var got []string
			for _, x := range all {
				got = append(got, strings.Trim(string(x.Message.Body), `"`))
			}
			if g := strings.Join(got, " "); g != c.want {
				e.Fatalf("after %v more: %q, want %q", c.by, g, c.want)
			}
			if s := e.state(alice, k); s.Floor != 0 || s.Head != s.Origin+4 {
				e.Fatalf("expiry changed the slot's state to %+v", s)
			}
		}
	}
}

func readAllHoles(e *env) {
	for _, l := range labelled("m", 200) {
		p := e.to(l, alice)
		p.TTL = time.Second
		e.publish(p)
	}
	e.s.Clock.Advance(time.Minute)
	if got := e.readAll(readOf(alice, push.Own, push.Place{})); len(got) != 0 {
		e.Fatalf("%d entries", len(got))
	}
	at := e.send(alice, "after")
	r := readOf(alice, push.Own, push.Place{})
	r.MaxEntries, r.MaxBytes = 1, 1
	if got := e.readAll(r); len(got) != 1 || got[0].Pos != at.Pos {
		e.Fatalf("entries %+v", got)
	}
}
