package gateway

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"carillon/server/client"
	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/wire"
)

// These tests give a product a session policy through the administration of a whole node, and connect real clients to it.

func (n *testNode) policy(policy any) {
	n.t.Helper()
	status, a := n.admin("PATCH", "/admin/v1/products/shop", map[string]any{"session_policy": policy})
	if status != 200 {
		n.t.Fatalf("setting the session policy: %d %v", status, a)
	}
}

// rules makes a policy where phones and tablets are mobiles.
func rules(rs ...map[string]any) map[string]any {
	return map[string]any{"classes": map[string]string{"android": "mobile", "ios": "mobile", "tablet": "mobile"}, "rules": rs}
}

// online connects a device of alice's and waits until it has caught up.
func (n *testNode) online(device string, platform push.Platform) *watcher {
	n.t.Helper()
	w := n.watchWith(n.tokenOn("alice", device, platform), &client.Memory{})
	select {
	case <-w.caught:
	case err := <-w.done:
		n.t.Fatalf("%s was sent away: %v", device, err)
	case <-time.After(20 * time.Second):
		n.t.Fatalf("%s does not come online", device)
	}
	return w
}

// wantAway holds a device to have been told to stay away, and to do so.
func (w *watcher) wantAway(t *testing.T, code wire.CloseCode, by push.DeviceID, on string) *wire.Kick {
	t.Helper()
	var k *wire.Kick
	select {
	case k = <-w.kicked:
	case <-time.After(20 * time.Second):
		t.Fatal("the device is not told to stay away")
	}
	if k.Code != code || k.By != by || k.On != on {
		t.Errorf("kicked with %+v, want %v by %q on %q", k, code, by, on)
	}
	var closed *client.ClosedError
	if err := <-w.done; !errors.As(err, &closed) || closed.Code != code {
		t.Errorf("the client ended with %v, want %v", err, code)
	}
	return k
}

func TestGateway_AThirdPhoneSendsTheOldestOff(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	n.policy(rules(map[string]any{"scope": "class", "of": "mobile", "max": 2, "on_excess": "kick_oldest"}))
	desk := n.online("desk", push.PlatformDesktop)
	first, second := n.online("first", push.PlatformAndroid), n.online("second", push.PlatformIOS)
	third := n.online("third", push.PlatformAndroid)
	first.wantAway(t, wire.CloseReplaced, "third", "android")

	id := n.publish("alice", "for those who stayed")
	for _, w := range []*watcher{desk, second, third} {
		w.want(t, id)
	}
	status, a := n.admin("GET", "/admin/v1/sessions?product=shop&user=alice", nil)
	classes := map[string]any{}
	for _, s := range a["sessions"].([]any) {
		s := s.(map[string]any)
		classes[s["device"].(string)] = s["class"]
	}
	if status != 200 || len(classes) != 3 || classes["second"] != "mobile" || classes["third"] != "mobile" || classes["desk"] != nil {
		t.Errorf("sessions: %d, classes by device %v, want second and third as mobile, and desk without a class", status, classes)
	}
	// Whoever was sent off comes back when its person asks for it, finds what it missed, and now another is the oldest.
	back := n.online("first", push.PlatformAndroid)
	second.wantAway(t, wire.CloseReplaced, "first", "android")
	back.want(t, id)
	for _, w := range []*watcher{desk, third, back} {
		w.leave(t)
	}
}

func TestGateway_RejectNewTurnsTheThirdPhoneAway(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	n.policy(rules(map[string]any{"scope": "class", "max": 2, "on_excess": "reject_new"}))
	first, second := n.online("first", push.PlatformAndroid), n.online("second", push.PlatformIOS)
	third := n.watchWith(n.tokenOn("alice", "third", push.PlatformTablet), &client.Memory{})
	k := third.wantAway(t, wire.ClosePolicy, "", "")
	if want := "at most 2 sessions per class (reject_new)"; !strings.Contains(k.Detail, want) {
		t.Errorf("the detail is %q, want it to say %q", k.Detail, want)
	}
	desk := n.online("desk", push.PlatformDesktop) // has no class
	again := n.online("second", push.PlatformIOS)  // has its place
	second.wantAway(t, wire.CloseReplaced, "second", "ios")

	id := n.publish("alice", "for those who were first")
	for _, w := range []*watcher{first, again, desk} {
		w.want(t, id)
	}
	first.leave(t)
	eventually(t, 20*time.Second, func() bool { // its place is free a moment after it left
		third = n.watchWith(n.tokenOn("alice", "third", push.PlatformTablet), &client.Memory{})
		select {
		case <-third.caught:
			return true
		case <-third.done:
			return false
		}
	}, func() string { return "the third phone is turned away though the first one is gone" })
	third.leave(t)
	again.leave(t)
	desk.leave(t)
}

func TestGateway_PolicyThatChangesAppliesFromTheNextConnect(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	phone, web := n.online("phone", push.PlatformAndroid), n.online("web", push.PlatformWeb)
	n.policy(map[string]any{"rules": []any{map[string]any{"scope": "account", "max": 1}}})
	id := n.publish("alice", "nobody goes by itself")
	phone.want(t, id)
	web.want(t, id)
	tv := n.online("tv", push.PlatformTV)
	phone.wantAway(t, wire.CloseReplaced, "tv", "tv")
	web.wantAway(t, wire.CloseReplaced, "tv", "tv")
	n.policy(nil)
	desk := n.online("desk", push.PlatformDesktop)
	id = n.publish("alice", "together again")
	tv.want(t, id)
	desk.want(t, id)
	tv.leave(t)
	desk.leave(t)
}

// Over every transport a client of a product that is full is told when to come back.
func TestGateway_AFullProductTellsWhenToComeBack(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	if status, a := n.admin(http.MethodPatch, "/admin/v1/products/shop", map[string]any{"limits": map[string]any{"sessions": 1}}); status != http.StatusOK {
		t.Fatalf("got %d %v", status, a)
	}
	alice := n.online("phone", push.PlatformAndroid)
	for range 10 {
		for _, path := range overHTTP {
			res, b := n.knock(path, n.token("bob", "phone"), nil)
			after, err := strconv.Atoi(res.Header.Get("Retry-After"))
			if res.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(b), `"code":"product_full"`) || err != nil || after < 1 {
				t.Fatalf("%s: got %d %s, Retry-After %q, want 503 product_full", path, res.StatusCode, b, res.Header.Get("Retry-After"))
			}
		}
	}
	id := n.publish("alice", "still here")
	alice.want(t, id)
	alice.leave(t)
	eventually(t, 10*time.Second, func() bool { // or he is told to come back in a while
		live, err := n.stores.register.Count(t.Context(), "shop")
		return err == nil && live == 0
	}, func() string { return "her place is not free" })
	bob := n.watchOver(transport.SSE, n.token("bob", "phone"), &client.Memory{})
	bob.want(t, n.publish("bob", "your turn"))
	bob.leave(t)
}
