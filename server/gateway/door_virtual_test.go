//go:build !race

// As virtual_test.go, whose network in memory this uses.

package gateway

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"carillon/server/admission"
	"carillon/server/certificate"
	"carillon/server/transport/ws"
)

// virtualNode runs a node on virtual time; the test has to call stop.
func virtualNode(t *testing.T, change func(*Config)) (network *pipes, g *Gateway, stop func()) {
	t.Helper()
	network = &pipes{listeners: make(map[string]*pipeListener)}
	cfg := Config{
		Data: "data", FS: vfs.NewMem(), Secret: secret, PublicListen: "public:80", AdminListen: "admin:80", Listen: network.listen,
		Engine: ws.EngineGoroutine,
	}
	change(&cfg)
	g, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	<-g.room.Joined()
	return network, g, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Ten times as many handshakes as connections may be open, and nobody goes on with one: they are gone in seconds.
func TestDoor_HandshakesThatDoNotEndLeaveTheirPlaces(t *testing.T) {
	const most = 5
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t)
		dir := t.TempDir()
		pair := certificate.Pair{Cert: filepath.Join(dir, "server.pem"), Key: filepath.Join(dir, "server.key")}
		a.write(pair)
		network, g, stop := virtualNode(t, func(cfg *Config) {
			cfg.Certificates, cfg.Door.Connections = []certificate.Pair{pair}, most
		})
		defer stop()
		var ended atomic.Int64
		for range 10 * most {
			nc, err := network.dial(t.Context(), "", "public:80")
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				defer nc.Close()
				_, _ = nc.Read(make([]byte, 1))
				ended.Add(1)
			}()
		}
		synctest.Wait()
		if got := ended.Load(); got != 9*most || g.edge.door.Open() != most {
			t.Errorf("%d were closed at once and %d are open, want %d and %d", got, g.edge.door.Open(), 9*most, most)
		}
		time.Sleep(5*time.Second + time.Millisecond)
		synctest.Wait()
		if got := ended.Load(); got != 10*most || g.edge.door.Open() != 0 {
			t.Errorf("%d are closed and %d open after five seconds, want all and none", got, g.edge.door.Open())
		}
		nc, err := network.dial(t.Context(), "", "public:80")
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if err := tls.Client(nc, &tls.Config{RootCAs: a.pool, ServerName: "127.0.0.1"}).HandshakeContext(t.Context()); err != nil {
			t.Errorf("a handshake failed: %v", err)
		}
	})
}

// The node is shut for its memory while ten times as many come as it could hold, and open again seconds after its sessions have gone.
func TestGateway_ShutForMemoryItOpensByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var found, reachable atomic.Int64
		found.Store(200)
		reachable.Store(200)
		network, _, stop := virtualNode(t, func(cfg *Config) {
			cfg.Admission = admission.Config{HeapBytes: 100, Live: found.Load, Collect: func() { found.Store(reachable.Load()) }}
		})
		defer stop()
		hc := &http.Client{Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext:       func(ctx context.Context, n, addr string) (net.Conn, error) { return network.dial(ctx, n, addr) },
		}}
		status := func() int {
			t.Helper()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://public:80/connect/poll", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer x.y.z")
			res, err := hc.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			return res.StatusCode
		}
		for range 100 {
			if got := status(); got != http.StatusServiceUnavailable {
				t.Fatalf("got %d above the budget, want 503", got)
			}
			time.Sleep(100 * time.Millisecond)
		}
		reachable.Store(50)
		time.Sleep(10 * time.Second)
		if got := status(); got != http.StatusUnauthorized { // its token is none, which is judged of those who were let in
			t.Errorf("got %d although there is memory, want 401", got)
		}
	})
}
