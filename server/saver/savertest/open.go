package savertest

import (
	"sync"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
)

var openCases = []testCase{
	{name: "FirstVisit", run: openFirstVisit},
	{name: "PresentedDecides", run: openPresented},
	{name: "StoredIsUsedWhenNothingIsPresented", run: openStored},
	{name: "PresentingMovesNothing", run: openMovesNothing},
	{name: "SlotsExistAfterwards", run: openMakesSlots},
	{name: "NewDeviceWithAnOldCursor", run: openReturning},
	{name: "DeviceIsStored", run: openDevice},
	{name: "ManyAtOnceAreOneDevice", run: openAtOnce},
	{name: "DeletedDeviceIsNew", run: openDeleted},
	{name: "DeviceSurvivesReopening", needs: canReopen, run: openReopen},
}

func openFirstVisit(e *env) {
	b, h := push.StartBeginning, push.StartHead
	const beginning, atHead = saver.Beginning, saver.AtHead
	cases := []struct {
		name              string
		rule              push.FirstVisit
		first, later, all saver.How
	}{
		{"defaults", push.FirstVisit{}, beginning, atHead, atHead},
		{"all at the beginning", push.FirstVisit{First: b, Later: b, Common: b}, beginning, beginning, beginning},
		{"all at the head", push.FirstVisit{First: h, Later: h, Common: h}, atHead, atHead, atHead},
		{"only the first at the head", push.FirstVisit{First: h, Later: b}, atHead, beginning, atHead},
	}
	for _, c := range cases {
		u := push.UserID("user of " + c.name)
		e.sendAll(u, "a", "b")
		e.publish(e.everyone("c"))
		for i, d := range []push.DeviceID{phone, laptop, tablet} {
			o := e.openWith(u, d, func(o *saver.Open) { o.FirstVisit = c.rule })
			want := [2]saver.How{c.later, c.all}
			if i == 0 {
				want[push.Own] = c.first
			}
			if !o.New || len(o.Forgotten) > 0 || o.Lineage != e.lineage() || o.Now != e.s.Clock.Milli() {
				e.Fatalf("%s: %s: opened %+v", c.name, d, o)
			}
			for k := range o.Starts {
				e.wantStart(u, push.SlotKind(k), o.Starts[k], want[k])
			}
		}
	}
}

// wantStart checks the start of a new device.
func (e *env) wantStart(u push.UserID, k push.SlotKind, st saver.Start, want saver.How) {
	e.Helper()
	s := e.state(u, k)
	at := s.Origin
	if want == saver.AtHead {
		at = s.Head
	}
	place := push.Place{Epoch: s.Epoch, Lineage: s.Lineage(), Pos: at}
	if st != (saver.Start{At: place, How: want, Head: s.Head, Floor: s.Floor, Stored: place}) {
		e.Fatalf("the %s slot of %s starts %+v, want %d at %d; the slot is %+v", k, u, st, want, at, s)
	}
}

func openPresented(e *env) {
	e.open(alice, phone)
	own := e.sendAll(alice, "a", "b", "c", "d")
	for _, l := range []string{"ca", "cb", "cc"} {
		e.publish(e.everyone(l))
	}
	common := saver.HeadOf(ptr(e.state(alice, push.Common)))
	e.ackOwn(alice, phone, back(own, 2))
	e.ackCommon(alice, phone, back(common, 1))
	origin := [2]push.Position{e.state(alice, push.Own).Origin, e.state(alice, push.Common).Origin}
	type start struct {
		pos push.Position
		how saver.How
	}
	resumed := func(o, c int) [2]start {
		return [2]start{{back(own, o).Pos, saver.Resumed}, {back(common, c).Pos, saver.Resumed}}
	}
	reset := [2]start{{origin[0], saver.Reset}, {origin[1], saver.Reset}}
	cases := []struct {
		name        string
		own, common push.Place
		want        [2]start
	}{
		{"as stored", back(own, 2), back(common, 1), resumed(2, 1)},
		{"ahead", own, common, resumed(0, 0)},
		{"behind", back(own, 3), back(common, 3), resumed(3, 3)},
		{"future", back(own, -100), back(common, -100), resumed(0, 0)},
		{"own only", own, push.Place{}, resumed(0, 1)},
		{"common only", push.Place{}, common, resumed(2, 0)},
		{"nothing", push.Place{}, push.Place{}, resumed(2, 1)},
		{"unknown epochs", foreign(own), foreign(common), reset},
		{"unknown lineages", stray(own), stray(common), reset},
		{"slots exchanged", common, own, reset},
	}
	for _, c := range cases {
		o := e.presenting(alice, phone, c.own, c.common)
		if o.New {
			e.Fatalf("%s: a known device is new", c.name)
		}
		for k, want := range c.want {
			s := e.state(alice, push.SlotKind(k))
			at := push.Place{Epoch: s.Epoch, Lineage: s.Lineage(), Pos: want.pos}
			stored := [2]push.Place{back(own, 2), back(common, 1)}[k]
			if got := o.Starts[k]; got != (saver.Start{At: at, How: want.how, Head: s.Head, Stored: stored}) {
				e.Fatalf("%s: slot %d starts %+v, want %d at %+v", c.name, k, got, want.how, at)
			}
		}
	}
}

