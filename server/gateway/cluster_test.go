package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"carillon/server/client"
	"carillon/server/push"
	"carillon/server/redisdb/redisdbtest"
	"carillon/server/redistest"
	"carillon/server/room"
	"carillon/server/transport"
	"carillon/server/wire"
)

// These tests run several whole nodes over one Redis, and connect real clients to them.

// pool lends Redis to them.
var pool redistest.Pool

// testCluster is nodes that share a Redis.
type testCluster struct {
	t              *testing.T
	rooms, centers []*testNode
}

// startCluster starts nodes on a Redis, and makes a product through one of them.
func startCluster(t *testing.T, r *redistest.Redis, rooms, centers int, change func(*Config)) *testCluster {
	t.Helper()
	c := &testCluster{t: t}
	node := func(role Role, i int) *testNode {
		return startWith(t, vfs.NewMem(), func(cfg *Config) {
			cfg.Data, cfg.Roles = "", []Role{role}
			cfg.Room = room.Config{CloseTimeout: 2 * time.Second, Goodbye: room.Goodbye{Spread: time.Millisecond}}
			cfg.Cluster = &Cluster{
				ID: push.RoomID(fmt.Sprint(role, i)), Listen: "127.0.0.1:0", Secret: secret,
				Redis: redisdbtest.Config(r),
			}
			if change != nil {
				change(cfg)
			}
		})
	}
	for i := range centers {
		c.centers = append(c.centers, node(RoleCenter, i+1))
	}
	c.centers[0].setUp()
	for i := range rooms {
		c.rooms = append(c.rooms, node(RoleRoom, i+1))
	}
	for _, n := range append(slices.Clone(c.centers[1:]), c.rooms...) {
		n.key, n.sign = c.centers[0].key, c.centers[0].sign
	}
	return c
}

// send publishes from a node with a key of idempotency, and returns status and answer.
func (n *testNode) send(ctx context.Context, key string, audience, message map[string]any) (int, map[string]any, error) {
	b, err := json.Marshal(map[string]any{"to": audience, "message": message})
	if err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, n.PublicURL()+"/v1/messages", bytes.NewReader(b))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+n.key)
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	var out map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		return 0, nil, err
	}
	if after, err := strconv.Atoi(resp.Header.Get("Retry-After")); resp.StatusCode == http.StatusServiceUnavailable && (err != nil || after < 1) {
		return 0, nil, fmt.Errorf("503 without Retry-After: %v", out)
	}
	return resp.StatusCode, out, nil
}

// tell publishes one message and returns its id.
func (n *testNode) tell(audience, message map[string]any) string {
	n.t.Helper()
	status, a, err := n.send(n.t.Context(), "", audience, message)
	if err != nil || status/100 != 2 {
		n.t.Fatalf("publishing: %d %v (%v)", status, a, err)
	}
	return a["id"].(string)
}

// awaitCaught waits until a device has caught up.
func (w *watcher) awaitCaught(t *testing.T) {
	t.Helper()
	select {
	case <-w.caught:
	case err := <-w.done:
		t.Fatalf("the device was sent away: %v", err)
	case <-time.After(20 * time.Second):
		t.Fatal("the device does not come online")
	}
}

func TestCluster_AnyCenterReachesDevicesOnAllRoomsOverEveryTransport(t *testing.T) {
	c := startCluster(t, pool.Standalone(t), 3, 2, nil)
	var all, bobs []*watcher
	for i, n := range c.rooms {
		for _, over := range overs {
			w := n.watchOver(over, n.token("alice", fmt.Sprint(over, i)), &client.Memory{})
			w.awaitCaught(t)
			all = append(all, w)
		}
		w := n.watch("bob", fmt.Sprint("phone", i), &client.Memory{})
		w.awaitCaught(t)
		bobs = append(bobs, w)
	}
	alice, everyone := map[string]any{"users": []string{"alice"}}, map[string]any{"everyone": true}
	for i, n := range c.centers {
		for _, persistent := range []bool{true, false} {
			m := map[string]any{"body": fmt.Sprint("from center ", i, persistent), "persistent": persistent}
			id := n.tell(alice, m)
			for _, w := range all {
				w.want(t, id)
			}
			id = n.tell(everyone, m)
			for _, w := range append(slices.Clone(all), bobs...) {
				w.want(t, id)
			}
		}
	}
	for _, w := range append(all, bobs...) {
		w.leave(t)
		if len(w.got) > 0 {
			t.Errorf("%d messages came that should not", len(w.got))
		}
	}
}

