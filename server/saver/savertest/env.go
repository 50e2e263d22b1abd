package savertest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
)

const (
	shop  = push.ProductID("shop")
	forum = push.ProductID("forum")

	alice = push.UserID("alice")
	bob   = push.UserID("bob")
	cathy = push.UserID("cathy")

	phone  = push.DeviceID("phone")
	laptop = push.DeviceID("laptop")
	tablet = push.DeviceID("tablet")
)

// week is the time to live of messages of which a case says nothing else.
const week = 7 * 24 * time.Hour

// env is a case at work: a store, and words to say what is done to it. Messages are told apart by label: the label is
// the message's body, and what is read comes back as labels.
type env struct {
	*testing.T
	s      *Subject
	ctx    context.Context
	limits push.Limits
	lastID push.MsgID
	labels map[push.MsgID]string
	byName map[string]push.MsgID
}

func newEnv(t *testing.T, s *Subject) *env {
	return &env{
		T: t, s: s, ctx: t.Context(), limits: push.Limits{}.WithDefaults(), lastID: 1000,
		labels: make(map[push.MsgID]string), byName: make(map[string]push.MsgID),
	}
}

func ref(u push.UserID) saver.UserRef { return saver.UserRef{Product: shop, Shards: Shards, User: u} }

// message returns a persistent message of that label with a fresh id.
func (e *env) message(label string) *push.Message {
	e.lastID++
	e.labels[e.lastID], e.byName[label] = label, e.lastID
	return &push.Message{ID: e.lastID, Body: []byte(strconv.Quote(label)), Persistent: true}
}

// to returns a publication to users' own slots, everyone one to the common slots.
func (e *env) to(label string, users ...push.UserID) *saver.Publication {
	p := &saver.Publication{Product: shop, Shards: Shards, Limits: e.limits, Message: e.message(label), TTL: week}
	for _, u := range users {
		p.Own = append(p.Own, saver.Target{User: u})
	}
	return p
}

func (e *env) everyone(label string) *saver.Publication {
	p := e.to(label)
	p.Everyone = true
	return p
}

// publish publishes one and fails the test on an error.
func (e *env) publish(p *saver.Publication) saver.Published {
	e.Helper()
	r := e.try(p)
	if r.Err != nil {
		e.Fatalf("Publish(%s): %v", e.labels[p.Message.ID], r.Err)
	}
	return r
}

func (e *env) try(p *saver.Publication) saver.Published {
	e.Helper()
	rs := e.s.Store.Publish(e.ctx, []*saver.Publication{p})
	if len(rs) != 1 {
		e.Fatalf("Publish of one publication returned %d results", len(rs))
	}
	return rs[0]
}

// send publishes to one user and returns the entry's place; sendAll does so for several labels.
func (e *env) send(u push.UserID, label string) push.Place {
	e.Helper()
	return e.publish(e.to(label, u)).Own[0].Place
}

func (e *env) sendAll(u push.UserID, labels ...string) (last push.Place) {
	e.Helper()
	for _, l := range labels {
		last = e.send(u, l)
	}
	return last
}

// open opens a web device without a cursor.
func (e *env) open(u push.UserID, d push.DeviceID) saver.Opened {
	e.Helper()
	return e.openWith(u, d, nil)
}

// openWith opens a device after change was applied to the request.
func (e *env) openWith(u push.UserID, d push.DeviceID, change func(*saver.Open)) saver.Opened {
	e.Helper()
	o := e.opening(u, d)
	if change != nil {
		change(&o)
	}
	r, err := e.s.Store.Open(e.ctx, o)
	if err != nil {
		e.Fatalf("Open(%s of %s): %v", d, u, err)
	}
	return r
}

func (e *env) opening(u push.UserID, d push.DeviceID) saver.Open {
	facts := push.DeviceFacts{Device: d, Platform: push.PlatformWeb, Class: "web"}
	return saver.Open{UserRef: ref(u), Facts: facts, Limits: e.limits}
}

// presenting opens a device that shows places.
func (e *env) presenting(u push.UserID, d push.DeviceID, own, common push.Place) saver.Opened {
	e.Helper()
	return e.openWith(u, d, func(o *saver.Open) { o.Presented = &push.Cursor{own, common} })
}

// ackOwn acknowledges the own slot up to a place, ackCommon the common one.
func (e *env) ackOwn(u push.UserID, d push.DeviceID, p push.Place) {
	e.Helper()
	e.ack(saver.Ack{UserRef: ref(u), Device: d, Places: push.Cursor{push.Own: p}})
}

func (e *env) ackCommon(u push.UserID, d push.DeviceID, p push.Place) {
	e.Helper()
	e.ack(saver.Ack{UserRef: ref(u), Device: d, Places: push.Cursor{push.Common: p}})
}

func (e *env) ack(as ...saver.Ack) (unknown []int) {
	e.Helper()
	unknown, err := e.s.Store.Ack(e.ctx, as)
	if err != nil {
		e.Fatalf("Ack: %v", err)
	}
	return unknown
}

func readOf(u push.UserID, k push.SlotKind, from push.Place) saver.Read {
	return saver.Read{ShardRef: ref(u).Shard(), Slot: k, User: u, From: from, MaxEntries: 100000, MaxBytes: 1 << 30}
}

// tail reads once.
func (e *env) tail(r saver.Read) saver.Tail {
	e.Helper()
	ts, err := e.s.Store.Read(e.ctx, []saver.Read{r})
	if err != nil {
		e.Fatalf("Read: %v", err)
	}
	if len(ts) != 1 {
		e.Fatalf("Read of one request returned %d tails", len(ts))
	}
	return ts[0]
}

