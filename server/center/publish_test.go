package center

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/register"
	"carillon/server/saver"
)

// own reads a user's own slot.
func (g *gateway) own(u push.UserID) []saver.Entry { return g.slot(u, push.Own) }

func (g *gateway) slot(u push.UserID, k push.SlotKind) []saver.Entry {
	g.t.Helper()
	user, err := g.store.User(g.t.Context(), userRef(u))
	if err != nil {
		g.t.Fatal(err)
	}
	s := user.Slots[k]
	tails, err := g.store.Read(g.t.Context(), []saver.Read{{
		ShardRef: userRef(u).Shard(), Slot: k, User: u, MaxEntries: 1000, MaxBytes: 1 << 30,
		From: push.Place{Epoch: s.Epoch, Lineage: s.Lineage(), Pos: s.Origin},
	}})
	if err != nil {
		g.t.Fatal(err)
	}
	return tails[0].Entries
}

// sent is the answer to a publish.
type sent struct {
	ID, Ref, Created, Expires, Membership string
	Persistent                            bool
	Targets                               struct {
		Users, Devices int
		Everyone       bool
	}
}

func (g *gateway) publish(body string, key ...string) *answer {
	g.t.Helper()
	a := ask{path: "/v1/messages", body: body}
	if len(key) > 0 {
		a.header = map[string]string{"Idempotency-Key": key[0]}
	}
	return g.do(a)
}

func TestPublish_StoresForUsersWhoDoNotExistYet(t *testing.T) {
	g := newGateway(t)
	got := g.publish(`{"to":{"users":["alice","bob"]},"message":{"body":{"a":[1, 2]},"ref":"r\u00e9\"f","ttl_seconds":60,"collapse_key":"k","headers":{"b":"2","a":"1"}}}`).want(t, http.StatusCreated)
	var s sent
	got.decode(t, &s)
	if got, want := fmt.Sprintf("%s %s %s %s %v %d", s.Ref, s.Created, s.Expires, s.Membership, s.Persistent, s.Targets.Users),
		`ré"f 2026-11-22T09:35:59.120Z 2026-11-22T09:36:59.120Z at_send true 2`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := got.header.Get("Location"), "/v1/messages/"+s.ID; got != want {
		t.Errorf("Location is %q, want %q", got, want)
	}
	for _, u := range []push.UserID{"alice", "bob"} {
		es := g.own(u)
		if len(es) != 1 {
			t.Fatalf("%s has %d entries, want 1", u, len(es))
		}
		m := es[0].Message
		if got, want := fmt.Sprintf("%v %s %s %s %v %v", m.ID, m.Body, m.Ref, m.CollapseKey, m.Headers, m.Persistent),
			s.ID+` {"a":[1,2]} ré"f k [{a 1} {b 2}] true`; got != want {
			t.Errorf("%s: got %s, want %s", u, got, want)
		}
	}
	if ds := g.rooms.take(); len(ds) != 0 {
		t.Errorf("rooms were told of users who are offline: %v", ds)
	}
}

func TestPublish_BodiesAreKeptByteForByte(t *testing.T) {
	g := newGateway(t)
	g.publish("{\"to\":{\"users\":[\"alice\"]},\"message\":{\"body\": {\"b\" : \"<&>\\u2028\\/ \u2028 é\", \"a\":1.50e+1 ,\"a\":[ ] } }}").want(t, 201)
	g.publish(`{"to":{"users":["alice"]},"message":{"body_base64":"AAEC/w=="}}`).want(t, 201)
	es := g.own("alice")
	if got, want := string(es[0].Message.Body), "{\"b\":\"<&>\\u2028\\/ \u2028 é\",\"a\":1.50e+1,\"a\":[]}"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if m := es[1].Message; m.Kind != push.BodyBinary || !bytes.Equal(m.Body, []byte{0, 1, 2, 255}) {
		t.Errorf("got %v %v, want the bytes", m.Kind, m.Body)
	}
}