func TestCluster_ADeviceContinuesAtAnyRoomOverAnyTransport(t *testing.T) {
	c := startCluster(t, pool.Standalone(t), 3, 2, nil)
	store := &client.Memory{}
	for i := range 3 * len(overs) { // every room over every transport
		n, sender, over := c.rooms[i%3], c.centers[i%2], overs[i%len(overs)]
		missed := sender.publish("alice", fmt.Sprint("while away ", i))
		broadcast := ""
		if i > 0 { // the first device of a user begins at the head of what was for everyone
			broadcast = sender.tell(map[string]any{"everyone": true}, map[string]any{"body": i})
		}
		phone := n.watchOver(over, n.token("alice", "phone"), store)
		want := []string{missed}
		if broadcast != "" {
			want = append(want, broadcast)
		}
		phone.wantAll(t, want...)
		phone.want(t, c.centers[(i+1)%2].publish("alice", fmt.Sprint("while there ", i)))
		phone.leave(t)
		if len(phone.got) > 0 {
			t.Errorf("over %s at room %d came %d messages that should not", over, i%3+1, len(phone.got))
		}
	}
}

// wantAll waits for messages in any order.
func (w *watcher) wantAll(t *testing.T, ids ...string) {
	t.Helper()
	for missing := slices.Clone(ids); len(missing) > 0; {
		select {
		case m := <-w.got:
			i := slices.Index(missing, m.ID.String())
			if i < 0 {
				t.Fatalf("got message %s, want one of %q", m.ID, missing)
			}
			missing = slices.Delete(missing, i, i+1)
		case <-time.After(20 * time.Second):
			t.Fatalf("messages %q never came", missing)
		}
	}
}

func TestCluster_ASessionIsReplacedAcrossRooms(t *testing.T) {
	c := startCluster(t, pool.Standalone(t), 2, 1, nil)
	for i, over := range overs {
		for k, next := range overs {
			from, to := c.rooms[i%2], c.rooms[(i+1)%2]
			user := fmt.Sprintf("alice-%d-%d", i, k)
			first := from.watchOver(over, from.token(user, "phone"), &client.Memory{})
			first.awaitCaught(t)
			second := to.watchOver(next, to.token(user, "phone"), &client.Memory{})
			second.awaitCaught(t)
			select {
			case k := <-first.kicked:
				if k.Reason != "replaced" {
					t.Errorf("%s, then %s: the first is kicked as %s, want replaced", over, next, k.Reason)
				}
			case <-time.After(20 * time.Second):
				t.Fatalf("%s, then %s: the first is not told", over, next)
			}
			if err := <-first.done; err == nil {
				t.Errorf("%s, then %s: the first comes back", over, next)
			}
			second.want(t, c.centers[0].publish(user, "for who is there now"))
			second.leave(t)
			if len(first.got) > 0 {
				t.Errorf("%s, then %s: the first got %d messages", over, next, len(first.got))
			}
		}
	}
}

