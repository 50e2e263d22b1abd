package savertest

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"

	"carillon/server/push"
	"carillon/server/saver"
)

var identityCases = []testCase{
	{name: "ProductsAreApart", run: productsApart},
	{name: "AnyBytesInIds", run: anyBytes},
	{name: "ResultsAreNotAliased", run: notAliased},
	{name: "ArgumentsAreNotKept", run: argumentsNotKept},
}

var closeCases = []testCase{
	{name: "EveryMethodFails", run: closedFails},
	{name: "CallsUnderWayFinishOrFail", run: closedUnderWay},
}

func productsApart(e *env) {
	e.open(alice, phone)
	at := e.send(alice, "shop")
	p := e.to("forum", alice)
	p.Product = forum
	q := e.everyone("forum all")
	q.Product = forum
	e.publish(p)
	e.publish(q)
	e.wantAll(alice, push.Own, "shop")
	e.wantAll(alice, push.Common, "")
	there := ref(alice)
	there.Product = forum
	o := e.openWith(alice, phone, func(o *saver.Open) { o.UserRef = there })
	if !o.New || o.Starts[push.Own].How != saver.Beginning {
		e.Fatalf("a device of another product is %+v", o)
	}
	e.ack(saver.Ack{UserRef: there, Device: phone, Places: push.Cursor{push.Own: at}})
	e.ack(saver.Ack{UserRef: there, Device: phone, Places: push.Cursor{push.Own: o.Starts[push.Own].At}})
	e.wantAll(alice, push.Own, "shop")
	r := readOf(alice, push.Own, push.Place{})
	r.Product = forum
	if got := e.show(e.readAll(r)); got != "forum" {
		e.Fatalf("the other product's slot holds %q", got)
	}
	if _, err := e.s.Store.DeleteDevice(e.ctx, there, phone); err != nil {
		e.Fatal(err)
	}
	if got := e.device(alice, phone); got.Device != phone {
		e.Fatalf("device %+v", got)
	}
	e.s.LoseSlot(e.T, there, push.Own)
	e.s.LoseSlot(e.T, there, push.Common)
	e.wantAll(alice, push.Own, "shop")
}

// strange are ids that a store might take apart wrongly, or take for each other.
func strange() []string {
	ids := []string{
		"a", "ab", "a:b", "a:", ":a", "a/b", "a/", "{a}", "{a", "a}", "{a}b", "a\x00", "a\x00b", "\x00", "\x00\x00", "\x01",
		"a\xff", "\xff", "\xff\xff", "%00", "%7Ba%7D", "␀", "ä", "*", "?", "a b", " ", "0", "00", "own", "common",
	}
	for _, c := range []string{"x", "{", ":", "\x00", "\xff"} {
		ids = append(ids, strings.Repeat(c, 128), strings.Repeat(c, 127))
	}
	return ids
}

func anyBytes(e *env) {
	ids := strange()
	places := make(map[string]push.Place)
	for i, id := range ids {
		u := push.UserID(id)
		for j, d := range ids[:i%5+1] {
			if o := e.open(u, push.DeviceID(d)); !o.New || j == 0 && o.Starts[push.Own].How != saver.Beginning {
				e.Fatalf("device %q of user %q is %+v", d, id, o)
			}
		}
		places[id] = e.sendAll(u, labelled("m"+id+"/", i%3+2)...)
	}
	for i, id := range ids {
		u := push.UserID(id)
		want := labelled("m"+id+"/", i%3+2)
		e.wantAll(u, push.Own, strings.Join(want, " "))
		us := e.user(u)
		if len(us.Devices) != i%5+1 {
			e.Fatalf("user %q has %d devices, want %d", id, len(us.Devices), i%5+1)
		}
		got, err := e.s.Store.Heads(e.ctx, ref(u).Shard(), []push.UserID{u})
		if err != nil || got[0] != places[id] {
			e.Fatalf("the head of user %q is %+v, %v; want %+v", id, got, err, places[id])
		}
		for _, d := range us.Devices {
			e.ackOwn(u, d.Device, back(places[id], 1))
		}
		e.wantAll(u, push.Own, want[len(want)-1])
	}
	for _, id := range ids {
		if ok, err := e.s.Store.DeleteDevice(e.ctx, ref(push.UserID(id)), push.DeviceID(ids[0])); !ok || err != nil {
			e.Fatalf("DeleteDevice(%q) = %v, %v", id, ok, err)
		}
	}
	for i, id := range ids {
		if got := len(e.user(push.UserID(id)).Devices); got != i%5 {
			e.Fatalf("user %q has %d devices left, want %d", id, got, i%5)
		}
	}
}