func TestPublish_TellsTheRoomsThatHoldReaders(t *testing.T) {
	g := newGateway(t)
	g.connect("alice", "phone")
	g.connect("alice", "web")
	if err := g.reg.Join(t.Context(), register.Room{ID: "r2", Boot: 7}); err != nil {
		t.Fatal(err)
	}
	_, err := g.reg.Insert(t.Context(), register.Session{
		Key: register.Key{Product: product, User: "bob", Device: "tv"}, Shard: push.ShardOf("bob", 4), Room: "r2", Boot: 7,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	g.publish(`{"to":{"devices":[{"user":"alice","device":"web"},{"user":"bob","device":"tv"},{"user":"cathy","device":"x"}]},"message":{"body":1}}`).want(t, 201)
	byRoom := map[push.RoomID]*push.Delivery{}
	for _, d := range g.rooms.take() {
		if byRoom[d.room] != nil {
			t.Errorf("room %s was told twice", d.room)
		}
		byRoom[d.room] = d.Delivery
	}
	for room, want := range map[push.RoomID]saver.Target{
		"r1": {User: "alice", Filter: &push.Filter{Devices: []push.DeviceID{"web"}}},
		"r2": {User: "bob", Filter: &push.Filter{Devices: []push.DeviceID{"tv"}}},
	} {
		d := byRoom[room]
		if d == nil || len(d.Own) != 1 {
			t.Errorf("room %s: got %+v, want one entry", room, d)
			continue
		}
		e := g.own(want.User)[0]
		if d.Own[0].User != want.User || !d.Own[0].Filter.Equal(want.Filter) || d.Own[0].Place.Pos != e.Pos ||
			d.Message.ID != e.ID || string(d.Message.Body) != "1" || d.Product != product || d.Lineage == 0 {
			t.Errorf("room %s: got %+v, want %+v at %d", room, d.Own[0], want, e.Pos)
		}
	}
	if len(byRoom) != 2 {
		t.Errorf("%d rooms were told, want 2", len(byRoom))
	}
}

func TestPublish_EveryoneIsOneEntryAShardAndOneDeliveryARoom(t *testing.T) {
	g := newGateway(t)
	users := []push.UserID{"alice", "bob", "cathy"}
	shards := map[push.Shard]bool{}
	for _, u := range users {
		g.connect(u, "phone")
		shards[push.ShardOf(u, 4)] = true
	}
	var s sent
	g.publish(`{"to":{"everyone":true},"message":{"body":1}}`).want(t, 201).decode(t, &s)
	if s.Membership != "at_delivery" || !s.Targets.Everyone {
		t.Errorf("got %+v, want everyone, at delivery", s)
	}
	ds := g.rooms.take()
	if len(ds) != 1 || ds[0].room != "r1" || len(ds[0].Common) != len(shards) || ds[0].Own != nil {
		t.Fatalf("got %+v, want one delivery with %d shards", ds, len(shards))
	}
	for _, c := range ds[0].Common {
		if !shards[c.Shard] || c.Place.IsZero() {
			t.Errorf("got shard %d at %v, want one of %v", c.Shard, c.Place, shards)
		}
	}
	if es := g.slot("alice", push.Common); len(es) != 1 || es[0].ID.String() != s.ID {
		t.Errorf("the common slot holds %v, want the message", es)
	}
}

func TestPublish_NotPersistentReachesThoseOnlineAndIsNeverStored(t *testing.T) {
	cases := []struct {
		name, to, key string
		users         []push.UserFilter
		everyone      bool
	}{
		{"users", `{"users":["alice","bob"]}`, "", []push.UserFilter{{User: "alice"}}, false},
		{"users with a key", `{"users":["alice","bob"]}`, "k", []push.UserFilter{{User: "alice"}}, false},
		{"a device", `{"devices":[{"user":"alice","device":"web"}]}`, "",
			[]push.UserFilter{{User: "alice", Filter: &push.Filter{Devices: []push.DeviceID{"web"}}}}, false},
		{"everyone", `{"everyone":true}`, "", nil, true},
		{"nobody online", `{"users":["bob"]}`, "", nil, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			g := newGateway(t)
			g.connect("alice", "phone")
			g.connect("alice", "web")
			a := ask{path: "/v1/messages", body: `{"to":` + c.to + `,"message":{"body":1,"persistent":false}}`}
			if c.key != "" {
				a.header = map[string]string{"Idempotency-Key": c.key}
			}
			got := g.do(a).want(t, http.StatusAccepted)
			var s sent
			got.decode(t, &s)
			if s.Expires != "" || s.Persistent || got.header.Get("Location") != "" {
				t.Errorf("got %s, want neither expiry nor location", got.body)
			}
			ds := g.rooms.take()
			if c.users == nil && !c.everyone {
				if len(ds) != 0 {
					t.Fatalf("got %v, want no delivery", ds)
				}
				return
			}
			if len(ds) != 1 {
				t.Fatalf("got %d deliveries, want 1", len(ds))
			}
			d := ds[0]
			if d.Everyone != c.everyone || d.Message.Persistent || d.Message.ID.String() != s.ID || string(d.Message.Body) != "1" || d.Own != nil || d.Common != nil {
				t.Errorf("got %+v with message %+v", d.Delivery, d.Message)
			}
			if !slices.EqualFunc(d.Users, c.users, func(a, b push.UserFilter) bool { return a.User == b.User && a.Filter.Equal(b.Filter) }) {
				t.Errorf("got users %+v, want %+v", d.Users, c.users)
			}
			if c.key == "" && g.store.publications.Load() != 0 {
				t.Error("the store was given a message that is not persistent and has no key")
			}
			if es := g.own("alice"); len(es) != 0 {
				t.Errorf("stored %v", es)
			}
			g.do(ask{path: "/v1/messages/" + s.ID}).want(t, 404, "message_not_found")
			if c.key != "" {
				again := g.do(a).want(t, http.StatusAccepted)
				if !bytes.Equal(again.body, got.body) || again.header.Get("Idempotent-Replayed") != "true" {
					t.Errorf("the repeat is %s, want %s", again.body, got.body)
				}
				if ds := g.rooms.take(); len(ds) != 0 {
					t.Errorf("the repeat was delivered: %v", ds)
				}
			}
		})
	}
}

// A device that goes from one room to another while a message is on its way to both must not get it in each.
func TestPublish_NotPersistentNamesTheDevicesOfEachRoom(t *testing.T) {
	all := func(ds ...push.DeviceID) *push.Filter { return &push.Filter{Devices: ds} }
	for _, c := range []struct {
		name, to string
		want     map[push.RoomID]*push.Filter // of alice
	}{
		{"a user", `{"users":["alice"]}`, map[push.RoomID]*push.Filter{"r1": all("phone", "web"), "r2": all("tv")}},
		{"a user and platforms", `{"users":["alice"],"platforms":["android","web"]}`, map[push.RoomID]*push.Filter{
			"r1": {Devices: []push.DeviceID{"phone", "web"}, Platforms: push.PlatformSet(0).Add(push.PlatformAndroid).Add(push.PlatformWeb)},
			"r2": {Devices: []push.DeviceID{"tv"}, Platforms: push.PlatformSet(0).Add(push.PlatformAndroid).Add(push.PlatformWeb)},
		}},
		{"devices", `{"devices":[{"user":"alice","device":"tv"},{"user":"alice","device":"tablet"}]}`, map[push.RoomID]*push.Filter{"r2": all("tv")}},
		{"a user in one room", `{"users":["bob"]}`, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGateway(t)
			if err := g.reg.Join(t.Context(), register.Room{ID: "r2", Boot: 1}); err != nil {
				t.Fatal(err)
			}
			g.connect("alice", "web")
			g.connect("alice", "phone")
			g.connectIn("r2", "alice", "tv")
			g.connectIn("r2", "bob", "tv")
			g.connectIn("r2", "bob", "phone")
			g.publish(`{"to":`+c.to+`,"message":{"body":1,"persistent":false}}`).want(t, http.StatusAccepted)
			got := make(map[push.RoomID]*push.Filter)
			for _, d := range g.rooms.take() {
				for _, u := range d.Users {
					if u.User == "bob" && (d.room != "r2" || u.Filter != nil) {
						t.Errorf("room %s is told of bob with %+v, want r2 and every device", d.room, u.Filter)
					}
					if u.User == "alice" {
						got[d.room] = u.Filter
					}
				}
			}
			if !maps.EqualFunc(got, c.want, (*push.Filter).Equal) {
				t.Errorf("rooms are told of alice's %v, want %v", got, c.want)
			}
		})
	}
}