// A client whose poll came to another room, and lost the answer, comes back with the session that it knows.
func TestCluster_APollAtAnotherRoomSendsItsOwnClientNowhere(t *testing.T) {
	c := startCluster(t, pool.Standalone(t), 2, 1, nil)
	phone := c.rooms[0].poller("alice", "phone")
	phone.caughtUp()
	first := phone.session
	elsewhere := c.rooms[1].poller("alice", "phone")
	elsewhere.session, elsewhere.cursor = phone.session, phone.cursor
	elsewhere.wantWelcome() // which the client never hears
	phone.caughtUp()
	if phone.session == first || phone.session == elsewhere.session {
		t.Errorf("it goes on with session %s, after %s, which went on in %s", phone.session, first, elsewhere.session)
	}

	twin := c.rooms[1].poller("alice", "phone")
	twin.wantWelcome()
	f := phone.next()
	for f.Type() == wire.TypeCursor {
		f = phone.next()
	}
	if k, ok := f.(*wire.Kick); !ok || k.Code != wire.CloseReplaced || k.By != "phone" {
		t.Errorf("when another process of the device came it is told %+v, want replaced", f)
	}
}

func TestCluster_AThirdPhoneSendsTheOldestOffAtAnotherRoom(t *testing.T) {
	c := startCluster(t, pool.Standalone(t), 3, 1, nil)
	c.centers[0].policy(rules(map[string]any{"scope": "class", "of": "mobile", "max": 2, "on_excess": "kick_oldest"}))
	desk := c.rooms[0].online("desk", push.PlatformDesktop)
	first, second := c.rooms[0].online("first", push.PlatformAndroid), c.rooms[1].online("second", push.PlatformIOS)
	third := c.rooms[2].online("third", push.PlatformAndroid)
	first.wantAway(t, wire.CloseReplaced, "third", "android")
	id := c.centers[0].publish("alice", "for those who stayed")
	for _, w := range []*watcher{desk, second, third} {
		w.want(t, id)
		w.leave(t)
	}
}

func TestCluster_RejectNewCountsSessionsOfAllRooms(t *testing.T) {
	c := startCluster(t, pool.Standalone(t), 3, 1, nil)
	c.centers[0].policy(rules(map[string]any{"scope": "class", "max": 2, "on_excess": "reject_new"}))
	first, second := c.rooms[0].online("first", push.PlatformAndroid), c.rooms[1].online("second", push.PlatformIOS)
	third := c.rooms[2].watchWith(c.rooms[2].tokenOn("alice", "third", push.PlatformTablet), &client.Memory{})
	third.wantAway(t, wire.ClosePolicy, "", "")
	id := c.centers[0].publish("alice", "for those who stayed")
	for _, w := range []*watcher{first, second} {
		w.want(t, id)
		w.leave(t)
	}
}

func TestCluster_KickAndRevocationHoldOnEveryRoom(t *testing.T) {
	c := startCluster(t, pool.Standalone(t), 3, 2, nil)
	online := func(user string) (ws []*watcher) {
		t.Helper()
		for i, n := range c.rooms {
			w := n.watchOver(overs[i], n.token(user, fmt.Sprint("phone", i)), &client.Memory{})
			w.awaitCaught(t)
			ws = append(ws, w)
		}
		return ws
	}
	ended := func(ws []*watcher, code wire.CloseCode) {
		t.Helper()
		for i, w := range ws {
			select {
			case k := <-w.kicked:
				if k.Code != code {
					t.Errorf("at room %d: ended with %v, want %v", i+1, k.Code, code)
				}
				<-w.done
			case <-time.After(20 * time.Second):
				t.Fatalf("at room %d nobody was told", i+1)
			}
		}
	}
	ws := online("alice")
	status, a := c.centers[0].rest("POST", "/v1/users/alice/kick", map[string]any{"reason": "enough"})
	if status != 200 || a["status"] != "confirmed" || a["sessions"] != 3.0 {
		t.Fatalf("kick: %d %v, want it confirmed, of 3 sessions", status, a)
	}
	ended(ws, wire.CloseKicked)

	// Who was kicked may come back; who was revoked may not, at no room, from the moment of the answer on.
	ws = online("alice")
	token := c.rooms[0].token("alice", "phone9") // one that is issued afterwards holds
	status, a = c.centers[1].rest("POST", "/v1/users/alice/revoke", map[string]any{})
	if status != 200 || a["status"] != "confirmed" || a["sessions"] != 3.0 {
		t.Fatalf("revoke: %d %v, want it confirmed, of 3 sessions", status, a)
	}
	for i, n := range c.rooms {
		for _, over := range overs {
			w := n.watchOver(over, token, &client.Memory{})
			select {
			case err := <-w.done:
				var closed *client.ClosedError
				if !errors.As(err, &closed) || closed.Code != wire.CloseRevoked {
					t.Errorf("at room %d over %s: %v, want revoked", i+1, over, err)
				}
			case <-w.caught:
				t.Errorf("room %d let a revoked device in over %s", i+1, over)
			case <-time.After(20 * time.Second):
				t.Fatalf("at room %d over %s nothing is heard", i+1, over)
			}
		}
	}
	ended(ws, wire.CloseRevoked)
}

