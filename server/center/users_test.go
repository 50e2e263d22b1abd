package center

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
)

// shownUser is the answer of GET /v1/users/{user}.
type shownUser struct {
	User    string
	Online  bool
	Devices []struct {
		Device, Platform, Cursor string
		FirstSeen                string `json:"first_seen"`
		LastSeen                 string `json:"last_seen"`
		OnlineSeconds            int    `json:"online_seconds"`
		Session                  *struct{ Transport, Since string }
		Lag                      struct{ Own, Common shownLag }
	}
}

type shownLag struct {
	Messages int
	Capped   bool
}

func (g *gateway) user(u string) *shownUser {
	g.t.Helper()
	var out shownUser
	g.do(ask{path: "/v1/users/" + url.PathEscape(u)}).want(g.t, http.StatusOK).decode(g.t, &out)
	return &out
}

func TestUser_OfWhomNothingIsKnownHasNoDevices(t *testing.T) {
	g := newGateway(t)
	if got := g.user("alice"); got.User != "alice" || got.Online || len(got.Devices) != 0 {
		t.Errorf("got %+v, want a user without devices", got)
	}
}

func TestUser_NamesInPathsAreUnescapedOnce(t *testing.T) {
	g := newGateway(t)
	for _, name := range []string{"alice", "a/b", "a b", "100%", "%41", "%252F", "a+b", "a,b", "a;b=c", "é", "a?b#c", ".", "..", "{user}", "a:b", "'\"", "*"} {
		if got := g.user(name).User; got != name {
			t.Errorf("asked for %q, got %q", name, got)
		}
		g.open(push.UserID(name), push.DeviceID(name))
		path := "/v1/users/" + url.PathEscape(name) + "/devices/" + url.PathEscape(name)
		g.do(ask{method: "DELETE", path: path}).want(t, 204)
		if got := g.user(name); len(got.Devices) != 0 {
			t.Errorf("%q: the device was not deleted", name)
		}
	}
	for _, path := range []string{"/v1/users/a%00b", "/v1/users/%ff", "/v1/users/" + fmt.Sprintf("%0129d", 0), "/v1/users/a/devices/%7f"} {
		a := ask{path: path}
		if path[len(path)-4:] == "/%7f" {
			a.method = "DELETE"
		}
		g.do(a).want(t, 400, "invalid_parameter")
	}
}