func TestPublish_RepeatsAreAnsweredWithTheSameBytesAndStoreNothing(t *testing.T) {
	bodies := []string{
		`{"to":{"users":["alice"]},"message":{"body":1,"ref":"r"}}`,
		`{"to":{"users":["bob","alice"]},"message":{"body":1}}`,
		`{"to":{"everyone":true},"message":{"body":1}}`,
		`{"to":{"devices":[{"user":"alice","device":"a"},{"user":"alice","device":"b"}]},"message":{"body_base64":"AA=="}}`,
	}
	for i, body := range bodies {
		g := newGateway(t)
		g.connect("alice", "phone")
		first := g.publish(body, "k").want(t, 201)
		if first.header.Get("Idempotent-Replayed") != "" {
			t.Errorf("%d: the first is marked as a repeat", i)
		}
		g.rooms.take()
		g.clock.advance(59 * time.Minute)
		again := g.publish(" "+strings.ReplaceAll(body, ":", " : "), "k").want(t, 201)
		if !bytes.Equal(again.body, first.body) {
			t.Errorf("%d: the repeat is\n%s, want\n%s", i, again.body, first.body)
		}
		if again.header.Get("Idempotent-Replayed") != "true" || again.header.Get("Location") != first.header.Get("Location") {
			t.Errorf("%d: headers of the repeat: %v", i, again.header)
		}
		if ds := g.rooms.take(); len(ds) != 0 {
			t.Errorf("%d: the repeat was delivered: %v", i, ds)
		}
		if n := len(g.own("alice")) + len(g.slot("alice", push.Common)); n != 1 {
			t.Errorf("%d: %d entries, want 1", i, n)
		}
		g.clock.advance(2 * time.Minute)
		later := g.publish(body, "k").want(t, 201)
		if bytes.Equal(later.body, first.body) {
			t.Errorf("%d: the key is remembered for longer than an hour", i)
		}
	}
}