func TestCluster_TagsReachSessionsOnOtherRoomsWithTheAnswer(t *testing.T) {
	c := startCluster(t, pool.Standalone(t), 2, 2, nil)
	var gs []*tagger
	for i, n := range c.rooms {
		g := n.tagger(overs[i], n.taggedToken(fmt.Sprint("phone", i)))
		g.ask(t, []push.Tag{"news.a"}, nil, "[news.a]")
		gs = append(gs, g)
	}
	c.centers[0].mark("PUT", "/v1/users/alice/tags", map[string]any{"tags": []string{"vip"}})
	for i := range c.rooms {
		c.centers[1].wantTags(fmt.Sprint("phone", i), "from-token", "news.a", "vip")
	}
	c.centers[1].mark("PATCH", "/v1/users/alice/devices/phone1/tags", map[string]any{"add": []string{"kiosk"}})
	c.centers[0].wantTags("phone0", "from-token", "news.a", "vip")
	c.centers[0].wantTags("phone1", "from-token", "kiosk", "news.a", "vip")
	for _, g := range gs {
		g.leave(t)
	}
}

// A message to tags is for whoever has them, at whichever room, from wherever: from the token, from the product's server, or joined.
func TestCluster_AMessageToTagsReachesThoseWhoHaveThem(t *testing.T) {
	c := startCluster(t, pool.Standalone(t), 2, 2, nil)
	to := func(tags map[string]any) map[string]any { return map[string]any{"tags": tags} }
	store := &client.Memory{}
	away := c.rooms[0].watch("bob", "phone", store) // known to the store, and then away
	away.awaitCaught(t)
	away.leave(t)
	var ws []*watcher
	for i, n := range c.rooms {
		w := n.watchOver(overs[2*i], n.taggedToken(fmt.Sprint("phone", i)), &client.Memory{})
		w.awaitCaught(t)
		ws = append(ws, w)
	}
	c.centers[0].mark("PUT", "/v1/users/alice/devices/phone1/tags", map[string]any{"tags": []string{"vip"}})
	for i, n := range c.centers {
		for _, persistent := range []bool{true, false} {
			m := map[string]any{"body": fmt.Sprint(i, persistent), "persistent": persistent}
			both := n.tell(to(map[string]any{"all": []string{"from-token"}}), m)
			one := n.tell(to(map[string]any{"all": []string{"from-token", "vip"}}), m)
			n.tell(to(map[string]any{"all": []string{"vip"}, "not": []string{"from-token"}}), m)
			other := n.tell(to(map[string]any{"any": []string{"x", "from-token"}, "not": []string{"vip"}}), m)
			ws[0].want(t, both)
			ws[0].want(t, other)
			ws[1].want(t, both)
			ws[1].want(t, one)
		}
	}
	atDelivery := func(tag string) map[string]any {
		at := to(map[string]any{"all": []string{tag}})
		at["membership"] = "at_delivery"
		return at
	}
	// Once the first room has told which tags it holds, it gets the places of what is for vips, and no body.
	const places = `carillon_center_deliveries_total{told="place"}`
	eventually(t, 20*time.Second, func() bool {
		ws[1].want(t, c.centers[0].tell(atDelivery("vip"), map[string]any{"body": "for vips"}))
		return c.centers[0].metric(places) > 0
	}, func() string { return "every room is told every body" })
	later := c.centers[0].tell(atDelivery("later"), map[string]any{"body": "later"})
	c.centers[1].mark("PUT", "/v1/users/bob/tags", map[string]any{"tags": []string{"later"}})
	back := c.rooms[1].watch("bob", "phone", store)
	back.want(t, later)
	back.leave(t)
	for i, w := range ws {
		w.leave(t)
		if len(w.got) > 0 {
			t.Errorf("phone%d got %d messages that were not for it", i, len(w.got))
		}
	}
}