func TestUser_ShowsItsDevices(t *testing.T) {
	g := newGateway(t)
	opened := g.open("alice", "phone")
	g.clock.advance(time.Minute)
	g.open("alice", "web")
	_, err := g.store.Ack(t.Context(), []saver.Ack{{UserRef: userRef("alice"), Device: "phone", Seen: true, Online: 90 * time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	since := push.Milli(g.clock.Now())
	g.rooms.live["alice"] = []push.LiveSession{
		{Device: "web", Transport: "ws", Epoch: 3, Since: since}, {Device: "web", Transport: "sse", Epoch: 2, Since: since - 1},
	}
	got := g.user("alice")
	if !got.Online || len(got.Devices) != 2 {
		t.Fatalf("got %+v, want two devices and one online", got)
	}
	phone, web := got.Devices[0], got.Devices[1]
	if s := fmt.Sprint(phone.Device, " ", phone.Platform, " ", phone.FirstSeen, " ", phone.LastSeen, " ", phone.OnlineSeconds, " ", phone.Session == nil); s !=
		"phone android 2026-11-22T09:35:59.120Z 2026-11-22T09:36:59.120Z 90 true" {
		t.Errorf("got %s", s)
	}
	if web.Session == nil || web.Session.Transport != "ws" || web.Session.Since != "2026-11-22T09:36:59.120Z" {
		t.Errorf("got session %+v, want the newer one", web.Session)
	}
	owner, cursor, err := push.ParseCursor(phone.Cursor)
	if err != nil || owner != push.OwnerOf(product, "alice", "phone") || cursor[push.Own] != opened.Starts[push.Own].At {
		t.Errorf("cursor %v %v %v, want where the device began", owner, cursor, err)
	}
}

func TestUser_LagCountsWhatTheDeviceWillBeSent(t *testing.T) {
	g := newGateway(t)
	g.open("alice", "phone")
	g.open("alice", "web")
	for range 3 {
		g.send(`{"to":{"users":["alice"]},"message":{"body":1}}`)
	}
	g.ack("alice", "web", push.Own)
	gone := g.send(`{"to":{"users":["alice"]},"message":{"body":1}}`)
	g.do(ask{method: "DELETE", path: "/v1/messages/" + gone}).want(t, 200)
	g.send(`{"to":{"users":["alice"]},"message":{"body":1,"ttl_seconds":1}}`)
	g.send(`{"to":{"devices":[{"user":"alice","device":"web"}]},"message":{"body":1}}`)
	g.send(`{"to":{"everyone":true},"message":{"body":1}}`)
	g.clock.advance(2 * time.Second)
	got := map[string]string{}
	for _, d := range g.user("alice").Devices {
		got[d.Device] = fmt.Sprint(d.Lag.Own, d.Lag.Common)
	}
	if want := fmt.Sprint(shownLag{3, false}, shownLag{1, false}); got["phone"] != want {
		t.Errorf("phone: got %s, want %s", got["phone"], want)
	}
	if want := fmt.Sprint(shownLag{1, false}, shownLag{1, false}); got["web"] != want {
		t.Errorf("web: got %s, want %s", got["web"], want)
	}
}

func TestUser_LagStopsAtAThousand(t *testing.T) {
	for n, want := range map[int]shownLag{999: {999, false}, 1000: {1000, false}, 1001: {1000, true}} {
		g := newGateway(t)
		g.open("alice", "phone")
		for range n / 333 {
			var items []string
			for range 333 {
				items = append(items, `{"to":{"everyone":true},"message":{"body":1}}`)
			}
			g.batch(`{"messages":[` + joined(items) + `]}`)
		}
		for range n % 333 {
			g.send(`{"to":{"everyone":true},"message":{"body":1}}`)
		}
		if got := g.user("alice").Devices[0].Lag.Common; got != want {
			t.Errorf("after %d messages: got %v, want %v", n, got, want)
		}
	}
}

func joined(items []string) string {
	var out string
	for i, s := range items {
		if i > 0 {
			out += ","
		}
		out += s
	}
	return out
}

func TestUser_FailuresOfParts(t *testing.T) {
	g := newGateway(t)
	g.open("alice", "phone")
	g.rooms.fail = errOut
	g.do(ask{path: "/v1/users/alice"}).want(t, 503, "rooms_unavailable")
	g.rooms.fail = nil
	g.store.fail.Store(&push.Error{Kind: push.KindUnavailable, Code: "storage_slow"})
	g.do(ask{path: "/v1/users/alice"}).want(t, 503, "storage_slow")
	g.do(ask{method: "DELETE", path: "/v1/users/alice/devices/phone"}).want(t, 503, "storage_slow")
}

func TestDeleteDevice_ForgetsItAndEndsItsSession(t *testing.T) {
	g := newGateway(t)
	g.open("alice", "phone")
	g.open("alice", "web")
	path := "/v1/users/alice/devices/phone"
	g.do(ask{method: "DELETE", path: path}).want(t, 204)
	if got := g.user("alice"); len(got.Devices) != 1 || got.Devices[0].Device != "web" {
		t.Errorf("got %+v, want only web", got.Devices)
	}
	if want := []push.DeviceID{"phone"}; !slices.Equal(g.rooms.ended, want) {
		t.Errorf("ended %v, want %v", g.rooms.ended, want)
	}
	g.do(ask{method: "DELETE", path: path}).want(t, 404, "device_not_found")
}

func TestDeleteDevice_RepeatedAfterAFailureStillEndsTheSession(t *testing.T) {
	g := newGateway(t)
	g.open("alice", "phone")
	path := "/v1/users/alice/devices/phone"
	g.rooms.fail = errOut
	g.do(ask{method: "DELETE", path: path}).want(t, 503, "rooms_unavailable")
	g.rooms.fail, g.rooms.ended = nil, nil
	g.do(ask{method: "DELETE", path: path}).want(t, 404, "device_not_found")
	if len(g.rooms.ended) != 1 {
		t.Error("the repeat did not end the session")
	}
}
