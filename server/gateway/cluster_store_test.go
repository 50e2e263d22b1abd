package gateway

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"carillon/server/client"
	"carillon/server/redistest"
)

// These tests break the Redis of a cluster while devices are on the line, and look at what a product server is told.

// storePatience bounds what takes a stressed store, on a machine that has other things to do, while rooms may lose their leases.
const storePatience = 3 * time.Minute

// carryAt runs a device at a room over a transport, and waits until it has caught up.
func (n *testNode) carryAt(i int, user, device string) *handset {
	n.t.Helper()
	url, d := n.address(overs[i%len(overs)])
	h := n.carryTo(url, d, user, device, &client.Memory{})
	h.waitCaughtUp()
	return h
}

// wantStayed holds a device to have kept its connection.
func (h *handset) wantStayed() {
	h.t.Helper()
	if n := h.reached(client.Waiting); n != 0 {
		h.t.Errorf("%s lost its connection %d times: %s", h.name, n, h.where())
	}
}

// insist publishes under a key until it is accepted, as a product server does, and returns the id. Until then it is refused with code.
func (n *testNode) insist(key string, to map[string]any, body, code string) (id string) {
	n.t.Helper()
	var last any
	eventually(n.t, storePatience, func() bool {
		status, a, err := n.send(n.t.Context(), key, to, map[string]any{"body": body})
		if last = a; status == http.StatusCreated {
			id = a["id"].(string)
			return true
		}
		if err != nil || status != http.StatusServiceUnavailable || a["code"] != code {
			n.t.Fatalf("publishing: %d %v (%v), want it accepted, or 503 %s", status, a, err, code)
		}
		return false
	}, func() string { return fmt.Sprint("it is refused: ", last) })
	return id
}

// awaitRefused breaks the store and publishes, again and again until that is refused with a code, and returns the key of what was refused and the
// ids of what was not.
func (n *testNode) awaitRefused(name string, to map[string]any, code string, breakIt func()) (key string, taken []string) {
	n.t.Helper()
	eventually(n.t, storePatience, func() bool {
		breakIt()
		key = fmt.Sprint(name, "-", len(taken))
		status, a, err := n.send(n.t.Context(), key, to, map[string]any{"body": name})
		if status == http.StatusCreated {
			taken = append(taken, a["id"].(string))
			return false
		}
		if err != nil || status != http.StatusServiceUnavailable || a["code"] != code || a["detail"] == nil && code == "store_full" {
			n.t.Fatalf("publishing: %d %v (%v), want 503 %s", status, a, err, code)
		}
		return true
	}, func() string { return "nothing is refused" })
	return key, taken
}

// awaitReady waits until every node answers /readyz so.
func awaitReady(t *testing.T, want int, nodes ...*testNode) {
	t.Helper()
	for _, n := range nodes {
		ready := func() int {
			status, _ := n.call("GET", urlOf(n.AdminAddr()), "/readyz", "", nil)
			return status
		}
		eventually(t, storePatience, func() bool { return ready() == want }, func() string { return fmt.Sprintf("%s: /readyz is %d, want %d", n.NodeAddr(), ready(), want) })
	}
}