func TestPublish_KeyWithAnotherRequestIsRefused(t *testing.T) {
	g := newGateway(t)
	g.publish(`{"to":{"users":["alice"]},"message":{"body":1}}`, "k").want(t, 201)
	for _, body := range []string{
		`{"to":{"users":["alice"]},"message":{"body":2}}`,
		`{"to":{"users":["bob"]},"message":{"body":1}}`,
		`{"to":{"users":["alice"]},"message":{"body":1,"persistent":false}}`,
		`{"to":{"everyone":true},"message":{"body":1}}`,
	} {
		g.publish(body, "k").want(t, 422, "idempotency_key_reused")
	}
	if n := len(g.own("alice")); n != 1 {
		t.Errorf("%d entries, want 1", n)
	}
}

func TestPublish_KeyOfAnotherProductIsAnotherKey(t *testing.T) {
	g := newGateway(t)
	g.makeProduct("news")
	body := `{"to":{"users":["alice"]},"message":{"body":1}}`
	first := g.publish(body, "k").want(t, 201)
	a := ask{path: "/v1/messages", body: body, key: g.makeKey("news", "messages:write"), header: map[string]string{"Idempotency-Key": "k"}}
	other := g.do(a).want(t, 201)
	if bytes.Equal(first.body, other.body) {
		t.Error("two products share an idempotency key")
	}
}

