package savertest

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
)

var limitCases = []testCase{
	{name: "CountDropsTheOldest", run: limitCount},
	{name: "BytesDropTheOldest", run: limitBytes},
	{name: "OneLargeDropsSeveral", run: limitLarge},
	{name: "ExpiredGiveWayFirst", run: limitExpired},
	{name: "MixedTTL", run: limitMixed},
	{name: "HolesCountNothing", run: limitHoles},
	{name: "AcknowledgedCountNothing", run: limitAcked},
	{name: "AreOfOneSlot", run: limitOneSlot},
	{name: "FloorIsTold", run: limitFloorTold},
	{name: "RecallEntriesCount", run: limitRecalls},
}

// both runs a case for own and common slots: pub publishes to alice's slot of that kind.
func (e *env) both(run func(k push.SlotKind, pub func(label string, change func(*saver.Publication)) push.Place)) {
	for k := range push.SlotKind(2) {
		run(k, func(label string, change func(*saver.Publication)) push.Place {
			e.Helper()
			label = k.String() + label
			p := e.to(label, alice)
			if k == push.Common {
				p = e.everyone(label)
			}
			if change != nil {
				change(p)
			}
			r := e.publish(p)
			if k == push.Common {
				return r.Common[ref(alice).Shard().Shard].Place
			}
			return r.Own[0].Place
		})
	}
}

// with returns labels of one slot kind, as both makes them.
func with(k push.SlotKind, labels ...string) string {
	out := make([]string, len(labels))
	for i, l := range labels {
		out[i] = k.String() + l
		if rest, ok := strings.CutPrefix(l, "-"); ok {
			out[i] = "-" + k.String() + rest
		}
	}
	return strings.Join(out, " ")
}

func (e *env) limit(entries, bytes int) {
	e.limits.OwnMessages, e.limits.CommonMessages = entries, entries
	e.limits.OwnBytes, e.limits.CommonBytes = bytes, bytes
}

func (e *env) wantFloor(k push.SlotKind, want push.Position) {
	e.Helper()
	if got := e.state(alice, k).Floor; got != want {
		e.Fatalf("the floor of the %s slot is %d, want %d", k, got, want)
	}
}

func limitCount(e *env) {
	e.limit(5, 1<<20)
	e.both(func(k push.SlotKind, pub func(string, func(*saver.Publication)) push.Place) {
		var places []push.Place
		for i, l := range labelled("m", 8) {
			places = append(places, pub(l, nil))
			if i == 4 {
				e.wantFloor(k, 0)
			}
		}
		e.wantAll(alice, k, with(k, "m4", "m5", "m6", "m7", "m8"))
		e.wantFloor(k, places[2].Pos)
		if s := e.state(alice, k); s.Head != places[7].Pos {
			e.Fatalf("head %d, want %d", s.Head, places[7].Pos)
		}
	})
}

// sized makes a message count for that many bytes.
func sized(n int) func(*saver.Publication) {
	return func(p *saver.Publication) {
		fixed := p.Message.Size() - len(p.Message.Body)
		p.Message.Headers = []push.Header{{Name: "x", Value: strings.Repeat("x", n-fixed-len(p.Message.Body)-1)}}
	}
}

func limitBytes(e *env) {
	e.limit(1000, 1000)
	e.both(func(k push.SlotKind, pub func(string, func(*saver.Publication)) push.Place) {
		a := pub("a", sized(400))
		pub("b", sized(300))
		pub("c", sized(300))
		e.wantAll(alice, k, with(k, "a", "b", "c"))
		e.wantFloor(k, 0)
		pub("d", sized(101))
		e.wantAll(alice, k, with(k, "b", "c", "d"))
		e.wantFloor(k, a.Pos)
		pub("e", sized(299))
		e.wantAll(alice, k, with(k, "b", "c", "d", "e"))
		e.wantFloor(k, a.Pos)
	})
}

func limitLarge(e *env) {
	e.limit(1000, 1000)
	e.both(func(k push.SlotKind, pub func(string, func(*saver.Publication)) push.Place) {
		var last push.Place
		for _, l := range labelled("m", 9) {
			last = pub(l, sized(110))
		}
		pub("big", sized(1000))
		e.wantAll(alice, k, with(k, "big"))
		e.wantFloor(k, last.Pos)
	})
}

func limitExpired(e *env) {
	e.limit(5, 1<<20)
	e.both(func(k push.SlotKind, pub func(string, func(*saver.Publication)) push.Place) {
		short := func(p *saver.Publication) { p.TTL = time.Second }
		pub("a", nil)
		pub("s1", short)
		pub("b", nil)
		pub("s2", short)
		pub("c", nil)
		e.s.Clock.Advance(time.Second)
		pub("d", nil)
		pub("e", nil)
		e.wantAll(alice, k, with(k, "a", "b", "c", "d", "e"))
		e.wantFloor(k, 0)
		pub("f", nil)
		e.wantAll(alice, k, with(k, "b", "c", "d", "e", "f"))
		if e.state(alice, k).Floor == 0 {
			e.Fatal("a live entry was dropped in silence")
		}
	})
}

