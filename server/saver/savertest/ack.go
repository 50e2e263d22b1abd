package savertest

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
)

var ackCases = []testCase{
	{name: "MovesForwardOnly", run: ackForward},
	{name: "MovesItsOwnCursorOnly", run: ackOwnCursor},
	{name: "IsJudgedFirst", run: ackJudged},
	{name: "FutureHidesNothing", run: ackFuture},
	{name: "TellsWhatItMoved", run: ackMoved},
	{name: "UnknownDeviceIsPassedOver", run: ackUnknownDevice},
	{name: "SaysWhichDevicesAreUnknown", run: ackSaysUnknown},
	{name: "FreesWhatAllAcknowledged", run: ackFrees},
	{name: "DeletedDeviceHoldsNothingBack", run: ackDeleted},
	{name: "WithoutDevicesNothingIsFreed", run: ackNoDevices},
	{name: "CommonSlotIsNotFreed", run: ackCommonKept},
	{name: "NotesSeenAndOnline", run: ackSeen},
	{name: "ManyInOneCall", run: ackMany},
	{name: "ConcurrentAcknowledgementsKeepTheHighest", run: ackConcurrent},
}

func (e *env) wantStored(d push.DeviceID, k push.SlotKind, want push.Place) {
	e.Helper()
	if got := e.stored(alice, d, k); got != want {
		e.Fatalf("the stored %s cursor of %s is %+v, want %+v", k, d, got, want)
	}
}

func ackForward(e *env) {
	e.open(alice, phone)
	own := e.sendAll(alice, "a", "b", "c", "d")
	for range 4 {
		e.publish(e.everyone("x"))
	}
	common := saver.HeadOf(ptr(e.state(alice, push.Common)))
	for _, c := range []struct{ ack, want int }{{3, 3}, {3, 3}, {1, 1}, {2, 1}, {4, 1}, {1, 1}, {0, 0}, {3, 0}} {
		e.ackOwn(alice, phone, back(own, c.ack))
		e.wantStored(phone, push.Own, back(own, c.want))
		e.ackCommon(alice, phone, back(common, c.ack))
		e.wantStored(phone, push.Common, back(common, c.want))
	}
}

func ackOwnCursor(e *env) {
	for _, u := range []push.UserID{alice, bob} {
		e.open(u, phone)
		e.open(u, laptop)
	}
	p := e.publish(e.to("m", alice, bob))
	e.publish(e.everyone("c"))
	common := saver.HeadOf(ptr(e.state(alice, push.Common)))
	before, others := e.device(alice, laptop), e.user(bob).Devices
	e.ack(saver.Ack{UserRef: ref(alice), Device: phone, Places: push.Cursor{p.Own[0].Place, common}})
	e.wantStored(phone, push.Own, p.Own[0].Place)
	e.wantStored(phone, push.Common, common)
	if got := e.device(alice, laptop); got != before {
		e.Fatalf("the other device went from %+v to %+v", before, got)
	}
	for i, v := range e.user(bob).Devices {
		if v != others[i] {
			e.Fatalf("another user's device went from %+v to %+v", others[i], v)
		}
	}
	e.wantAll(alice, push.Own, "m")
	e.wantAll(alice, push.Own, "m")
	// Only one of the two slots.
	e.ackOwn(alice, laptop, p.Own[0].Place)
	if got := e.device(alice, laptop); got.Cursors[push.Common] != before.Cursors[push.Common] {
		e.Fatalf("a zero place moved the common cursor to %+v", got.Cursors[push.Common])
	}
}