// back returns a place n positions earlier; foreign one of another epoch, stray one of another lineage.
func back(p push.Place, n int) push.Place {
	p.Pos = push.Position(int64(p.Pos) - int64(n))
	return p
}

func foreign(p push.Place) push.Place {
	p.Epoch++
	return p
}

func stray(p push.Place) push.Place {
	p.Lineage++
	return p
}

func openStored(e *env) {
	own := e.sendAll(alice, "a", "b")
	e.open(alice, phone)
	if st := e.open(alice, phone).Starts[push.Own]; st.How != saver.Resumed || st.At != back(own, 2) {
		e.Fatalf("a device that acknowledged nothing starts %+v", st)
	}
	e.publish(e.everyone("c"))
	common := saver.HeadOf(ptr(e.state(alice, push.Common)))
	e.ackOwn(alice, phone, own)
	e.ackCommon(alice, phone, common)
	e.sendAll(alice, "d")
	o := e.open(alice, phone)
	if st := o.Starts[push.Own]; st.How != saver.Resumed || st.At != own || st.Head != own.Pos+1 {
		e.Fatalf("own slot starts %+v, want %+v", st, own)
	}
	if st := o.Starts[push.Common]; st.How != saver.Resumed || st.At != common {
		e.Fatalf("common slot starts %+v, want %+v", st, common)
	}
	e.wantFrom(alice, push.Own, o.Starts[push.Own].At, "d")
}

func openMovesNothing(e *env) {
	e.open(alice, phone)
	e.open(alice, laptop)
	last := e.sendAll(alice, "a", "b", "c")
	e.ackOwn(alice, phone, back(last, 1))
	e.ackOwn(alice, laptop, back(last, 2))
	for _, p := range []push.Place{last, back(last, 3), back(last, -9), foreign(last), stray(last)} {
		e.presenting(alice, phone, p, push.Place{})
		if got := e.stored(alice, phone, push.Own); got != back(last, 1) {
			e.Fatalf("presenting %+v moved the stored cursor to %+v", p, got)
		}
		if got := e.stored(alice, laptop, push.Own); got != back(last, 2) {
			e.Fatalf("presenting %+v moved another device's cursor to %+v", p, got)
		}
	}
	e.wantAll(alice, push.Own, "b c")
}

func openMakesSlots(e *env) {
	o := e.open(alice, phone)
	for k, st := range o.Starts {
		s := e.state(alice, push.SlotKind(k))
		if s.Epoch == 0 || s.Head != s.Origin || st.At != saver.HeadOf(&s) || s.Origin != push.FirstPosition(e.s.Clock.Milli()) {
			e.Fatalf("slot %d starts %+v and is %+v", k, st, s)
		}
	}
	e.s.Clock.Advance(time.Hour)
	e.send(alice, "a")
	e.publish(e.everyone("b"))
	e.wantFrom(alice, push.Own, o.Starts[push.Own].At, "a")
	e.wantFrom(alice, push.Common, o.Starts[push.Common].At, "b")
	if st := e.open(alice, phone).Starts[push.Common]; st.How != saver.Resumed || st.At != o.Starts[push.Common].At {
		e.Fatalf("start %+v", st)
	}
}

func openReturning(e *env) {
	e.open(alice, phone)
	last := e.sendAll(alice, "a", "b", "c")
	if ok, err := e.s.Store.DeleteDevice(e.ctx, ref(alice), phone); !ok || err != nil {
		e.Fatal(ok, err)
	}
	o := e.presenting(alice, phone, back(last, 1), push.Place{})
	if st := o.Starts[push.Own]; !o.New || st.How != saver.Resumed || st.At != back(last, 1) {
		e.Fatalf("opened %+v", o)
	}
	if st := o.Starts[push.Common]; st.How != saver.AtHead {
		e.Fatalf("the slot without a cursor starts %+v", st)
	}
	if got := e.stored(alice, phone, push.Own); got != back(last, 1) {
		e.Fatalf("stored %+v", got)
	}
	o = e.presenting(alice, laptop, foreign(last), push.Place{})
	if st := o.Starts[push.Own]; !o.New || st.How != saver.Reset || st.At != back(last, 3) {
		e.Fatalf("opened %+v", o)
	}
}

