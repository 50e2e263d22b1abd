package center

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
	savermemory "carillon/server/saver/memory"
)

// trace is the answer of GET /v1/messages/{id}.
type trace struct {
	ID, Ref, Membership, Recalled string
	BodyKind                      string            `json:"body_kind"`
	CollapseKey                   string            `json:"collapse_key"`
	NextCursor                    string            `json:"next_cursor"`
	Headers                       map[string]string `json:"headers"`
	Targets                       struct{ Users, Devices int }
	Users                         []struct {
		User    string
		Devices []struct{ Device, Platform, State string }
	}
}

// states returns the state for each device as "user/device state", and "user" for a user without devices.
func (tr *trace) states() []string {
	var out []string
	for _, u := range tr.Users {
		if len(u.Devices) == 0 {
			out = append(out, u.User)
		}
		for _, d := range u.Devices {
			out = append(out, u.User+"/"+d.Device+" "+d.State)
		}
	}
	return out
}

func (g *gateway) trace(id, query string) *trace {
	g.t.Helper()
	var tr trace
	g.do(ask{path: "/v1/messages/" + id + query}).want(g.t, http.StatusOK).decode(g.t, &tr)
	return &tr
}

// send publishes and returns the message's id.
func (g *gateway) send(body string) string {
	g.t.Helper()
	var s sent
	g.publish(body).want(g.t, http.StatusCreated).decode(g.t, &s)
	return s.ID
}

// ack acknowledges everything that a slot of a user holds.
func (g *gateway) ack(u push.UserID, d push.DeviceID, k push.SlotKind) {
	g.t.Helper()
	user, err := g.store.User(g.t.Context(), userRef(u))
	if err != nil {
		g.t.Fatal(err)
	}
	s := user.Slots[k]
	a := saver.Ack{UserRef: userRef(u), Device: d}
	a.Places[k] = push.Place{Epoch: s.Epoch, Lineage: s.Lineage(), Pos: s.Head}
	if _, err := g.store.Ack(g.t.Context(), []saver.Ack{a}); err != nil {
		g.t.Fatal(err)
	}
}

func (g *gateway) wantStates(id, query string, want ...string) {
	g.t.Helper()
	if got := g.trace(id, query).states(); !slices.Equal(got, want) {
		g.t.Errorf("got %q, want %q", got, want)
	}
}