func ackJudged(e *env) {
	e.open(alice, phone)
	own := e.sendAll(alice, "a", "b", "c")
	e.publish(e.everyone("d"))
	common := saver.HeadOf(ptr(e.state(alice, push.Common)))
	start := e.device(alice, phone)
	for _, c := range []struct {
		name   string
		places push.Cursor
	}{
		{"unknown epochs", push.Cursor{foreign(own), foreign(common)}},
		{"unknown lineages", push.Cursor{stray(own), stray(common)}},
		{"slots exchanged", push.Cursor{common, own}},
		{"nothing", push.Cursor{}},
		{"no epoch", push.Cursor{{Lineage: own.Lineage, Pos: own.Pos}, {Lineage: common.Lineage, Pos: common.Pos}}},
	} {
		e.ack(saver.Ack{UserRef: ref(alice), Device: phone, Places: c.places})
		if got := e.device(alice, phone); got != start {
			e.Fatalf("%s: the device went from %+v to %+v", c.name, start, got)
		}
		e.wantAll(alice, push.Own, "a b c")
	}
	// One bad place does not spoil the other.
	e.ack(saver.Ack{UserRef: ref(alice), Device: phone, Places: push.Cursor{foreign(own), common}})
	e.wantStored(phone, push.Common, common)
	e.wantStored(phone, push.Own, start.Cursors[push.Own])
}

func ackFuture(e *env) {
	e.open(alice, phone)
	own := e.send(alice, "a")
	e.publish(e.everyone("b"))
	common := saver.HeadOf(ptr(e.state(alice, push.Common)))
	e.ack(saver.Ack{UserRef: ref(alice), Device: phone, Places: push.Cursor{back(own, -50), back(common, -50)}})
	e.wantStored(phone, push.Own, own)
	e.wantStored(phone, push.Common, common)
	e.send(alice, "c")
	e.publish(e.everyone("d"))
	o := e.open(alice, phone)
	e.wantFrom(alice, push.Own, o.Starts[push.Own].At, "c")
	e.wantFrom(alice, push.Common, o.Starts[push.Common].At, "d")
}

func ackMoved(e *env) {
	e.open(alice, phone)
	own := e.sendAll(alice, "a", "b", "c", "d")
	e.publish(e.everyone("x"))
	e.publish(e.everyone("y"))
	common := saver.HeadOf(ptr(e.state(alice, push.Common)))
	tell := func(a saver.Ack) saver.Moved {
		a.Moved = &saver.Moved{From: push.Cursor{foreign(own)}} // whatever stood there
		e.ack(a)
		return *a.Moved
	}
	all, none, pair := saver.Moved{Done: true}, push.Place{}, func(a, b push.Place) push.Cursor { return push.Cursor{a, b} }
	for _, c := range []struct {
		name     string
		places   push.Cursor
		from, to push.Cursor
	}{
		{"both", pair(back(own, 3), back(common, 1)), pair(back(own, 4), back(common, 2)), pair(back(own, 3), back(common, 1))},
		{"again", pair(back(own, 3), back(common, 1)), pair(back(own, 3), back(common, 1)), pair(back(own, 3), back(common, 1))},
		{"back", pair(back(own, 4), back(common, 2)), pair(back(own, 3), back(common, 1)), pair(back(own, 3), back(common, 1))},
		{"own only", pair(back(own, 1), none), pair(back(own, 3), back(common, 1)), pair(back(own, 1), back(common, 1))},
		{"unknown", pair(foreign(own), stray(common)), pair(back(own, 1), back(common, 1)), pair(back(own, 1), back(common, 1))},
		{"nothing", push.Cursor{}, pair(back(own, 1), back(common, 1)), pair(back(own, 1), back(common, 1))},
		{"future", pair(back(own, -9), back(common, -9)), pair(back(own, 1), back(common, 1)), pair(own, common)},
	} {
		want := all
		want.From, want.To = c.from, c.to
		if got := tell(saver.Ack{UserRef: ref(alice), Device: phone, Places: c.places}); got != want {
			e.Fatalf("%s: moved %+v, want %+v", c.name, got, want)
		}
	}
	for _, a := range []saver.Ack{{UserRef: ref(alice), Device: laptop}, {UserRef: ref(cathy), Device: phone}} {
		a.Places = push.Cursor{own, common}
		if got := tell(a); got != all {
			e.Fatalf("an unknown device moved %+v", got)
		}
	}
}

