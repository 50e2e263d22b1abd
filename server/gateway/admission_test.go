package gateway

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/coder/websocket"

	"carillon/server/admission"
)

// dialFrom opens a WebSocket from an address of this machine. It returns the answer of a refusal, with its code.
func (n *testNode) dialFrom(addr string) (c *websocket.Conn, refusal *http.Response, code string) {
	n.t.Helper()
	from := &net.TCPAddr{IP: net.ParseIP(addr)}
	hc := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, to string) (net.Conn, error) {
			return (&net.Dialer{LocalAddr: from}).DialContext(ctx, network, to)
		},
	}}
	c, resp, err := websocket.Dial(n.t.Context(), "ws"+strings.TrimPrefix(n.PublicURL(), "http")+"/connect", &websocket.DialOptions{HTTPClient: hc})
	if err == nil {
		n.t.Cleanup(func() { c.CloseNow() })
		return c, nil, ""
	}
	if resp == nil {
		n.t.Fatalf("dialing from %s: %v", addr, err)
	}
	var p struct{ Code string }
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
		n.t.Fatalf("a refusal that is no problem document: %v", err)
	}
	if after, err := strconv.Atoi(resp.Header.Get("Retry-After")); err != nil || after < 1 {
		n.t.Errorf("Retry-After is %q, want seconds", resp.Header.Get("Retry-After"))
	}
	return nil, resp, p.Code
}

func TestAdmission_TenTimesPastALimit(t *testing.T) {
	const most = 5
	for _, c := range []struct {
		name   string
		limits admission.Config
		status int
		code   string
		others bool // are let in meanwhile
	}{
		{"connections of an address", admission.Config{PerAddress: most}, 429, "too_many_connections", true},
		{"connects of an address", admission.Config{AddressRate: 1, AddressBurst: most}, 429, "connecting_too_fast", true},
		{"connections of the node", admission.Config{Sessions: most}, 503, "overloaded", false},
		{"connects of the node", admission.Config{Rate: 1, Burst: most}, 503, "overloaded", false},
		{"memory", admission.Config{HeapBytes: 1}, 503, "overloaded", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := startWith(t, vfs.NewMem(), func(cfg *Config) {
				if c.limits.HeapBytes > 0 {
					c.limits.Live = func() int64 { return 2 }
				}
				cfg.Admission = c.limits
			})
			in := 0
			for range 10 * most {
				conn, refusal, code := n.dialFrom("127.0.0.2")
				if conn != nil {
					in++
					continue
				}
				if refusal.StatusCode != c.status || code != c.code {
					t.Fatalf("refused with %d %s, want %d %s", refusal.StatusCode, code, c.status, c.code)
				}
			}
			switch rated := c.limits.Rate > 0 || c.limits.AddressRate > 0; {
			case c.limits.HeapBytes > 0 && in != 0:
				t.Errorf("%d were let in without memory", in)
			case c.limits.HeapBytes == 0 && (in < most || !rated && in > most || in == 10*most): // a rate gives more as time goes by
				t.Errorf("%d of %d were let in, want %d", in, 10*most, most)
			}
			if conn, refusal, _ := n.dialFrom("127.0.0.3"); c.others && conn == nil {
				t.Errorf("another address was refused with %d", refusal.StatusCode)
			}
		})
	}
}

// A client that has to mend its ways is told so by the same status whichever transport it tries, and a stream that was refused
// takes no place.
func TestAdmission_AStreamIsRefusedAsAWebSocketIs(t *testing.T) {
	n := startWith(t, vfs.NewMem(), func(cfg *Config) { cfg.Admission = admission.Config{PerAddress: 1} })
	if conn, _, _ := n.dialFrom("127.0.0.1"); conn == nil {
		t.Fatal("an address that may have one connection has none")
	}
	for range 3 {
		resp := n.sse("x.y.z", "").resp
		if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") != "1" {
			t.Errorf("got %d, Retry-After %q, want 429 and 1", resp.StatusCode, resp.Header.Get("Retry-After"))
		}
	}
	if got := n.room.Count(); got != 1 {
		t.Errorf("the room holds %d connections, want the WebSocket alone", got)
	}
}

func TestAdmission_APlaceIsFreeAgainOnceItsClientIsGone(t *testing.T) {
	n := startWith(t, vfs.NewMem(), func(cfg *Config) { cfg.Admission = admission.Config{PerAddress: 1} })
	conn, _, _ := n.dialFrom("127.0.0.2")
	if again, _, _ := n.dialFrom("127.0.0.2"); conn == nil || again != nil {
		t.Fatal("an address that may have one connection has none, or two")
	}
	conn.CloseNow()
	eventually(t, 20*time.Second, func() bool {
		again, _, _ := n.dialFrom("127.0.0.2")
		return again != nil
	}, func() string { return "the place of a client that is gone is not free" })
}