func TestMessage_AttributesAreTold(t *testing.T) {
	g := newGateway(t)
	id := g.send(`{"to":{"devices":[{"user":"alice","device":"a"},{"user":"alice","device":"b"},{"user":"bob","device":"a"}]},"message":{"body_base64":"AA==","ref":"r","collapse_key":"k","headers":{"h":"v"}}}`)
	tr := g.trace(id, "")
	got := fmt.Sprint(tr.ID, tr.Ref, tr.Membership, tr.BodyKind, tr.CollapseKey, tr.Headers, tr.Targets.Users, tr.Targets.Devices)
	if want := fmt.Sprint(id, "r", "at_send", "binary", "k", map[string]string{"h": "v"}, 2, 3); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestMessage_WaitsForTheFirstDevice(t *testing.T) {
	g := newGateway(t)
	id := g.send(`{"to":{"users":["alice","bob"]},"message":{"body":1}}`)
	g.wantStates(id, "", "alice", "bob")
	g.open("alice", "phone")
	g.open("alice", "web") // later devices begin at the head
	g.wantStates(id, "", "alice/phone stored", "bob")
	g.wantStates(id, "?user=alice", "alice/phone stored")
	g.wantStates(id, "?user=cathy")
}

func TestMessage_StatesOfItsWay(t *testing.T) {
	g := newGateway(t)
	g.open("alice", "phone")
	g.open("alice", "web")
	id := g.send(`{"to":{"users":["alice"]},"message":{"body":1}}`)
	g.wantStates(id, "", "alice/phone stored", "alice/web stored")

	e := g.own("alice")[0]
	user, _ := g.store.User(t.Context(), userRef("alice"))
	s := user.Slots[push.Own]
	at := push.Place{Epoch: s.Epoch, Lineage: s.Lineage(), Pos: e.Pos}
	before := at
	before.Pos--
	g.rooms.live["alice"] = []push.LiveSession{{Device: "phone", Sent: push.Cursor{at}}, {Device: "web", Sent: push.Cursor{before}}}
	g.wantStates(id, "", "alice/phone sent", "alice/web stored")

	g.ack("alice", "phone", push.Own)
	g.wantStates(id, "", "alice/phone acknowledged", "alice/web stored")
}

func TestMessage_OnlyDevicesOfTheFilterAreListed(t *testing.T) {
	g := newGateway(t)
	g.open("alice", "phone")
	g.open("alice", "web")
	id := g.send(`{"to":{"devices":[{"user":"alice","device":"web"}]},"message":{"body":1}}`)
	g.wantStates(id, "", "alice/web stored")
}

func TestMessage_EndsOfItsWay(t *testing.T) {
	cases := []struct {
		name string
		end  func(g *gateway, id string)
		want string
	}{
		{"expired", func(g *gateway, _ string) { g.clock.advance(time.Minute) }, "expired"},
		{"recalled", func(g *gateway, id string) { g.do(ask{method: "DELETE", path: "/v1/messages/" + id}).want(g.t, 200) }, "recalled"},
		{"recalled, then expired", func(g *gateway, id string) {
			g.do(ask{method: "DELETE", path: "/v1/messages/" + id}).want(g.t, 200)
			g.clock.advance(time.Minute)
		}, "recalled"},
		{"collapsed", func(g *gateway, _ string) {
			g.send(`{"to":{"users":["alice"]},"message":{"body":2,"collapse_key":"k"}}`)
		}, "collapsed"},
		{"dropped by a limit", func(g *gateway, _ string) {
			for range 1000 {
				g.send(`{"to":{"users":["alice"]},"message":{"body":2}}`)
			}
		}, "gap"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			g := newGateway(t)
			g.open("alice", "phone")
			g.open("alice", "web")
			id := g.send(`{"to":{"users":["alice"]},"message":{"body":1,"collapse_key":"k","ttl_seconds":60}}`)
			g.ack("alice", "web", push.Own)
			c.end(g, id)
			g.wantStates(id, "", "alice/phone "+c.want, "alice/web acknowledged")
			recalled := strings.HasPrefix(c.name, "recalled")
			if tr := g.trace(id, ""); (tr.Recalled != "") != recalled {
				t.Errorf("recalled is %q", tr.Recalled)
			}
		})
	}
}

// TestMessage_JudgedByLineage gives the verdict states that a store in memory does not come into by itself.
func TestMessage_JudgedByLineage(t *testing.T) {
	// The slot was at 12 under lineage 7, fell back to 10, and is at 15 under lineage 8.
	slot := push.SlotState{Epoch: 5, Head: 15, Origin: 1, Notes: []push.Note{{Lineage: 7, Start: 1}, {Lineage: 8, Start: 10}}}
	place := func(l push.Lineage, p push.Position) push.Place { return push.Place{Epoch: 5, Lineage: l, Pos: p} }
	other := push.Place{Epoch: 4, Lineage: 7, Pos: 99}
	cases := []struct {
		name                    string
		message, cursor, start  push.Place
		concerns, acked, isLost bool
	}{
		{"plain", place(8, 11), place(8, 11), push.Place{}, true, true, false},
		{"not yet", place(8, 12), place(8, 11), push.Place{}, true, false, false},
		{"cursor of before the loss is lowered", place(8, 11), place(7, 12), push.Place{}, true, false, false},
		{"message of before the loss that survived", place(7, 10), place(7, 12), push.Place{}, true, true, false},
		{"message that was lost", place(7, 11), place(8, 15), push.Place{}, true, false, true},
		{"message of a slot that began anew", other, place(8, 15), push.Place{}, true, false, true},
		{"cursor of a slot that began anew", place(8, 11), other, push.Place{}, true, false, false},
		{"cursor of an unknown lineage", place(8, 11), place(9, 15), push.Place{}, true, false, false},
		{"device began later", place(8, 11), place(8, 15), place(8, 11), false, true, false},
		{"device began before", place(8, 11), place(8, 15), place(8, 10), true, true, false},
		{"device began at a place that was lost", place(8, 11), place(7, 10), place(7, 12), true, false, false},
	}
	for _, c := range cases {
		v := verdict{at: userPlace{slot: push.Common, place: c.message}, slot: &slot}
		d := &saver.Device{Cursors: push.Cursor{{}, c.cursor}, Start: push.Cursor{{}, c.start}}
		if got, want := fmt.Sprint(v.concerns(d), v.acknowledged(d), v.lost()), fmt.Sprint(c.concerns, c.acked, c.isLost); got != want {
			t.Errorf("%s: concerns, acknowledged, lost: got %s, want %s", c.name, got, want)
		}
	}
}