func notAliased(e *env) {
	f := &push.Filter{Devices: []push.DeviceID{phone}, Classes: []string{"c"}}
	e.s.Locator.SetRooms(shop, alice, "r1", "r2")
	e.open(alice, phone)
	p, q := e.to("m", alice), e.everyone("all")
	p.Own[0].Filter, q.Filter = f, saver.CloneFilter(f)
	id := p.Message.ID
	r := e.publish(p)
	e.publish(q)
	look := func() []any {
		u, c := e.user(alice), e.changes("r1", ref(alice).Shard(), 0)
		h, err := e.s.Store.Heads(e.ctx, ref(alice).Shard(), []push.UserID{alice})
		if err != nil {
			e.Fatal(err)
		}
		return []any{
			e.tail(readOf(alice, push.Own, push.Place{})), e.tail(readOf(alice, push.Common, push.Place{})),
			u, c, h, e.record(id), e.record(q.Message.ID),
		}
	}
	want := describe(look())
	for _, v := range look() {
		scribble(reflect.ValueOf(&v).Elem(), 0)
	}
	scribble(reflect.ValueOf(&r.Own).Elem(), 0)
	if got := describe(look()); got != want {
		e.Fatalf("changing results changed the store:\n%s\nbefore:\n%s", got, want)
	}
	if rooms := e.s.Locator.RoomsOf(shop, []push.UserID{alice})[0]; rooms[0] != "r1" {
		e.Fatalf("changing results changed the locator: %v", rooms)
	}
}

// describe writes values with what their pointers point at.
func describe(vs []any) string {
	var b strings.Builder
	for _, v := range vs {
		switch v := v.(type) {
		case saver.Tail:
			for _, x := range v.Entries {
				fmt.Fprintf(&b, "%d %d %d %+v; ", x.Pos, x.ID, x.Expires, *x.Filter)
			}
			fmt.Fprintf(&b, "%+v %+v\n", v.State, v.Start)
		case saver.Record:
			fmt.Fprintf(&b, "%d %+v ", v.Message.ID, v.Common)
			if v.Filter != nil {
				fmt.Fprintf(&b, "%+v ", *v.Filter)
			}
			for _, o := range v.Own {
				fmt.Fprintf(&b, "%s %+v %+v\n", o.User, *o.Filter, o.Place)
			}
		default:
			fmt.Fprintf(&b, "%+v\n", v)
		}
	}
	return b.String()
}

// scribble overwrites every element of every slice below v, except below messages, which are immutable.
func scribble(v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Interface:
		c := reflect.New(v.Elem().Type()).Elem()
		c.Set(v.Elem())
		scribble(c, depth+1)
	case reflect.Pointer:
		if !v.IsNil() && v.Type() != reflect.TypeFor[*push.Message]() {
			scribble(v.Elem(), depth+1)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			scribble(v.Field(i), depth+1)
		}
	case reflect.Array:
		for i := range v.Len() {
			scribble(v.Index(i), depth+1)
		}
	case reflect.Slice:
		for i := range v.Len() {
			scribble(v.Index(i), depth+1)
			v.Index(i).SetZero()
		}
	}
}

func argumentsNotKept(e *env) {
	f := &push.Filter{Devices: []push.DeviceID{phone}, Classes: []string{"c"}}
	p, q := e.to("m", alice, bob), e.everyone("all")
	p.Own[0].Filter, q.Filter = f, saver.CloneFilter(f)
	want := saver.CloneFilter(f)
	e.publish(p)
	e.publish(q)
	f.Devices[0], f.Classes[0] = "other", "other"
	q.Filter.Devices[0] = "other"
	p.Own[0] = saver.Target{User: cathy}
	for k := range push.SlotKind(2) {
		if got := e.readAll(readOf(alice, k, push.Place{}))[0].Filter; !got.Equal(want) {
			e.Fatalf("filter %+v, want %+v", got, want)
		}
	}
	if got := e.record(p.Message.ID).Own[0]; got.User != alice || !got.Filter.Equal(want) {
		e.Fatalf("record %+v", got)
	}
	if got := e.record(q.Message.ID).Filter; !got.Equal(want) {
		e.Fatalf("record's filter %+v", got)
	}
	c := push.Cursor{e.send(bob, "b"), {}}
	e.openWith(bob, phone, func(o *saver.Open) { o.Presented = &c })
	at := c[push.Own]
	c[push.Own] = push.Place{}
	if got := e.stored(bob, phone, push.Own); got != at {
		e.Fatalf("stored %+v, want %+v", got, at)
	}
}