// readAll reads from a place to the head, however often that takes, and checks what holds of every tail.
func (e *env) readAll(r saver.Read) []saver.Entry {
	e.Helper()
	var all []saver.Entry
	for {
		t := e.tail(r)
		e.checkTail(r, t)
		all = append(all, t.Entries...)
		if !t.More() {
			return all
		}
		r.From = push.Place{Epoch: t.State.Epoch, Lineage: t.State.Lineage(), Pos: t.Through}
	}
}

// checkTail checks what holds of every tail of a slot that exists.
func (e *env) checkTail(r saver.Read, t saver.Tail) {
	e.Helper()
	if t.State.Epoch == 0 {
		if len(t.Entries) > 0 || t.Known || t.More() {
			e.Fatalf("a slot that does not exist was read as %+v", t)
		}
		return
	}
	start, known := t.State.Resolve(r.From)
	if t.Start != start || t.Known != known {
		e.Fatalf("Start = %+v, %v; Resolve says %+v, %v", t.Start, t.Known, start, known)
	}
	if t.Through > t.State.Head || t.Through < t.Start.Pos || t.Through == t.Start.Pos && t.More() {
		e.Fatalf("Through = %d after %d, with the head at %d", t.Through, t.Start.Pos, t.State.Head)
	}
	if len(t.Entries) > r.MaxEntries {
		e.Fatalf("%d entries, at most %d were asked for", len(t.Entries), r.MaxEntries)
	}
	last := t.Start.Pos
	for _, x := range t.Entries {
		if x.Pos <= last || x.Pos > t.Through {
			e.Fatalf("an entry at %d, after %d and with Through %d", x.Pos, last, t.Through)
		}
		if x.Expires <= t.Now {
			e.Fatalf("an entry that expired %d ms ago", t.Now-x.Expires)
		}
		last = x.Pos
	}
}

// show writes entries as labels: a recall with '-', a lost one with '?'.
func (e *env) show(entries []saver.Entry) string {
	var out []string
	for _, x := range entries {
		l := e.labels[x.ID]
		switch {
		case x.Kind == saver.EntryRecall:
			l = "-" + l
		case x.Lost:
			l = "?" + l
		case x.Message == nil:
			l = "nil:" + l
		case string(x.Message.Body) != strconv.Quote(l) || x.Message.ID != x.ID:
			l = "wrong:" + l
		}
		out = append(out, l)
	}
	return strings.Join(out, " ")
}

// wantAll checks everything that a slot still holds, wantFrom what lies in it after a place.
func (e *env) wantAll(u push.UserID, k push.SlotKind, want string) {
	e.Helper()
	e.wantFrom(u, k, push.Place{}, want)
}

func (e *env) wantFrom(u push.UserID, k push.SlotKind, from push.Place, want string) {
	e.Helper()
	if got := e.show(e.readAll(readOf(u, k, from))); got != want {
		e.Fatalf("the %s slot of %s holds %q, want %q", k, u, got, want)
	}
}

// user returns what is stored of a user, device one device of it.
func (e *env) user(u push.UserID) saver.User {
	e.Helper()
	r, err := e.s.Store.User(e.ctx, ref(u))
	if err != nil {
		e.Fatalf("User(%s): %v", u, err)
	}
	return r
}

func (e *env) device(u push.UserID, d push.DeviceID) saver.Device {
	e.Helper()
	r := e.user(u)
	i := slices.IndexFunc(r.Devices, func(v saver.Device) bool { return v.Device == d })
	if i < 0 {
		e.Fatalf("%s has no device %s", u, d)
	}
	return r.Devices[i]
}

// state returns a slot's state.
func (e *env) state(u push.UserID, k push.SlotKind) push.SlotState {
	e.Helper()
	return e.user(u).Slots[k]
}

// stored returns where a device's stored cursor stands, as the slot judges it.
func (e *env) stored(u push.UserID, d push.DeviceID, k push.SlotKind) push.Place {
	e.Helper()
	s := e.state(u, k)
	at, _ := s.Resolve(e.device(u, d).Cursors[k])
	return at
}

func (e *env) recall(id push.MsgID) saver.Recalled {
	e.Helper()
	r, err := e.s.Store.Recall(e.ctx, e.recalling(id))
	if err != nil {
		e.Fatalf("Recall(%s): %v", e.labels[id], err)
	}
	return r
}

func (e *env) recalling(id push.MsgID) saver.Recall {
	return saver.Recall{Product: shop, Shards: Shards, Limits: e.limits, ID: id}
}

func (e *env) lineage() push.Lineage {
	e.Helper()
	l, err := e.s.Store.Lineage(e.ctx)
	if err != nil {
		e.Fatalf("Lineage: %v", err)
	}
	if l == 0 {
		e.Fatal("the store has no lineage")
	}
	return l
}

// mark notes the store's state; the function it returns falls back to it.
func (e *env) mark() (fallBack func()) {
	e.Helper()
	back := e.s.Mark(e.T)
	return func() {
		e.Helper()
		was := e.lineage()
		e.s.Store = back(e.T)
		if e.lineage() == was {
			e.Fatal("the store fell back and kept its lineage")
		}
	}
}

func (e *env) sweep() {
	e.Helper()
	if err := e.s.Sweep(e.ctx); err != nil {
		e.Fatalf("Sweep: %v", err)
	}
}

// wantKind checks an error's kind.
func (e *env) wantKind(what string, err error, want push.Kind) {
	e.Helper()
	if err == nil {
		e.Fatalf("%s: no error, want kind %d", what, want)
	}
	if got := push.KindOf(err); got != want {
		e.Fatalf("%s: kind %d (%v), want %d", what, got, err, want)
	}
}

// labelled returns n labels with a prefix.
func labelled(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s%d", prefix, i+1)
	}
	return out
}