func TestMessage_ToEveryoneListsDevicesOfTheUserAskedFor(t *testing.T) {
	g := newGateway(t)
	g.open("alice", "phone")
	id := g.send(`{"to":{"everyone":true},"message":{"body":1}}`)
	g.open("alice", "late") // begins at the head of the common slot
	g.wantStates(id, "")
	g.wantStates(id, "?user=alice", "alice/phone stored")
	g.wantStates(id, "?user=bob", "bob")
	g.ack("alice", "phone", push.Common)
	g.wantStates(id, "?user=alice", "alice/phone acknowledged")
	if tr := g.trace(id, ""); tr.Membership != "at_delivery" {
		t.Errorf("membership is %s", tr.Membership)
	}
}

// A store may accept a message before it is in its slots: somebody finishes it. Until then nobody is told of it, and it waits for all.
func TestMessage_AcceptedAndInNoSlotYetIsStored(t *testing.T) {
	g := newGateway(t)
	g.connect("alice", "phone")
	g.store.unplaced = true
	for _, to := range []string{`{"users":["alice","bob"]}`, `{"everyone":true}`} {
		id := g.send(`{"to":` + to + `,"message":{"body":1,"ttl_seconds":60}}`)
		g.wantStates(id, "?user=alice", "alice/phone stored")
		g.wantStates(id, "?user=bob", "bob")
		if n := len(g.rooms.deliveries); n > 0 {
			t.Errorf("%d rooms were told of what lies nowhere", n)
		}
		g.store.unplaced = false
		g.wantStates(id, "?user=alice", "alice/phone stored")
		g.store.unplaced = true
	}
	recalled := g.send(`{"to":{"users":["alice","bob"]},"message":{"body":1,"ttl_seconds":60}}`)
	g.do(ask{method: "DELETE", path: "/v1/messages/" + recalled}).want(t, 200)
	g.wantStates(recalled, "?user=alice", "alice/phone recalled")
	expired := g.send(`{"to":{"users":["alice","bob"]},"message":{"body":1,"ttl_seconds":60}}`)
	g.clock.advance(time.Minute)
	g.wantStates(expired, "?user=alice", "alice/phone expired")
}

func TestMessage_LostByTheStoreIsAGap(t *testing.T) {
	g := newGateway(t)
	g.open("alice", "phone")
	shared := g.send(`{"to":{"users":["alice","bob"]},"message":{"body":1}}`)
	id, err := push.ParseMsgID(shared)
	if err != nil {
		t.Fatal(err)
	}
	g.wantStates(shared, "?user=alice", "alice/phone stored")
	if !g.store.Store.(*savermemory.Store).LoseBucket(product, id) {
		t.Fatal("there was no bucket to lose")
	}
	g.wantStates(shared, "?user=alice", "alice/phone gap")

	single := g.send(`{"to":{"users":["alice"]},"message":{"body":1}}`)
	g.wantStates(single, "", "alice/phone stored")
	g.store.Store.(*savermemory.Store).LoseSlot(userRef("alice"), push.Own)
	g.wantStates(single, "", "alice/phone gap")
	later := g.send(`{"to":{"users":["alice"]},"message":{"body":1}}`)
	g.wantStates(single, "", "alice/phone gap")
	g.wantStates(later, "", "alice/phone stored")
}

func TestMessage_PagesOfUsers(t *testing.T) {
	g := newGateway(t)
	id := g.send(`{"to":{"users":` + list(7, `"u%d"`) + `},"message":{"body":1}}`)
	var got []string
	query, pages := "?limit=3", 0
	for {
		pages++
		tr := g.trace(id, query)
		got = append(got, tr.states()...)
		if tr.NextCursor == "" {
			break
		}
		query = "?limit=3&cursor=" + tr.NextCursor
	}
	if want := []string{"u0", "u1", "u2", "u3", "u4", "u5", "u6"}; !slices.Equal(got, want) || pages != 3 {
		t.Errorf("got %q in %d pages, want %q in 3", got, pages, want)
	}
}