func TestCluster_RecallAndLookUpsSpanRooms(t *testing.T) {
	c := startCluster(t, pool.Standalone(t), 2, 2, nil)
	var ws []*watcher
	for i, n := range c.rooms {
		w := n.watchOver(overs[i+2], n.token("alice", fmt.Sprint("phone", i)), &client.Memory{})
		w.awaitCaught(t)
		ws = append(ws, w)
	}
	id := c.centers[0].publish("alice", "regrettable")
	for i, w := range ws {
		w.want(t, id)
		c.centers[1].waitState(id, fmt.Sprint("phone", i), "acknowledged")
	}
	for _, n := range append(slices.Clone(c.centers), c.rooms...) { // operators ask any node
		status, a := n.admin("GET", "/admin/v1/sessions?product=shop&user=alice", nil)
		if list, _ := a["sessions"].([]any); status != 200 || len(list) != 2 {
			t.Errorf("%s: sessions of alice: %d %v, want two", n.NodeAddr(), status, a)
		}
	}
	if status, a := c.centers[1].rest("GET", "/v1/users/alice", nil); status != 200 || a["online"] != true || len(a["devices"].([]any)) != 2 {
		t.Errorf("GET user: %d %v, want alice online with two devices", status, a)
	}
	if status, a := c.centers[1].rest("DELETE", "/v1/messages/"+id, nil); status != 200 {
		t.Fatalf("recall: %d %v", status, a)
	}
	for i, w := range ws {
		select {
		case r := <-w.recall:
			if r.ID.String() != id {
				t.Errorf("recalled %v, want %s", r.ID, id)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("room %d does not tell of the recall", i+1)
		}
		w.leave(t)
	}
}

func TestCluster_AKeyUsedAtTwoCentersAtOnceIsOneMessage(t *testing.T) {
	c := startCluster(t, pool.Standalone(t), 1, 2, nil)
	phone := c.rooms[0].watch("alice", "phone", &client.Memory{})
	phone.awaitCaught(t)
	for i := range 20 {
		audience := map[string]any{"users": []string{"alice"}}
		if i%4 == 3 {
			audience = map[string]any{"everyone": true}
		}
		var answers [4]map[string]any
		var wg sync.WaitGroup
		for k := range answers {
			wg.Go(func() {
				for { // a repeat of what is under way is told to come back
					status, a, err := c.centers[k%2].send(t.Context(), fmt.Sprint("key-", i), audience, map[string]any{"body": i})
					if err != nil {
						t.Error(err)
						return
					}
					if status == 409 || status == 503 {
						continue
					}
					if answers[k] = a; status != 201 {
						t.Errorf("answered %d %v", status, a)
					}
					return
				}
			})
		}
		wg.Wait()
		for _, a := range answers[1:] {
			if fmt.Sprint(a) != fmt.Sprint(answers[0]) {
				t.Errorf("the answers differ: %v and %v", a, answers[0])
			}
		}
		id, _ := answers[0]["id"].(string)
		phone.want(t, id)
	}
	phone.want(t, c.centers[0].publish("alice", "the last")) // what was before it in the slot has come
	phone.leave(t)
	if len(phone.got) > 0 {
		t.Errorf("%d messages came twice", len(phone.got))
	}
}

func TestCluster_ANodeOfTheOtherRoleSaysSo(t *testing.T) {
	c := startCluster(t, pool.Standalone(t), 1, 1, nil)
	for _, q := range []struct {
		n            *testNode
		method, path string
	}{
		{c.rooms[0], "POST", "/v1/messages"}, {c.rooms[0], "GET", "/v1/users/alice"},
		{c.centers[0], "GET", "/connect"}, {c.centers[0], "GET", "/connect/sse"}, {c.centers[0], "GET", "/connect/poll"},
		{c.centers[0], "POST", "/connect/frames"}, {c.centers[0], "POST", "/connect/ticket"},
	} {
		if status, a := q.n.rest(q.method, q.path, nil); status != http.StatusMisdirectedRequest || a["code"] != "other_role" {
			t.Errorf("%s %s: %d %v, want 421 other_role", q.method, q.path, status, a)
		}
	}
}

// metric returns the value of a metric with its labels, 0 if it is not there.
func (n *testNode) metric(name string) float64 {
	n.t.Helper()
	found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`).FindStringSubmatch(n.adminText("/metrics"))
	if found == nil {
		return 0
	}
	v, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		n.t.Fatal(err)
	}
	return v
}

// A room with another secret lets no other node in: what is live is lost to it, what is stored comes with its sweep.
func TestCluster_ARoomThatNoNodeReachesFindsWhatIsStored(t *testing.T) {
	c := startCluster(t, pool.Standalone(t), 2, 1, func(cfg *Config) {
		if cfg.Cluster.ID == "room1" {
			cfg.Cluster.Secret = strings.Repeat("another secret ", 3)
			cfg.Room.SweepEvery = 100 * time.Millisecond
		}
	})
	cut := c.rooms[0].watch("alice", "phone", &client.Memory{})
	cut.awaitCaught(t)
	open := c.rooms[1].watch("alice", "web", &client.Memory{})
	open.awaitCaught(t)
	live := c.centers[0].tell(map[string]any{"users": []string{"alice"}}, map[string]any{"body": "now", "persistent": false})
	open.want(t, live)
	for i := range 5 {
		id := c.centers[0].publish("alice", fmt.Sprint("stored ", i))
		open.want(t, id)
		cut.want(t, id)
	}
	everyone := c.centers[0].tell(map[string]any{"everyone": true}, map[string]any{"body": "stored for all"})
	open.want(t, everyone)
	cut.want(t, everyone)
	if got := c.centers[0].metric(`carillon_node_deliveries_dropped_total{reason="unreachable"}`); got < 2 {
		t.Errorf("the center counts %v deliveries that reached no room, want some", got)
	}
	status, a := c.centers[0].rest("POST", "/v1/users/alice/kick", map[string]any{})
	if status != 202 && status != 200 || a["status"] != "pending" || a["certain"] == nil {
		t.Errorf("a kick where one room cannot be reached: %d %v, want it pending, and when it is certain", status, a)
	}
	for _, w := range []*watcher{open, cut} { // the room finds the kick with its next renewal
		select {
		case <-w.kicked:
			<-w.done
		case <-time.After(20 * time.Second):
			t.Fatal("a device was not kicked")
		}
	}
}

// roamer is a device that knows every room.
func (c *testCluster) roamer(over transport.Kind, user, device string) *watcher {
	c.t.Helper()
	w := &watcher{got: make(chan *wire.Message, 10_000), caught: make(chan struct{}, 100), done: make(chan error, 1)}
	var urls []string
	var dialer client.Dialer
	for _, n := range c.rooms {
		var url string
		url, dialer = n.address(over)
		urls = append(urls, url)
	}
	cl, err := client.New(client.Config{
		URLs: urls, Dialer: dialer, Tokens: client.StaticToken(c.rooms[0].token(user, device)), Storage: &client.Memory{},
		AckEvery: ackEvery, Backoff: client.Backoff{Base: 10 * time.Millisecond, Max: 100 * time.Millisecond},
		Callbacks: client.Callbacks{
			Message: func(_ context.Context, m *wire.Message) error { w.got <- m; return nil },
			Status: func(s client.Status) {
				if s.Phase == client.CaughtUp {
					w.caught <- struct{}{}
				}
			},
		},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	var ctx context.Context
	ctx, w.stop = context.WithCancel(context.Background())
	c.t.Cleanup(w.stop)
	go func() { w.done <- cl.Run(ctx) }()
	return w
}

func TestCluster_ARoomThatStopsUnderLoadLosesNothingAndNoPublishFails(t *testing.T) {
	c := startCluster(t, pool.Standalone(t), 3, 2, nil)
	var devices []*watcher
	for _, over := range overs {
		w := c.roamer(over, "alice", string(over)) // all at the first room
		w.awaitCaught(t)
		devices = append(devices, w)
	}
	sent := make(map[string]bool)
	var mu sync.Mutex
	ctx, enough := context.WithCancel(t.Context())
	defer enough()
	progress := make(chan struct{})
	var senders sync.WaitGroup
	for i, n := range c.centers {
		senders.Go(func() {
			for seq := 0; ctx.Err() == nil; seq++ {
				status, a, err := n.send(t.Context(), "", map[string]any{"users": []string{"alice"}}, map[string]any{"body": fmt.Sprint(i, "/", seq)})
				if err != nil || status != 201 {
					t.Errorf("a publish failed: %d %v (%v)", status, a, err)
					return
				}
				mu.Lock()
				sent[a["id"].(string)] = true
				mu.Unlock()
				select {
				case progress <- struct{}{}:
				case <-ctx.Done():
				}
			}
		})
	}
	for range 20 {
		<-progress
	}
	stopped := make(chan struct{})
	go func() { c.rooms[0].stop(); close(stopped) }()
	for going := true; going; {
		select {
		case <-progress:
		case <-stopped:
			going = false
		}
	}
	for range 20 {
		<-progress
	}
	enough()
	senders.Wait()
	for i, w := range devices {
		seen := make(map[string]bool)
		for len(seen) < len(sent) {
			select {
			case m := <-w.got:
				if id := m.ID.String(); seen[id] || !sent[id] {
					t.Errorf("over %s message %s came twice, or was never sent", overs[i], id)
				} else {
					seen[id] = true
				}
			case err := <-w.done:
				t.Fatalf("over %s the client ended after %d of %d messages: %v", overs[i], len(seen), len(sent), err)
			case <-time.After(20 * time.Second):
				t.Fatalf("over %s %d of %d messages came", overs[i], len(seen), len(sent))
			}
		}
		w.leave(t)
	}
	t.Logf("%d messages", len(sent))
}

// A load balancer may send the stream to another node than the one that gave the ticket.
func TestCluster_ATicketIsGoodAtEveryRoomOnce(t *testing.T) {
	c := startCluster(t, pool.Standalone(t), 3, 1, nil)
	token := c.rooms[0].token("alice", "phone")
	for i, n := range c.rooms {
		status, a := n.ticket("POST", token)
		if status != 200 {
			t.Fatalf("got %d %v", status, a)
		}
		ticket := a["ticket"].(string)
		next := c.rooms[(i+1)%3]
		if status, code, event := next.stream(ticket); status != 200 || event == "" {
			t.Errorf("room %d: %d %s for a ticket of another room", (i+1)%3+1, status, code)
		}
		for _, n := range c.rooms {
			if status, code, _ := n.stream(ticket); status != 401 || code != "ticket_refused" {
				t.Errorf("the second time: %d %s, want 401 ticket_refused", status, code)
			}
		}
	}
}