func TestCluster_WhileRedisIsAwaySessionsStayAndAllArrivesAfterwards(t *testing.T) {
	r := redistest.Standalone(t)
	c := startCluster(t, r, 2, 2, nil)
	all := []*testNode{c.rooms[0], c.rooms[1], c.centers[0], c.centers[1]}
	awaitReady(t, 200, all...)
	alice, everyone := map[string]any{"users": []string{"alice"}}, map[string]any{"everyone": true}
	var phones []*handset
	for i, over := range overs {
		phones = append(phones, c.rooms[i%2].carryAt(i, "alice", string(over)))
	}
	ids := []string{c.centers[0].publish("alice", "before")}
	for i, over := range overs {
		phones[i].wants(ids)
		c.centers[0].waitState(ids[0], string(over), "acknowledged")
	}
	r.Servers()[0].Kill()
	awaitReady(t, 503, all...)
	keys := make([]string, len(c.centers))
	for i, n := range c.centers {
		for name, to := range map[string]map[string]any{"alice": alice, "everyone": everyone} {
			key, taken := n.awaitRefused(fmt.Sprint(name, i), to, "storage_failed", func() {})
			if len(taken) > 0 {
				t.Errorf("%d messages to %s are accepted without Redis", len(taken), name)
			}
			if name == "alice" {
				keys[i] = key
			}
		}
		status, a, err := n.send(t.Context(), "", alice, map[string]any{"body": "now", "persistent": false})
		if err != nil || status != 503 {
			t.Errorf("a message that is not stored, where nobody knows who is online: %d %v (%v)", status, a, err)
		}
	}
	for _, n := range c.rooms { // for so long that they may write nothing any more
		eventually(t, storePatience, func() bool { return !n.room.Alive() }, func() string { return "a room lives without its lease" })
	}
	if err := r.Servers()[0].Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, n := range c.centers {
		ids = append(ids, n.insist(keys[i], alice, fmt.Sprint("alice", i), "storage_failed"))
	}
	awaitReady(t, 200, all...)
	ids = append(ids, c.centers[1].publish("alice", "after"))
	for _, p := range phones {
		p.wants(ids)
		p.wantStayed()
	}
}

func TestCluster_AFullRedisTakesNothingUntilDevicesHaveDrainedIt(t *testing.T) {
	r := redistest.Standalone(t)
	c := startCluster(t, r, 2, 2, nil)
	alice := map[string]any{"users": []string{"alice"}}
	phone := c.rooms[0].carryAt(0, "alice", "phone")
	ids := []string{c.centers[0].publish("alice", "before")}
	phone.wants(ids)
	var waiting []string // for bob, who has no device yet: nearly half of what Redis holds then
	for range 40 {
		waiting = append(waiting, c.centers[1].publish("bob", strings.Repeat("x", 60<<10)))
	}
	fill := func() { // again and again: what connections take comes and goes
		if err := r.Fill(t.Context(), 98); err != nil {
			t.Fatal(err)
		}
	}
	keys := make([]string, len(c.centers))
	for i, n := range c.centers {
		var taken []string
		keys[i], taken = n.awaitRefused(fmt.Sprint("alice", i), alice, "store_full", fill)
		ids = append(ids, taken...)
		n.awaitRefused(fmt.Sprint("both", i), map[string]any{"users": []string{"cathy", "dave"}}, "store_full", fill)
		n.awaitRefused(fmt.Sprint("kiosks", i), map[string]any{"devices": []map[string]any{{"user": "cathy", "device": "kiosk"}}}, "store_full", fill)
	}
	for _, n := range []*testNode{c.rooms[0], c.centers[0]} { // a balancer that took all of them out would keep away who drains it
		var store any
		eventually(t, storePatience, func() bool {
			fill()
			status, a := n.call("GET", urlOf(n.AdminAddr()), "/readyz", "", nil)
			if status != 200 {
				t.Fatalf("/readyz: %d %v, want 200", status, a)
			}
			store = a["checks"].(map[string]any)["store"]
			return strings.Contains(fmt.Sprint(store), "store_full")
		}, func() string { return fmt.Sprint("/readyz says of the store: ", store) })
	}
	status, a := c.rooms[0].ticket("POST", c.rooms[0].token("alice", "web"))
	if status != 200 {
		t.Fatalf("a ticket: %d %v", status, a)
	}
	if status, code, _ := c.rooms[1].stream(a["ticket"].(string)); status != 200 {
		t.Errorf("a stream with it: %d %s", status, code)
	}
	tablet := c.rooms[1].carryAt(0, "bob", "tablet")
	eventually(t, storePatience, func() bool { return len(tablet.messages()) >= len(waiting) }, tablet.where)
	tablet.wants(waiting)
	for i, n := range c.centers {
		ids = append(ids, n.insist(keys[i], alice, fmt.Sprint("alice", i), "store_full"))
	}
	phone.wants(ids)
	phone.wantStayed()
}