func ackSaysUnknown(e *env) {
	own := e.send(alice, "a")
	e.open(alice, phone)
	e.open(bob, laptop)
	var as []saver.Ack
	for _, u := range []push.UserID{cathy, alice, bob} {
		for _, d := range []push.DeviceID{phone, laptop} {
			as = append(as, saver.Ack{UserRef: ref(u), Device: d})
		}
	}
	before := [2]saver.Device{e.device(alice, phone), e.device(bob, laptop)}
	if got, want := e.ack(as...), []int{0, 1, 3, 4}; !slices.Equal(got, want) {
		e.Fatalf("unknown are %v, want %v", got, want)
	}
	if got := [2]saver.Device{e.device(alice, phone), e.device(bob, laptop)}; got != before {
		e.Fatalf("who asked just that went from %+v to %+v", before, got)
	}
	if got := e.ack(saver.Ack{UserRef: ref(alice), Device: phone, Places: push.Cursor{push.Own: own}}); got != nil {
		e.Fatalf("unknown are %v, want none", got)
	}
	if _, err := e.s.Store.DeleteDevice(e.ctx, ref(alice), phone); err != nil {
		e.Fatal(err)
	}
	if got, want := e.ack(as...), []int{0, 1, 2, 3, 4}; !slices.Equal(got, want) {
		e.Fatalf("after it was deleted unknown are %v, want %v", got, want)
	}
}

func ackUnknownDevice(e *env) {
	own := e.send(alice, "a")
	e.ackOwn(alice, phone, own)
	e.ackOwn(bob, phone, own)
	e.ack(saver.Ack{UserRef: ref(cathy), Device: phone, Seen: true, Online: time.Hour})
	for _, u := range []push.UserID{alice, bob, cathy} {
		if ds := e.user(u).Devices; len(ds) != 0 {
			e.Fatalf("an acknowledgement made %+v", ds)
		}
	}
	e.wantAll(alice, push.Own, "a")
	e.open(alice, phone)
	e.ackOwn(alice, laptop, own)
	e.wantAll(alice, push.Own, "a")
}

func ackFrees(e *env) {
	devices := []push.DeviceID{phone, laptop, tablet}
	for _, d := range devices {
		e.open(alice, d)
	}
	last := e.sendAll(alice, "a", "b", "c", "d")
	for _, c := range []struct {
		device push.DeviceID
		back   int
		want   string
	}{
		{phone, 0, "a b c d"}, {laptop, 2, "a b c d"}, {tablet, 3, "b c d"}, {tablet, 1, "c d"},
		{laptop, 0, "d"}, {laptop, 0, "d"}, {tablet, 0, ""},
	} {
		e.ackOwn(alice, c.device, back(last, c.back))
		e.wantAll(alice, push.Own, c.want)
	}
	if s := e.state(alice, push.Own); s.Floor != 0 || s.Head != last.Pos {
		e.Fatalf("freeing changed the state to %+v", s)
	}
	if at := e.send(alice, "e"); at.Pos != last.Pos+1 || at.Epoch != last.Epoch {
		e.Fatalf("the next entry lies at %+v", at)
	}
	e.wantAll(alice, push.Own, "e")
}

func ackDeleted(e *env) {
	e.open(alice, phone)
	e.open(alice, laptop)
	last := e.sendAll(alice, "a", "b", "c")
	e.ackOwn(alice, phone, back(last, 1))
	e.wantAll(alice, push.Own, "a b c")
	if _, err := e.s.Store.DeleteDevice(e.ctx, ref(alice), laptop); err != nil {
		e.Fatal(err)
	}
	e.wantAll(alice, push.Own, "c")
	e.ackOwn(alice, laptop, last)
	e.wantAll(alice, push.Own, "c")
}

func ackNoDevices(e *env) {
	e.sendAll(alice, "a", "b")
	e.open(alice, phone)
	if _, err := e.s.Store.DeleteDevice(e.ctx, ref(alice), phone); err != nil {
		e.Fatal(err)
	}
	e.send(alice, "c")
	e.sweep()
	e.wantAll(alice, push.Own, "a b c")
	o := e.open(alice, laptop)
	e.wantFrom(alice, push.Own, o.Starts[push.Own].At, "a b c")
}

func ackCommonKept(e *env) {
	e.open(alice, phone)
	e.publish(e.everyone("a"))
	e.publish(e.everyone("b"))
	e.ackCommon(alice, phone, saver.HeadOf(ptr(e.state(alice, push.Common))))
	e.wantAll(alice, push.Common, "a b")
	o := e.openWith(alice, laptop, func(o *saver.Open) { o.FirstVisit.Common = push.StartBeginning })
	e.wantFrom(alice, push.Common, o.Starts[push.Common].At, "a b")
}