func TestPublish_FiftyAtOnceUnderOneKeyStoreOne(t *testing.T) {
	g := newGateway(t)
	g.connect("alice", "phone")
	body := `{"to":{"users":["alice","bob"]},"message":{"body":{"n":1}}}`
	answers := make([]*answer, 50)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() { answers[i] = g.publish(body, "k") })
	}
	wg.Wait()
	fresh := 0
	for _, a := range answers {
		a.want(t, 201)
		if !bytes.Equal(a.body, answers[0].body) {
			t.Fatalf("answers differ: %s and %s", a.body, answers[0].body)
		}
		if a.header.Get("Idempotent-Replayed") == "" {
			fresh++
		}
	}
	if fresh != 1 {
		t.Errorf("%d answers are no repeats, want 1", fresh)
	}
	if n := len(g.own("alice")); n != 1 {
		t.Errorf("%d entries, want 1", n)
	}
	if n := len(g.rooms.take()); n != 1 {
		t.Errorf("%d deliveries, want 1", n)
	}
}

func TestPublish_ValidateOnlySendsNothing(t *testing.T) {
	g := newGateway(t)
	g.connect("alice", "phone")
	for _, persistent := range []string{"true", "false"} {
		got := g.publish(`{"to":{"users":["alice"]},"message":{"body":1,"persistent":`+persistent+`},"validate_only":true}`, "k").want(t, 200)
		if want := `{"valid":true,"targets":{"users":1},"membership":"at_send"}`; string(got.body) != want {
			t.Errorf("got %s, want %s", got.body, want)
		}
	}
	g.publish(`{"to":{"users":[]},"message":{"body":1},"validate_only":true}`).want(t, 400, "invalid_request")
	if n := g.store.publications.Load(); n != 0 {
		t.Errorf("the store was given %d publications", n)
	}
	if ds := g.rooms.take(); len(ds) != 0 {
		t.Errorf("delivered %v", ds)
	}
	g.publish(`{"to":{"users":["bob"]},"message":{"body":2}}`, "k").want(t, 201)
}

func TestPublish_NeverAcceptedWhenTheStoreFails(t *testing.T) {
	cases := []struct {
		err        push.Error
		status     int
		code       string
		retryAfter string
	}{
		{push.Error{Kind: push.KindUnavailable, Code: "durability_unavailable", After: 2500 * time.Millisecond}, 503, "durability_unavailable", "3"},
		{push.Error{Kind: push.KindUnavailable, Code: "storage_failed"}, 503, "storage_failed", "1"},
		{push.Error{Kind: push.KindUnavailable, Code: "storage_slow"}, 503, "storage_slow", "1"},
		{push.Error{Kind: push.KindUnavailable, Code: "store_full", After: 10 * time.Second}, 503, "store_full", "10"},
		{push.Error{Kind: push.KindUnavailable, Code: "store_weak", After: 10 * time.Second}, 503, "durability_unavailable", "10"},
		{push.Error{Kind: push.KindUnavailable, Code: "store_short", After: time.Second}, 503, "durability_unavailable", "1"},
		{push.Error{Kind: push.KindUnavailable, Code: "store_busy", After: time.Second}, 503, "storage_slow", "1"},
		{push.Error{Kind: push.KindUnavailable, Code: "store_unavailable", After: time.Second}, 503, "storage_failed", "1"},
		{push.Error{Kind: push.KindUnavailable, Code: "unheard_of"}, 503, "storage_failed", "1"},
		{push.Error{Kind: push.KindClosed, Code: "closed"}, 503, "shutting_down", "1"},
		{push.Error{Kind: push.KindTooLarge, Code: "message_too_large"}, 413, "message_too_large", ""},
		{push.Error{Kind: push.KindInternal, Code: "corrupt_value", Detail: "inner workings"}, 500, "internal", ""},
	}
	for _, c := range cases {
		g := newGateway(t)
		g.connect("alice", "phone")
		g.store.fail.Store(&c.err)
		got := g.publish(`{"to":{"users":["alice"]},"message":{"body":1}}`).want(t, c.status, c.code)
		if r := got.header.Get("Retry-After"); r != c.retryAfter {
			t.Errorf("%s: Retry-After is %q, want %q", c.code, r, c.retryAfter)
		}
		if strings.Contains(string(got.body), "inner workings") {
			t.Errorf("the answer tells what is inside: %s", got.body)
		}
		if ds := g.rooms.take(); len(ds) != 0 {
			t.Errorf("%s: delivered what was not stored", c.code)
		}
	}
}

