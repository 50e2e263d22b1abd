package savertest

import (
	"time"

	"carillon/server/push"
	"carillon/server/saver"
)

var recordCases = []testCase{
	{name: "OfUsers", run: recordUsers},
	{name: "OfEveryone", run: recordEveryone},
	{name: "OfARecalledMessage", run: recordRecalled},
	{name: "LastsUntilTheMessageExpired", run: recordLasts},
	{name: "OutlivesItsEntries", run: recordOutlives},
	{name: "UnknownIsNotFound", run: recordUnknown},
	{name: "SurvivesReopening", needs: canReopen, run: recordReopen},
}

func (e *env) record(id push.MsgID) saver.Record {
	e.Helper()
	r, err := e.s.Store.Message(e.ctx, shop, id)
	if err != nil {
		e.Fatalf("Message: %v", err)
	}
	return r
}

func recordUsers(e *env) {
	e.send(bob, "before")
	p := e.to("m", alice, bob)
	p.Own[1].Filter = &push.Filter{Devices: []push.DeviceID{phone}}
	p.Message.Ref, p.Message.CollapseKey = "order-7", "k"
	p.Message.Headers, p.Message.Task = []push.Header{{Name: "a", Value: "b"}}, true
	pub := e.publish(p)
	e.s.Clock.Advance(time.Second)
	r := e.record(p.Message.ID)
	want := *pub.Message
	want.Body = nil
	e.wantMessage("the record's message", r.Message, want)
	if r.Recalled != 0 || r.Everyone || r.Filter != nil || r.Common != nil || r.Now != e.s.Clock.Milli() || len(r.Own) != 2 {
		e.Fatalf("record %+v", r)
	}
	for i, o := range r.Own {
		if o.User != p.Own[i].User || !o.Filter.Equal(p.Own[i].Filter) || o.Place != pub.Own[i].Place {
			e.Fatalf("place %d is %+v, want %+v", i, o, pub.Own[i])
		}
	}
}

func recordEveryone(e *env) {
	p := e.everyone("m")
	p.Filter = &push.Filter{Classes: []string{"tv"}}
	pub := e.publish(p)
	r := e.record(p.Message.ID)
	if !r.Everyone || !r.Filter.Equal(p.Filter) || r.Own != nil || len(r.Common) != Shards || r.Message.ID != p.Message.ID {
		e.Fatalf("record %+v", r)
	}
	for i, at := range r.Common {
		if at != pub.Common[i].Place {
			e.Fatalf("shard %d: %+v, want %+v", i, at, pub.Common[i].Place)
		}
	}
}

func recordRecalled(e *env) {
	at := e.send(alice, "m")
	e.s.Clock.Advance(time.Second)
	when := e.s.Clock.Milli()
	e.recall(e.byName["m"])
	e.s.Clock.Advance(time.Second)
	e.recall(e.byName["m"])
	r := e.record(e.byName["m"])
	if r.Recalled != when || r.Own[0].Place != at {
		e.Fatalf("record %+v, want it recalled at %d and placed at %+v", r, when, at)
	}
}

func recordLasts(e *env) {
	p := e.to("m", alice)
	p.TTL = time.Hour
	e.publish(p)
	e.s.Clock.Advance(time.Hour - time.Millisecond)
	e.sweep()
	e.record(p.Message.ID)
	e.s.Clock.Advance(time.Millisecond + saver.RecordKept)
	_, err := e.s.Store.Message(e.ctx, shop, p.Message.ID)
	e.wantKind("the record of a message long expired", err, push.KindNotFound)
	e.sweep()
	_, err = e.s.Store.Message(e.ctx, shop, p.Message.ID)
	e.wantKind("the record of a message long expired, after a sweep", err, push.KindNotFound)
}

func recordOutlives(e *env) {
	e.open(alice, phone)
	at := e.send(alice, "m")
	e.ackOwn(alice, phone, at)
	if r := e.record(e.byName["m"]); r.Own[0].Place != at {
		e.Fatalf("record %+v", r)
	}
	e.s.LoseSlot(e.T, ref(alice), push.Own)
	if r := e.record(e.byName["m"]); r.Own[0].Place != at {
		e.Fatalf("record %+v", r)
	}
}

func recordUnknown(e *env) {
	e.send(alice, "m")
	_, err := e.s.Store.Message(e.ctx, shop, e.lastID+1)
	e.wantKind("an unknown message", err, push.KindNotFound)
	_, err = e.s.Store.Message(e.ctx, forum, e.lastID)
	e.wantKind("another product's message", err, push.KindNotFound)
}

func recordReopen(e *env) {
	at := e.send(alice, "m")
	e.s.Store = e.s.Reopen(e.T)
	if r := e.record(e.byName["m"]); r.Own[0].Place != at || r.Message.Body != nil {
		e.Fatalf("record %+v", r)
	}
	e.wantAll(alice, push.Own, "m")
}
