package savertest

import (
	"reflect"
	"sync"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
)

var sweepCases = []testCase{
	{name: "ChangesNothingThatIsLive", run: sweepLive},
	{name: "ExpiredRaisesNoFloor", run: sweepExpired},
	{name: "ForgetsUnseenDevices", run: sweepUnseen},
	{name: "StateOutlivesCursors", run: sweepStateKept},
	{name: "StateNobodyNeedsIsForgotten", run: sweepStateForgotten},
	{name: "SlotThatExpiredComesBack", run: sweepComesBack},
	{name: "WhileOthersWork", run: sweepConcurrent},
}

const day = 24 * time.Hour

func sweepLive(e *env) {
	e.open(alice, phone)
	e.open(bob, phone)
	own, common := holed(e)
	before := e.user(alice)
	for range 3 {
		e.sweep()
	}
	e.wantAll(alice, push.Own, own)
	e.wantAll(alice, push.Common, common)
	after := e.user(alice)
	for k := range after.Slots {
		if a, b := after.Slots[k], before.Slots[k]; !reflect.DeepEqual(a, b) {
			e.Fatalf("a sweep made %+v of %+v", a, b)
		}
	}
	if after.Devices[0] != before.Devices[0] {
		e.Fatalf("a sweep made %+v of %+v", after.Devices[0], before.Devices[0])
	}
}

func sweepExpired(e *env) {
	e.limit(5, 1<<20)
	e.both(func(k push.SlotKind, pub func(string, func(*saver.Publication)) push.Place) {
		for i, l := range labelled("m", 5) {
			pub(l, func(p *saver.Publication) { p.TTL = time.Duration(5-i) * time.Hour })
		}
		e.s.Clock.Advance(2 * time.Hour)
		e.sweep()
		e.wantAll(alice, k, with(k, "m1", "m2", "m3"))
		e.wantFloor(k, 0)
		pub("n1", nil)
		pub("n2", nil)
		e.wantAll(alice, k, with(k, "m1", "m2", "m3", "n1", "n2"))
		e.wantFloor(k, 0)
	})
}

func sweepUnseen(e *env) {
	e.openDevices(alice, 2)
	last := e.sendAll(alice, "a", "b")
	e.ackOwn(alice, dev(1), back(last, 1))
	for range 59 {
		e.s.Clock.Advance(day)
		e.ack(saver.Ack{UserRef: ref(alice), Device: dev(1), Seen: true})
		e.sweep()
	}
	e.wantDevices(alice, dev(1), dev(2))
	p := e.to("c", alice)
	e.publish(p)
	e.s.Clock.Advance(day + time.Minute)
	e.sweep()
	e.wantDevices(alice, dev(1))
	e.wantAll(alice, push.Own, "c")
	if st := e.open(alice, dev(1)).Starts[push.Own]; st.How != saver.Resumed || st.At != back(last, 1) || st.Floor != 0 {
		e.Fatalf("start %+v", st)
	}
	e.ackOwn(alice, dev(1), saver.HeadOf(ptr(e.state(alice, push.Own))))
	e.wantAll(alice, push.Own, "")
	if o := e.open(alice, dev(2)); !o.New {
		e.Fatal("a forgotten device is known")
	}
}

func sweepStateKept(e *env) {
	o := e.open(alice, phone)
	last := e.sendAll(alice, "a")
	e.ackOwn(alice, phone, last)
	for range 100 {
		e.s.Clock.Advance(day)
		e.ack(saver.Ack{UserRef: ref(alice), Device: phone, Seen: true})
		if e.s.Clock.Now().Day()%10 == 0 {
			e.sweep()
		}
	}
	e.sweep()
	if at := e.send(alice, "b"); at.Epoch != last.Epoch || at.Pos != last.Pos+1 {
		e.Fatalf("after 100 days the slot goes on at %+v, it was at %+v", at, last)
	}
	e.publish(e.everyone("c"))
	st := e.presenting(alice, phone, last, o.Starts[push.Common].At).Starts
	for k, want := range []string{"b", "c"} {
		if st[k].How != saver.Resumed {
			e.Fatalf("slot %d starts %+v", k, st[k])
		}
		e.wantFrom(alice, push.SlotKind(k), st[k].At, want)
	}
}

func sweepStateForgotten(e *env) {
	e.open(alice, phone)
	e.send(alice, "a")
	e.send(bob, "b")
	e.publish(e.everyone("c"))
	e.s.Clock.Advance(30 * day)
	e.sweep()
	for _, u := range []push.UserID{alice, bob} {
		if e.state(u, push.Own).Epoch == 0 || e.state(u, push.Common).Epoch == 0 {
			e.Fatalf("the slots of %s were forgotten after 30 days", u)
		}
	}
	e.s.Clock.Advance(40 * day)
	for range 2 {
		e.sweep()
	}
	for _, u := range []push.UserID{alice, bob} {
		if got := e.user(u); len(got.Devices) != 0 || got.Slots[push.Own].Epoch != 0 || got.Slots[push.Common].Epoch != 0 {
			e.Fatalf("after 70 days %s still has %+v", u, got)
		}
	}
}

func sweepComesBack(e *env) {
	o := e.open(alice, phone)
	last := e.sendAll(alice, "a", "b")
	e.publish(e.everyone("c"))
	e.s.Clock.Advance(70 * day)
	for range 2 {
		e.sweep()
	}
	at := e.send(alice, "d")
	e.publish(e.everyone("f"))
	if at.Epoch == last.Epoch || at.Pos <= last.Pos {
		e.Fatalf("the slot came back at %+v, it was at %+v", at, last)
	}
	st := e.presenting(alice, phone, last, o.Starts[push.Common].At).Starts
	for k, want := range []string{"d", "f"} {
		if st[k].How != saver.Reset {
			e.Fatalf("slot %d starts %+v", k, st[k])
		}
		e.wantFrom(alice, push.SlotKind(k), st[k].At, want)
	}
}

func sweepConcurrent(e *env) {
	const n = 60
	ps := make([]*saver.Publication, n)
	for i, l := range labelled("m", n) {
		ps[i] = e.to(l, alice, bob)
		if i%4 == 3 {
			ps[i] = e.everyone(l)
		}
	}
	e.open(alice, phone)
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		defer close(done)
		for i, p := range ps {
			if r := e.s.Store.Publish(e.ctx, []*saver.Publication{p})[0]; r.Err != nil {
				e.Errorf("Publish: %v", r.Err)
			}
			if i%10 == 0 {
				if _, err := e.s.Store.Open(e.ctx, e.opening(bob, dev(i))); err != nil {
					e.Errorf("Open: %v", err)
				}
			}
		}
	})
	for working := true; working; {
		if err := e.s.Sweep(e.ctx); err != nil {
			e.Fatalf("Sweep: %v", err)
		}
		select {
		case <-done:
			working = false
		default:
		}
	}
	wg.Wait()
	for _, u := range []push.UserID{alice, bob} {
		own, common := len(e.readAll(readOf(u, push.Own, push.Place{}))), len(e.readAll(readOf(u, push.Common, push.Place{})))
		if own != n*3/4 || common != n/4 {
			e.Fatalf("%s has %d own and %d common entries, want %d and %d", u, own, common, n*3/4, n/4)
		}
	}
}