func TestPublish_LiveMessageIsRefusedWhenNobodyKnowsWhoIsOnline(t *testing.T) {
	for _, to := range []string{`{"users":["alice"]}`, `{"everyone":true}`} {
		g := newGateway(t)
		g.connect("alice", "phone")
		g.reg.fail.Store(true)
		body := `{"to":` + to + `,"message":{"body":1,"persistent":false}}`
		g.publish(body, "k").want(t, 503, "rooms_unavailable")
		g.reg.fail.Store(false)
		if got := g.publish(body, "k").want(t, 202); got.header.Get("Idempotent-Replayed") != "" {
			t.Error("the failed attempt left its idempotency key behind")
		}
		if n := len(g.rooms.take()); n != 1 {
			t.Errorf("%d deliveries, want 1", n)
		}
	}
}

func TestPublish_LimitsOfAProduct(t *testing.T) {
	g := newGateway(t)
	p, err := g.catalog.Product(t.Context(), product)
	if err != nil {
		t.Fatal(err)
	}
	p.Limits.BodyBytes, p.Limits.TTL = 10, time.Minute
	if _, err := g.catalog.UpdateProduct(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	g.publish(`{"to":{"users":["alice"]},"message":{"body":   "12345678"   }}`).want(t, 201)
	g.publish(`{"to":{"users":["alice"]},"message":{"body":"123456789"}}`).want(t, 413, "message_too_large")
	g.publish(`{"to":{"users":["alice"]},"message":{"body_base64":"MTIzNDU2Nzg5MDE="}}`).want(t, 413, "message_too_large")
	var s sent
	g.publish(`{"to":{"users":["alice"]},"message":{"body":1}}`).want(t, 201).decode(t, &s)
	if want := "2026-11-22T09:36:59.120Z"; s.Expires != want {
		t.Errorf("expires %s, want the product's limit, %s", s.Expires, want)
	}
}

func TestPublish_LargestMessageFits(t *testing.T) {
	g := newGateway(t)
	big := `"` + strings.Repeat("x", 64<<10-2) + `"`
	users := list(1000, `"`+strings.Repeat("u", 124)+`%04d"`)
	g.publish(`{"to":{"users":`+users+`},"message":{"body":`+big+`,"headers":{"h":"`+strings.Repeat("v", 4095)+`"}}}`).want(t, 201)
	if m := g.own(push.UserID(strings.Repeat("u", 124) + "0999"))[0].Message; len(m.Body) != 64<<10 {
		t.Errorf("stored %d bytes", len(m.Body))
	}
}

func TestPublish_KeepsOnWhenTheSenderGoesAway(t *testing.T) {
	g := newGateway(t)
	g.connect("alice", "phone")
	ctx, cancel := contextOf(t)
	g.store.during = cancel
	w, r := newRequest(t, http.MethodPost, "/v1/messages", `{"to":{"users":["alice"]},"message":{"body":1}}`, g.key)
	g.public.ServeHTTP(w, r.WithContext(ctx))
	if len(g.own("alice")) != 1 || len(g.rooms.take()) != 1 {
		t.Error("what was being stored when the sender went away was not delivered")
	}
}

func TestPublish_IdempotencyKeyMustBePrintable(t *testing.T) {
	g := newGateway(t)
	body := `{"to":{"users":["alice"]},"message":{"body":1}}`
	for _, c := range []struct{ key, want string }{
		{"", "Idempotency-Key empty"}, {"a\tb", "Idempotency-Key bad_format"}, {"é", "Idempotency-Key bad_format"},
		{strings.Repeat("k", 256), "Idempotency-Key too_long"},
	} {
		got := g.publish(body, c.key).want(t, 400, "invalid_parameter")
		if got := got.fields(t); !slices.Equal(got, []string{c.want}) {
			t.Errorf("key %q: got %q, want %q", c.key, got, c.want)
		}
	}
	g.publish(body, strings.Repeat("k", 255)).want(t, 201)
	g.publish(body, " ~").want(t, 201)
}

func TestPublish_MistakesAreAllTold(t *testing.T) {
	g := newGateway(t)
	got := g.publish(`{"to":{"users":[""]},"message":{"body":1,"ttl_seconds":0},"x":1}`).want(t, 400, "invalid_request")
	want := []string{"/message/ttl_seconds too_small", "/to/users/0 empty", "/x unknown_member"}
	if got := got.fields(t); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	got = g.publish(`{"to":{"users":["alice"]},"message":{"body":1}} x`).want(t, 400, "malformed_json")
	var p struct{ Detail string }
	if err := json.Unmarshal(got.body, &p); err != nil || !strings.HasPrefix(p.Detail, "at byte 48: ") {
		t.Errorf("got %s, want the place of the mistake", got.body)
	}
}

func TestPublish_KeysAreComparedAsTheyStand(t *testing.T) {
	g := newGateway(t)
	seen := map[string]string{}
	for _, key := range []string{"a", "a,b", "a%2Cb", "a=b", `"a"`, " a", "A"} {
		got := g.publish(okBody, key).want(t, 201)
		if got.header.Get("Idempotent-Replayed") != "" {
			t.Errorf("%q counts as another key", key)
		}
		seen[key] = string(got.body)
	}
	for key, body := range seen {
		if got := g.publish(okBody, key).want(t, 201); string(got.body) != body {
			t.Errorf("%q: the repeat is %s, want %s", key, got.body, body)
		}
	}
	w, r := newRequest(t, "POST", "/v1/messages", okBody, g.key)
	r.Header.Add("Idempotency-Key", "a")
	r.Header.Add("Idempotency-Key", "b")
	g.public.ServeHTTP(w, r)
	if w.Code != 400 || !strings.Contains(w.Body.String(), `"invalid_parameter"`) {
		t.Errorf("two keys: got %d %s, want 400", w.Code, w.Body)
	}
}

// brokenIDs cannot give ids.
type brokenIDs struct{}

func (brokenIDs) Next(context.Context) (push.MsgID, error) {
	return 0, fmt.Errorf("ids: reserve: %w", &push.Error{Kind: push.KindUnavailable, Code: "storage_failed"})
}

func TestPublish_WithoutAnIDNothingIsSent(t *testing.T) {
	g := newGateway(t, func(c *Config) { c.IDs = brokenIDs{} })
	g.connect("alice", "phone")
	for _, persistent := range []string{"true", "false"} {
		g.publish(`{"to":{"users":["alice"]},"message":{"body":1,"persistent":`+persistent+`}}`).want(t, 503, "storage_failed")
	}
	if n := g.store.calls.Load(); n != 0 || len(g.rooms.take()) != 0 {
		t.Errorf("%d calls of the store, want none, and no delivery", n)
	}
}
