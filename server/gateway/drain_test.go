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
	const spread = 3 * time.Second
	n := startWith(t, vfs.NewMem(), func(c *Config) {
		c.DrainAddress, c.Room.Goodbye.Spread = "https://b.example.com:8443", spread
	})
	n.setUp()
	s := n.sse(n.token("alice", "phone"), "")
	s.caughtUp()
	if status, a := n.admin(http.MethodPost, "/admin/v1/drain", nil); status != http.StatusAccepted {
		t.Fatalf("drain: %d %v", status, a)
	}
	s.want("cursor")
	e := s.want("goaway")
	f, err := wire.DecodeServer(wire.JSON, []byte(e.data))
	if err != nil {
		t.Fatal(err)
	}
	g := f.(*wire.Goaway)
	if g.Code != wire.CloseGoingAway || g.Address != "https://b.example.com:8443/connect/sse" || int64(g.DelayMillis) >= spread.Milliseconds() {
		t.Errorf("got %+v, want going_away to b.example.com within %v", g, spread)
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
