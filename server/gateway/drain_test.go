package gateway

import (
	"net/http"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"carillon/server/transport"
	"carillon/server/wire"
)

func TestGateway_DrainSendsClientsElsewhereWithASpread(t *testing.T) {
	for _, c := range []struct {
		name    string
		body    any
		spread  time.Duration
		address string
	}{
		{"as configured", nil, 3 * time.Second, "https://b.example.com:8443/connect/sse"},
		{"as the call has it", map[string]any{"spread_seconds": 1, "address": "http://c.example.com"}, time.Second, "http://c.example.com/connect/sse"},
		{"to where they were", map[string]any{"address": ""}, 3 * time.Second, ""},
	} {
		t.Run(c.name, func(t *testing.T) { drainsWith(t, c.body, c.spread, c.address) })
	}
}

func drainsWith(t *testing.T, body any, spread time.Duration, address string) {
	n := startWith(t, vfs.NewMem(), func(c *Config) {
		c.DrainAddress, c.Room.Goodbye.Spread = "https://b.example.com:8443", 3*time.Second
	})
	n.setUp()
	s := n.sse(n.token("alice", "phone"), "")
	s.caughtUp()
	if status, a := n.admin(http.MethodPost, "/admin/v1/drain", body); status != http.StatusAccepted {
		t.Fatalf("drain: %d %v", status, a)
	}
	s.want("cursor")
	e := s.want("goaway")
	f, err := wire.DecodeServer(wire.JSON, []byte(e.data))
	if err != nil {
		t.Fatal(err)
	}
	g := f.(*wire.Goaway)
	if g.Code != wire.CloseGoingAway || g.Address != address || int64(g.DelayMillis) >= spread.Milliseconds() {
		t.Errorf("got %+v, want going_away to %q within %v", g, address, spread)
	}
	if _, ok := s.next(); ok {
		t.Error("the stream goes on after its goodbye")
	}
}

func TestAddressesAt_NamesEachTransportsPath(t *testing.T) {
	for origin, want := range map[string]string{
		"https://b.example.com": "wss://b.example.com/connect", "http://10.0.0.2:8080": "ws://10.0.0.2:8080/connect",
	} {
		got := addressesAt(origin)
		if got[transport.WebSocket] != want || got[transport.SSE] != origin+"/connect/sse" || got[transport.LongPoll] != origin+"/connect/poll" {
			t.Errorf("%s: got %v", origin, got)
		}
		if got[transport.TCP] != "" {
			t.Errorf("%s: raw TCP is sent to a port that nobody named: %v", origin, got)
		}
	}
	if got := addressesAt(""); got != nil {
		t.Errorf("without an origin: got %v", got)
	}
}
