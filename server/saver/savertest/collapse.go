package savertest

import (
	"time"

	"carillon/server/push"
	"carillon/server/saver"
)

var collapseCases = []testCase{
	{name: "NewerReplacesOlder", run: collapseNewer},
	{name: "OnlySameKey", run: collapseOnlySameKey},
	{name: "OnlySameFilter", run: collapseOnlySameFilter},
	{name: "OnlySameSlot", run: collapseOnlySameSlot},
	{name: "RaisesNoFloor", run: collapseNoFloor},
	{name: "AfterTheOlderIsGone", run: collapseAfterGone},
	{name: "ProductsAreApart", run: collapseProducts},
}

func collapsing(key string, f *push.Filter) func(*saver.Publication) {
	return func(p *saver.Publication) {
		p.Message.CollapseKey = key
		if p.Everyone {
			p.Filter = f
			return
		}
		for i := range p.Own {
			p.Own[i].Filter = f
		}
	}
}

func collapseNewer(e *env) {
	e.both(func(k push.SlotKind, pub func(string, func(*saver.Publication)) push.Place) {
		first := pub("a", collapsing("k", nil))
		pub("b", nil)
		pub("c", collapsing("k", nil))
		e.wantAll(alice, k, with(k, "b", "c"))
		pub("d", collapsing("k", nil))
		e.wantAll(alice, k, with(k, "b", "d"))
		if s := e.state(alice, k); s.Head != first.Pos+3 {
			e.Fatalf("head %d, want %d", s.Head, first.Pos+3)
		}
	})
}

func collapseOnlySameKey(e *env) {
	e.both(func(k push.SlotKind, pub func(string, func(*saver.Publication)) push.Place) {
		for _, c := range []struct{ label, key string }{
			{"a", ""}, {"b", ""}, {"c", "k"}, {"d", "K"}, {"e", "k:"}, {"f", "kk"}, {"g", ":k"}, {"h", "{k}"}, {"i", "k/"},
		} {
			pub(c.label, collapsing(c.key, nil))
		}
		e.wantAll(alice, k, with(k, "a", "b", "c", "d", "e", "f", "g", "h", "i"))
	})
}

func collapseOnlySameFilter(e *env) {
	filters := []*push.Filter{
		nil,
		{Devices: []push.DeviceID{phone}},
		{Devices: []push.DeviceID{laptop, phone}},
		{Platforms: push.PlatformSet(0).Add(push.PlatformWeb)},
		{Classes: []string{"phone"}},
		{Devices: []push.DeviceID{phone}, Classes: []string{"phone"}},
		{Tags: having("phone")},
		{Tags: having("phone", "web")},
		{Tags: &push.TagExpr{Not: having("phone").All}},
		{Classes: []string{"phone"}, Tags: having("phone")},
	}
	e.both(func(k push.SlotKind, pub func(string, func(*saver.Publication)) push.Place) {
		var first, second []string
		for i, l := range labelled("m", len(filters)) {
			pub(l, collapsing("k", filters[i]))
			first, second = append(first, l), append(second, l+"n")
		}
		e.wantAll(alice, k, with(k, first...))
		for i, l := range second {
			pub(l, collapsing("k", saver.CloneFilter(filters[i])))
		}
		e.wantAll(alice, k, with(k, second...))
		pub("zero", collapsing("k", &push.Filter{})) // the same as none
		e.wantAll(alice, k, with(k, append(second[1:], "zero")...))
	})
}

func collapseOnlySameSlot(e *env) {
	p := e.to("a", alice, bob)
	collapsing("k", nil)(p)
	e.publish(p)
	p = e.everyone("b")
	collapsing("k", nil)(p)
	e.publish(p)
	p = e.to("c", alice)
	collapsing("k", nil)(p)
	e.publish(p)
	e.wantAll(alice, push.Own, "c")
	e.wantAll(bob, push.Own, "a")
	e.wantAll(alice, push.Common, "b")
	p = e.to("d", cathy, bob, alice)
	collapsing("k", nil)(p)
	e.publish(p)
	for _, u := range []push.UserID{alice, bob, cathy} {
		e.wantAll(u, push.Own, "d")
		e.wantAll(u, push.Common, "b")
	}
}

func collapseNoFloor(e *env) {
	e.open(alice, phone)
	e.both(func(k push.SlotKind, pub func(string, func(*saver.Publication)) push.Place) {
		for _, l := range labelled("m", 20) {
			pub(l, collapsing("k", nil))
		}
		e.wantFloor(k, 0)
	})
}

func collapseAfterGone(e *env) {
	e.open(alice, phone)
	ways := []struct {
		name string
		gone func(label string, at push.Place)
	}{
		{"recalled", func(label string, _ push.Place) { e.recall(e.byName[label]) }},
		{"acknowledged", func(_ string, at push.Place) { e.ackOwn(alice, phone, at) }},
		{"expired", func(string, push.Place) { e.s.Clock.Advance(time.Minute) }},
		{"swept", func(string, push.Place) { e.s.Clock.Advance(time.Minute); e.sweep() }},
	}
	for _, w := range ways {
		old := e.to("old "+w.name, alice)
		old.TTL = time.Minute
		collapsing("k", nil)(old)
		at := e.publish(old).Own[0].Place
		w.gone("old "+w.name, at)
		p := e.to("new "+w.name, alice)
		collapsing("k", nil)(p)
		r := e.publish(p)
		if got := e.show(e.readAll(readOf(alice, push.Own, at))); got != "new "+w.name && got != "-old "+w.name+" new "+w.name {
			e.Fatalf("%s: the slot holds %q", w.name, got)
		}
		e.ackOwn(alice, phone, r.Own[0].Place)
	}
}

func collapseProducts(e *env) {
	p := e.to("shop", alice)
	collapsing("k", nil)(p)
	e.publish(p)
	q := e.to("forum", alice)
	q.Product = forum
	collapsing("k", nil)(q)
	e.publish(q)
	e.wantAll(alice, push.Own, "shop")
}