func TestMessage_Refusals(t *testing.T) {
	g := newGateway(t)
	g.makeProduct("news")
	id := g.send(`{"to":{"users":["alice"]},"message":{"body":1}}`)
	cases := []struct {
		a      ask
		status int
		code   string
	}{
		{ask{path: "/v1/messages/0"}, 400, "invalid_parameter"},
		{ask{path: "/v1/messages/abc"}, 400, "invalid_parameter"},
		{ask{path: "/v1/messages/" + strings.Repeat("9", 30)}, 400, "invalid_parameter"},
		{ask{path: "/v1/messages/" + id + "?limit=0"}, 400, "invalid_parameter"},
		{ask{path: "/v1/messages/" + id + "?limit=201"}, 400, "invalid_parameter"},
		{ask{path: "/v1/messages/" + id + "?limit=x"}, 400, "invalid_parameter"},
		{ask{path: "/v1/messages/" + id + "?cursor=x"}, 400, "invalid_parameter"},
		{ask{path: "/v1/messages/" + id + "?cursor=-1"}, 400, "invalid_parameter"},
		{ask{path: "/v1/messages/" + id + "?user="}, 400, "invalid_parameter"},
		{ask{path: "/v1/messages/" + id + "?user=%00"}, 400, "invalid_parameter"},
		{ask{path: "/v1/messages/12"}, 404, "message_not_found"},
		{ask{path: "/v1/messages/" + id, key: g.makeKey("news", "*")}, 404, "message_not_found"},
		{ask{method: "DELETE", path: "/v1/messages/x"}, 400, "invalid_parameter"},
		{ask{method: "DELETE", path: "/v1/messages/12"}, 404, "message_not_found"},
		{ask{method: "DELETE", path: "/v1/messages/" + id, key: g.makeKey("news", "*")}, 404, "message_not_found"},
	}
	for _, c := range cases {
		g.do(c.a).want(t, c.status, c.code)
	}
	g.open("alice", "phone")
	g.wantStates(id, "", "alice/phone stored")

	g.rooms.fail = errOut
	g.do(ask{path: "/v1/messages/" + id}).want(t, 503, "rooms_unavailable")
	g.rooms.fail = nil
	g.store.fail.Store(&push.Error{Kind: push.KindUnavailable, Code: "storage_failed"})
	g.do(ask{path: "/v1/messages/" + id}).want(t, 503, "storage_failed")
	g.do(ask{method: "DELETE", path: "/v1/messages/" + id}).want(t, 503, "storage_failed")
	g.store.fail.Store(nil)

	g.clock.advance(8 * 24 * time.Hour)
	g.do(ask{path: "/v1/messages/" + id}).want(t, 404, "message_not_found")
}

func TestRecall_KeepsOnWhenTheCallerGoesAway(t *testing.T) {
	g := newGateway(t)
	g.connect("alice", "phone")
	id := g.send(`{"to":{"users":["alice"]},"message":{"body":1}}`)
	g.rooms.take()
	ctx, cancel := contextOf(t)
	g.store.during = cancel
	w, r := newRequest(t, http.MethodDelete, "/v1/messages/"+id, "", g.key)
	g.public.ServeHTTP(w, r.WithContext(ctx))
	if ds := g.rooms.take(); len(ds) != 1 || ds[0].Recall.String() != id {
		t.Errorf("got %v, want the recall told to the room", ds)
	}
}

func TestRecall_TellsRoomsOnceAndAnswersTheSameEachTime(t *testing.T) {
	for _, to := range []string{`{"users":["alice","bob"]}`, `{"everyone":true}`} {
		g := newGateway(t)
		g.connect("alice", "phone")
		id := g.send(`{"to":` + to + `,"message":{"body":1,"ref":"r"}}`)
		g.rooms.take()
		for range 3 {
			got := g.do(ask{method: "DELETE", path: "/v1/messages/" + id}).want(t, 200)
			if want := `{"id":"` + id + `","ref":"r"}`; strings.TrimSpace(string(got.body)) != want {
				t.Errorf("got %s, want %s", got.body, want)
			}
		}
		ds := g.rooms.take()
		if len(ds) != 1 || ds[0].Message != nil || ds[0].Recall.String() != id || len(ds[0].Own)+len(ds[0].Common) != 1 {
			t.Errorf("%s: got %+v, want one recall in one slot", to, ds)
		}
		for _, e := range append(g.own("alice"), g.slot("alice", push.Common)...) {
			if e.Kind != saver.EntryRecall {
				t.Errorf("%s: the message is still there", to)
			}
		}
	}
}