func ackSeen(e *env) {
	e.open(alice, phone)
	born := e.device(alice, phone)
	e.s.Clock.Advance(time.Minute)
	e.ack(saver.Ack{UserRef: ref(alice), Device: phone, Online: 90 * time.Second})
	if got := e.device(alice, phone); got.Seen != born.Seen || got.Online != 90*time.Second {
		e.Fatalf("device %+v", got)
	}
	e.ack(saver.Ack{UserRef: ref(alice), Device: phone, Seen: true, Online: 1500 * time.Millisecond})
	want := born
	want.Seen, want.Online = e.s.Clock.Milli(), 91500*time.Millisecond
	if got := e.device(alice, phone); got != want {
		e.Fatalf("device %+v, want %+v", got, want)
	}
}

func ackMany(e *env) {
	users := usersOfShards()
	var as []saver.Ack
	for i, u := range users {
		e.open(u, phone)
		at := e.sendAll(u, "a", "b", "c")
		as = append(as, saver.Ack{UserRef: ref(u), Device: phone, Places: push.Cursor{push.Own: back(at, 1)}})
		switch i % 3 {
		case 1: // again, further
			as = append(as, saver.Ack{UserRef: ref(u), Device: phone, Places: push.Cursor{push.Own: at}})
		case 2: // again, back, and by somebody unknown
			as = append(as, saver.Ack{UserRef: ref(u), Device: phone, Places: push.Cursor{push.Own: back(at, 2)}},
				saver.Ack{UserRef: ref(u), Device: tablet, Places: push.Cursor{push.Own: at}})
		}
	}
	e.ack(as...)
	for i, u := range users {
		want := "c"
		if i%3 == 1 {
			want = ""
		}
		e.wantAll(u, push.Own, want)
	}
	e.ack()
}

func ackConcurrent(e *env) {
	const n = 40
	e.open(alice, phone)
	e.open(alice, laptop)
	last := e.sendAll(alice, labelled("m", n)...)
	var wg sync.WaitGroup
	var moved [3][]saver.Moved
	for w, d := range []push.DeviceID{phone, phone, laptop} {
		wg.Go(func() {
			for i := range n {
				p := back(last, (i*7+w*3)%n)
				a := saver.Ack{UserRef: ref(alice), Device: d, Places: push.Cursor{push.Own: p}, Moved: &saver.Moved{}}
				if _, err := e.s.Store.Ack(e.ctx, []saver.Ack{a}); err != nil {
					e.Errorf("Ack: %v", err)
				}
				moved[w] = append(moved[w], *a.Moved)
				if _, err := e.s.Store.Read(e.ctx, []saver.Read{readOf(alice, push.Own, p)}); err != nil {
					e.Errorf("Read: %v", err)
				}
			}
		})
	}
	more := make([]*saver.Publication, n)
	for i := range more {
		more[i] = e.to(fmt.Sprint("n", i), alice)
	}
	wg.Go(func() {
		for _, p := range more {
			if r := e.s.Store.Publish(e.ctx, []*saver.Publication{p})[0]; r.Err != nil {
				e.Errorf("Publish: %v", r.Err)
			}
		}
	})
	wg.Wait()
	e.wantStored(phone, push.Own, last)
	e.wantStored(laptop, push.Own, last)
	for d, ms := range map[push.DeviceID][]saver.Moved{phone: slices.Concat(moved[0], moved[1]), laptop: moved[2]} {
		times := make(map[push.Position]int)
		for _, m := range ms {
			for p := m.From[push.Own].Pos + 1; m.Done && p <= m.To[push.Own].Pos; p++ {
				times[p]++
			}
		}
		for p := last.Pos - n + 1; p <= last.Pos; p++ {
			if times[p] != 1 {
				e.Fatalf("acknowledgements of %s moved over a position %d times", d, times[p])
			}
		}
	}
	if got := len(e.readAll(readOf(alice, push.Own, push.Place{}))); got != n {
		e.Fatalf("%d entries, want the %d that nobody acknowledged", got, n)
	}
}