func closedFails(e *env) {
	at := e.send(alice, "m")
	e.open(alice, phone)
	durability := e.s.Store.Durability()
	if err := e.s.Store.Health(e.ctx); err != nil {
		e.Fatalf("Health before Close: %v", err)
	}
	for range 2 {
		if err := e.s.Store.Close(); err != nil {
			e.Fatalf("Close: %v", err)
		}
	}
	s := e.s.Store
	rs := s.Publish(e.ctx, []*saver.Publication{e.to("a", alice), e.everyone("b")})
	if len(rs) != 2 {
		e.Fatalf("%d results", len(rs))
	}
	calls := map[string]error{"Publish": rs[0].Err, "Publish to everyone": rs[1].Err, "Health": s.Health(e.ctx)}
	_, calls["Recall"] = s.Recall(e.ctx, e.recalling(e.byName["m"]))
	_, calls["Message"] = s.Message(e.ctx, shop, e.byName["m"])
	c := e.campaign("c")
	calls["Fence"] = s.Fence(e.ctx, c.fenceOf(1))
	calls["Batches"] = s.Batches(e.ctx, []*saver.Batch{c.own(0, alice)})[0].Err
	_, calls["BatchRecords"] = s.BatchRecords(e.ctx, saver.BatchesRef{ShardRef: ref(alice).Shard(), ID: c.m.ID}, []int{0})
	_, calls["Open"] = s.Open(e.ctx, e.opening(alice, phone))
	_, calls["Read"] = s.Read(e.ctx, []saver.Read{readOf(alice, push.Own, at)})
	_, calls["Ack"] = s.Ack(e.ctx, []saver.Ack{{UserRef: ref(alice), Device: phone, Places: push.Cursor{push.Own: at}}})
	_, calls["User"] = s.User(e.ctx, ref(alice))
	_, calls["DeleteDevice"] = s.DeleteDevice(e.ctx, ref(alice), phone)
	_, calls["Tags"] = s.Tags(e.ctx, []saver.UserRef{ref(alice)})
	_, calls["Tagged"] = s.Tagged(e.ctx, shop, Shards, "a", 1)
	calls["ChangeTags"] = s.ChangeTags(e.ctx, []saver.TagChange{{UserRef: ref(alice), Add: tags("a")}})[0].Err
	_, calls["Changes"] = s.Changes(e.ctx, "r1", []saver.ChangeQuery{{ShardRef: ref(alice).Shard()}})
	_, calls["Heads"] = s.Heads(e.ctx, ref(alice).Shard(), []push.UserID{alice})
	_, calls["Lineage"] = s.Lineage(e.ctx)
	for name, err := range calls {
		e.wantKind(name, err, push.KindClosed)
	}
	if s.Durability() != durability {
		e.Fatal("the durability changed")
	}
}

func closedUnderWay(e *env) {
	const n = 4
	e.open(alice, phone)
	var wg sync.WaitGroup
	started := make(chan struct{}, n)
	for w := range n {
		ps := make([]*saver.Publication, 500)
		for i := range ps {
			ps[i] = e.to(fmt.Sprint(w, "-", i), alice, bob)
		}
		wg.Go(func() {
			for i, p := range ps {
				r := e.s.Store.Publish(e.ctx, []*saver.Publication{p})[0]
				if i == 0 {
					started <- struct{}{}
				}
				if r.Err != nil {
					var pe *push.Error
					if !errors.As(r.Err, &pe) || pe.Kind != push.KindClosed && pe.Kind != push.KindUnavailable {
						e.Errorf("Publish: %v", r.Err)
					}
					return
				}
				if len(r.Own) != 2 || r.Own[0].Place.IsZero() || r.Own[1].Place.IsZero() {
					e.Errorf("Publish: %+v", r)
				}
			}
		})
	}
	for range n {
		<-started
	}
	if err := e.s.Store.Close(); err != nil {
		e.Errorf("Close: %v", err)
	}
	wg.Wait()
}
