package savertest

import (
	"time"

	"carillon/server/push"
	"carillon/server/saver"
)

// A slot's state, or a bucket, is lost: by a fault, or since it expired.

var lossCases = []testCase{
	{name: "SlotIsReadFromItsNewOrigin", run: lossSlot},
	{name: "CommonSlotToo", run: lossCommon},
	{name: "SlotResetsUntilAcknowledged", run: lossUntilAcked},
	{name: "SlotOldAcknowledgementsFreeNothing", run: lossOldAcks},
	{name: "SlotRecallSparesWhatLiesThereNow", run: lossRecall},
	{name: "ClockGoingBackLosesNothing", run: lossClock},
	{name: "BucketIsTold", run: lossBucket},
}

func lossSlot(e *env) {
	e.open(alice, phone)
	e.open(alice, laptop)
	seen := e.sendAll(alice, "a", "b", "c")
	e.ackOwn(alice, phone, seen)
	e.s.LoseSlot(e.T, ref(alice), push.Own)
	e.s.Clock.Advance(time.Second)
	at := e.send(alice, "d")
	if at.Epoch == seen.Epoch || at.Pos <= seen.Pos {
		e.Fatalf("the slot that came back begins at %+v, the lost one ended at %+v", at, seen)
	}
	for _, d := range []push.DeviceID{phone, laptop} {
		st := e.open(alice, d).Starts[push.Own]
		if st.How != saver.Reset || st.At != back(at, 1) {
			e.Fatalf("%s starts %+v", d, st)
		}
		st = e.presenting(alice, d, seen, push.Place{}).Starts[push.Own]
		if st.How != saver.Reset || st.At != back(at, 1) {
			e.Fatalf("%s, presenting, starts %+v", d, st)
		}
		e.wantFrom(alice, push.Own, st.At, "d")
	}
	e.wantFrom(alice, push.Own, seen, "d")
	e.send(alice, "e")
	e.wantAll(alice, push.Own, "d e")
}

func lossCommon(e *env) {
	e.open(alice, phone)
	e.publish(e.everyone("a"))
	e.publish(e.everyone("b"))
	seen := saver.HeadOf(ptr(e.state(alice, push.Common)))
	e.ackCommon(alice, phone, seen)
	e.s.LoseSlot(e.T, ref(alice), push.Common)
	e.s.Clock.Advance(time.Second)
	// The device comes back before anything is published.
	st := e.presenting(alice, phone, push.Place{}, seen).Starts[push.Common]
	if st.How != saver.Reset || st.Head != st.At.Pos || st.At.Epoch == seen.Epoch {
		e.Fatalf("start %+v", st)
	}
	e.publish(e.everyone("c"))
	st = e.presenting(alice, phone, push.Place{}, seen).Starts[push.Common]
	if st.How != saver.Reset {
		e.Fatalf("start %+v", st)
	}
	e.wantFrom(alice, push.Common, st.At, "c")
}

func lossUntilAcked(e *env) {
	e.open(alice, phone)
	e.sendAll(alice, "a")
	e.s.LoseSlot(e.T, ref(alice), push.Own)
	for range 2 { // the first answer may have been lost on its way
		if st := e.open(alice, phone).Starts[push.Own]; st.How != saver.Reset {
			e.Fatalf("start %+v", st)
		}
	}
	e.ack(saver.Ack{UserRef: ref(alice), Device: phone, Seen: true})
	if st := e.open(alice, phone).Starts[push.Own]; st.How != saver.Reset {
		e.Fatalf("start %+v", st)
	}
	at := e.send(alice, "b")
	e.ackOwn(alice, phone, at)
	if st := e.open(alice, phone).Starts[push.Own]; st.How != saver.Resumed || st.At != at {
		e.Fatalf("start %+v, want it resumed at %+v", st, at)
	}
}

func lossOldAcks(e *env) {
	e.open(alice, phone)
	seen := e.sendAll(alice, "a", "b", "c")
	e.s.LoseSlot(e.T, ref(alice), push.Own)
	e.s.Clock.Advance(time.Second)
	e.ackOwn(alice, phone, seen)
	e.sendAll(alice, "d", "e")
	e.ackOwn(alice, phone, seen)
	e.wantAll(alice, push.Own, "d e")
	e.wantFrom(alice, push.Own, e.open(alice, phone).Starts[push.Own].At, "d e")
}

// lossRecall: within the same second, the slot that came back gives the same positions again.
func lossRecall(e *env) {
	was := e.sendAll(alice, "a", "b")
	e.s.LoseSlot(e.T, ref(alice), push.Own)
	if at := e.sendAll(alice, "c", "d"); at.Pos != was.Pos {
		e.Fatalf("the new entry lies at %d, want %d", at.Pos, was.Pos)
	}
	e.recall(e.byName["b"])
	e.wantAll(alice, push.Own, "c d -b")
}

// lossClock: the clock goes back, and then a slot is made again below the positions that it had.
func lossClock(e *env) {
	e.open(alice, phone)
	a := e.send(alice, "a")
	e.s.Clock.Advance(-time.Hour)
	e.sweep()
	if b := e.send(alice, "b"); b != back(a, -1) {
		e.Fatalf("the next entry lies at %+v, after %+v", b, a)
	}
	e.ackOwn(alice, phone, a)
	e.sweep()
	e.wantFrom(alice, push.Own, e.open(alice, phone).Starts[push.Own].At, "b")
	e.wantDevices(alice, phone)
	e.s.LoseSlot(e.T, ref(alice), push.Own)
	c := e.send(alice, "c")
	if c.Pos >= a.Pos || c.Epoch == a.Epoch {
		e.Fatalf("the slot came back at %+v, it was at %+v", c, a)
	}
	st := e.presenting(alice, phone, back(a, -1), push.Place{}).Starts[push.Own]
	if st.How != saver.Reset {
		e.Fatalf("start %+v", st)
	}
	e.wantFrom(alice, push.Own, st.At, "c")
}

func lossBucket(e *env) {
	f := &push.Filter{Classes: []string{"tv"}}
	many, all := e.to("many", alice, bob), e.everyone("all")
	many.Own[0].Filter = f
	e.send(alice, "before")
	e.publish(many)
	e.publish(all)
	e.send(alice, "after")
	e.publish(e.everyone("later"))
	e.s.LoseBucket(e.T, shop, many.Message.ID)
	e.s.LoseBucket(e.T, shop, all.Message.ID)
	e.wantAll(alice, push.Own, "before ?many after")
	e.wantAll(bob, push.Own, "?many")
	e.wantAll(cathy, push.Common, "?all later")
	for _, x := range e.readAll(readOf(alice, push.Own, push.Place{})) {
		if x.Lost && (x.ID != many.Message.ID || x.Message != nil || x.Kind != saver.EntryMessage ||
			!x.Filter.Equal(f) || x.Expires == 0) {
			e.Fatalf("the lost entry is %+v", x)
		}
	}
	e.recall(many.Message.ID)
	e.wantAll(alice, push.Own, "before after -many")
}