func openDevice(e *env) {
	e.sendAll(alice, "a", "b")
	born := e.s.Clock.Milli()
	o := e.open(alice, phone)
	e.s.Clock.Advance(time.Minute)
	e.open(alice, laptop)
	want := saver.Device{
		DeviceFacts: push.DeviceFacts{Device: phone, Platform: push.PlatformWeb, Class: "web"},
		Since:       born, Seen: born,
		Cursors: push.Cursor{o.Starts[0].At, o.Starts[1].At},
		Start:   push.Cursor{o.Starts[0].At, o.Starts[1].At},
	}
	if got := e.device(alice, phone); got != want {
		e.Fatalf("stored %+v, want %+v", got, want)
	}
	e.s.Clock.Advance(time.Minute)
	e.openWith(alice, phone, func(o *saver.Open) { o.Facts.Platform, o.Facts.Class = push.PlatformAndroid, "app" })
	want.Platform, want.Class, want.Seen = push.PlatformAndroid, "app", e.s.Clock.Milli()
	if got := e.device(alice, phone); got != want {
		e.Fatalf("stored %+v, want %+v", got, want)
	}
	u := e.user(alice)
	e.wantDevices(alice, laptop, phone)
	if u.Lineage != e.lineage() || u.Now != e.s.Clock.Milli() {
		e.Fatalf("user %+v", u)
	}
	if u := e.user(bob); len(u.Devices) != 0 || u.Slots[push.Own].Epoch != 0 {
		e.Fatalf("a user of whom nothing is stored is %+v", u)
	}
}

func openAtOnce(e *env) {
	const n = 30
	e.sendAll(alice, "a", "b")
	os, errs := make([]saver.Opened, n), make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { os[i], errs[i] = e.s.Store.Open(e.ctx, e.opening(alice, phone)) })
	}
	wg.Wait()
	created := 0
	for i, o := range os {
		if errs[i] != nil {
			e.Fatal(errs[i])
		}
		if o.New {
			created++
		}
		if o.Starts[push.Own].At != os[0].Starts[push.Own].At {
			e.Fatalf("starts %+v and %+v", o.Starts, os[0].Starts)
		}
	}
	if created != 1 || len(e.user(alice).Devices) != 1 {
		e.Fatalf("%d times new, %d devices", created, len(e.user(alice).Devices))
	}
}

func openDeleted(e *env) {
	e.open(alice, phone)
	last := e.sendAll(alice, "a", "b")
	e.ackOwn(alice, phone, back(last, 1))
	for _, want := range []bool{true, false} {
		got, err := e.s.Store.DeleteDevice(e.ctx, ref(alice), phone)
		if got != want || err != nil {
			e.Fatalf("DeleteDevice = %v, %v; want %v", got, err, want)
		}
	}
	for _, u := range []push.UserID{bob, alice} {
		if got, err := e.s.Store.DeleteDevice(e.ctx, ref(u), laptop); got || err != nil {
			e.Fatalf("DeleteDevice of an unknown device = %v, %v", got, err)
		}
	}
	if len(e.user(alice).Devices) != 0 {
		e.Fatal("the device is still there")
	}
	e.wantAll(alice, push.Own, "b")
	o := e.open(alice, phone)
	if !o.New || o.Starts[push.Own].How != saver.Beginning {
		e.Fatalf("opened %+v", o)
	}
}

func openReopen(e *env) {
	e.open(alice, phone)
	last := e.sendAll(alice, "a", "b", "c")
	e.ackOwn(alice, phone, back(last, 1))
	before := e.device(alice, phone)
	e.s.Store = e.s.Reopen(e.T)
	if got := e.device(alice, phone); got != before {
		e.Fatalf("stored %+v, before %+v", got, before)
	}
	e.send(alice, "d")
	st := e.open(alice, phone).Starts[push.Own]
	if st.How != saver.Resumed || st.At.Pos != last.Pos-1 {
		e.Fatalf("start %+v, want it resumed at %d", st, last.Pos-1)
	}
	e.wantFrom(alice, push.Own, st.At, "c d")
	st = e.presenting(alice, phone, last, push.Place{}).Starts[push.Own]
	if st.How != saver.Resumed || st.At.Pos != last.Pos {
		e.Fatalf("start %+v, want it resumed at %d", st, last.Pos)
	}
}