func limitMixed(e *env) {
	e.limit(4, 1<<20)
	e.both(func(k push.SlotKind, pub func(string, func(*saver.Publication)) push.Place) {
		ttl := func(d time.Duration) func(*saver.Publication) { return func(p *saver.Publication) { p.TTL = d } }
		a := pub("a", ttl(time.Hour))
		pub("b", ttl(3*time.Second))
		pub("c", ttl(2*time.Second))
		pub("d", ttl(time.Second))
		pub("e", ttl(time.Hour)) // nothing expired yet: the oldest goes
		e.wantAll(alice, k, with(k, "b", "c", "d", "e"))
		e.wantFloor(k, a.Pos)
		e.s.Clock.Advance(time.Second)
		pub("f", ttl(time.Second)) // d expired
		e.wantAll(alice, k, with(k, "b", "c", "e", "f"))
		e.wantFloor(k, a.Pos)
		e.s.Clock.Advance(2 * time.Second) // b, c, f
		for _, l := range []string{"g", "h", "i"} {
			pub(l, nil)
		}
		e.wantAll(alice, k, with(k, "e", "g", "h", "i"))
		e.wantFloor(k, a.Pos)
	})
}

func limitHoles(e *env) {
	e.limit(4, 1000)
	e.both(func(k push.SlotKind, pub func(string, func(*saver.Publication)) push.Place) {
		for _, l := range []string{"a", "b", "c"} {
			pub(l, sized(200))
		}
		for i := range 30 {
			pub(fmt.Sprint("k", i), func(p *saver.Publication) {
				p.Message.CollapseKey = "k"
				sized(400)(p)
			})
		}
		e.wantAll(alice, k, with(k, "a", "b", "c", "k29"))
		e.wantFloor(k, 0)
	})
}

func limitAcked(e *env) {
	e.limit(4, 1<<20)
	e.open(alice, phone)
	for i := range 30 {
		e.ackOwn(alice, phone, e.send(alice, fmt.Sprint("m", i)))
	}
	e.sendAll(alice, "a", "b", "c", "d")
	e.wantAll(alice, push.Own, "a b c d")
	e.wantFloor(push.Own, 0)
}

func limitOneSlot(e *env) {
	e.limit(3, 1<<20)
	e.sendAll(bob, "b1", "b2", "b3")
	e.publish(e.everyone("c1"))
	e.sendAll(alice, labelled("a", 10)...)
	e.wantAll(bob, push.Own, "b1 b2 b3")
	e.wantAll(bob, push.Common, "c1")
	e.wantAll(alice, push.Own, "a8 a9 a10")
	if s := e.state(bob, push.Own); s.Floor != 0 {
		e.Fatalf("bob's floor is %d", s.Floor)
	}
	p := e.to("both", alice, bob)
	e.publish(p)
	e.wantAll(bob, push.Own, "b2 b3 both")
	e.wantAll(alice, push.Own, "a9 a10 both")
}

func limitFloorTold(e *env) {
	e.limit(3, 1<<20)
	seen := e.open(alice, phone)
	if seen.Starts[push.Own].Floor != 0 || seen.Starts[push.Common].Floor != 0 {
		e.Fatalf("starts %+v", seen.Starts)
	}
	e.sendAll(alice, labelled("m", 5)...)
	for _, l := range labelled("c", 5) {
		e.publish(e.everyone(l))
	}
	for k, st := range e.open(alice, phone).Starts {
		s := e.state(alice, push.SlotKind(k))
		if st.How != saver.Resumed || st.At != seen.Starts[k].At || st.Floor != s.Origin+2 || st.Head != s.Head {
			e.Fatalf("slot %d: start %+v, state %+v", k, st, s)
		}
		if t := e.tail(readOf(alice, push.SlotKind(k), st.At)); t.State.Floor != s.Origin+2 {
			e.Fatalf("slot %d: read tells floor %d", k, t.State.Floor)
		}
	}
	// Somebody who begins after it sees that nothing is missing.
	own := e.open(alice, laptop).Starts[push.Own]
	if own.How != saver.AtHead || own.Floor > own.At.Pos {
		e.Fatalf("a later device starts %+v", own)
	}
	// A first device that comes after messages were dropped is told.
	e.sendAll(bob, labelled("b", 5)...)
	if st := e.open(bob, phone).Starts[push.Own]; st.How != saver.Beginning || st.Floor != st.At.Pos+2 {
		e.Fatalf("bob's first device starts %+v", st)
	}
}

func limitRecalls(e *env) {
	e.limit(3, 1<<20)
	e.both(func(k push.SlotKind, pub func(string, func(*saver.Publication)) push.Place) {
		for _, l := range []string{"a", "b", "c"} {
			pub(l, nil)
		}
		e.recall(e.byName[k.String()+"b"])
		e.wantAll(alice, k, with(k, "a", "c", "-b"))
		e.wantFloor(k, 0)
		pub("d", nil)
		e.wantAll(alice, k, with(k, "c", "-b", "d"))
		// Taking back what was dropped already leaves no hole, and needs room.
		e.recall(e.byName[k.String()+"a"])
		e.wantAll(alice, k, with(k, "-b", "d", "-a"))
		if s := e.state(alice, k); s.Floor != s.Origin+3 {
			e.Fatalf("floor %d, want %s", s.Floor, strconv.Itoa(int(s.Origin)+3))
		}
	})
}
