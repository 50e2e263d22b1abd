//go:build !race

// Under the race detector a day of timers in a synctest bubble crashes Go 1.26.8 itself, about once in fifteen runs (SIGSEGV in
// the detector's runtime, below time.goFunc). So this test runs on the plain binary, in the step of the crash tests.

package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"carillon/server/auth"
	"carillon/server/catalog"
	"carillon/server/client"
	"carillon/server/push"
	"carillon/server/transport/ws"
	"carillon/server/wire"
)

// pipes is a network in memory: every listener has a name, and dialing it makes a pipe.
type pipes struct {
	mu        sync.Mutex
	listeners map[string]*pipeListener
}

type pipeListener struct {
	name   pipeAddr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

type pipeAddr string

func (a pipeAddr) Network() string { return "pipe" }
func (a pipeAddr) String() string  { return string(a) }

func (p *pipes) listen(_, name string) (net.Listener, error) {
	l := &pipeListener{name: pipeAddr(name), conns: make(chan net.Conn), closed: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listeners[name] = l
	return l, nil
}

func (p *pipes) dial(ctx context.Context, _, name string) (net.Conn, error) {
	p.mu.Lock()
	l := p.listeners[name]
	p.mu.Unlock()
	if l == nil {
		return nil, net.ErrClosed
	}
	near, far := net.Pipe()
	select {
	case l.conns <- far:
		return near, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return l.name }

// TestGateway_AWholeNodeLivesADayOnVirtualTime runs everything that a node is, store, listeners and all, without a machine:
// time, disk and network are the test's. A day of heartbeats takes as long as the work it causes.
func TestGateway_AWholeNodeLivesADayOnVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := &pipes{listeners: make(map[string]*pipeListener)}
		g, err := New(t.Context(), Config{
			Data: "data", FS: vfs.NewMem(), Secret: secret, PublicListen: "public:80", AdminListen: "admin:80", Listen: network.listen,
			Engine: ws.EngineGoroutine, // an epoll waits for the real world
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- g.Run(ctx) }()
		hc := &http.Client{Transport: &http.Transport{DialContext: network.dial, DisableKeepAlives: true}}
		call := func(method, url, bearer string, body any) map[string]any {
			t.Helper()
			b, _ := json.Marshal(body)
			req, _ := http.NewRequest(method, url, bytes.NewReader(b))
			req.Header.Set("Authorization", "Bearer "+bearer)
			req.Header.Set("Content-Type", "application/json")
			resp, err := hc.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			raw, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != http.StatusCreated {
				t.Fatalf("%s %s: %d %s", method, url, resp.StatusCode, raw)
			}
			out := map[string]any{}
			if err := json.Unmarshal(raw, &out); err != nil {
				t.Fatal(err)
			}
			return out
		}
		const products = "http://admin:80/admin/v1/products"
		call("POST", products, secret, map[string]any{"id": "shop", "name": "Shop"})
		key := bytes.Repeat([]byte("0123456789abcdef"), 2)
		call("POST", products+"/shop/device-keys", secret, map[string]any{"id": "k1", "alg": "HS256", "secret_base64": key})
		api := call("POST", products+"/shop/api-keys", secret, map[string]any{"scopes": []string{"*"}})["key"].(string)

		var mu sync.Mutex
		var got []string
		online, tokens := 0, 0
		c, err := client.New(client.Config{
			URLs: []string{"ws://public:80/connect"}, Storage: &client.Memory{}, Dialer: &client.WebSocket{Client: hc},
			Tokens: func(context.Context, bool) (string, error) {
				mu.Lock()
				tokens++
				mu.Unlock()
				return auth.Mint(auth.SigningKey{ID: "k1", Alg: catalog.HS256, Private: key}, auth.Claims{Product: "shop", User: "alice",
					Device: "phone", Platform: push.PlatformAndroid, Issued: time.Now(), Expires: time.Now().Add(10 * time.Hour)})
			},
			Callbacks: client.Callbacks{
				Message: func(_ context.Context, m *wire.Message) error {
					mu.Lock()
					got = append(got, string(m.Body))
					mu.Unlock()
					return nil
				},
				Status: func(s client.Status) {
					mu.Lock()
					if s.Phase == client.Online {
						online++
					}
					mu.Unlock()
				},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		cctx, leave := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		go func() { gone <- c.Run(cctx) }()
		for range 24 {
			time.Sleep(time.Hour) // virtual: every timer of the node has its turn
			call("POST", "http://public:80/v1/messages", api, map[string]any{
				"to": map[string]any{"users": []string{"alice"}}, "message": map[string]any{"body": "hourly"},
			})
		}
		time.Sleep(time.Minute)
		mu.Lock()
		if len(got) != 24 {
			t.Errorf("%d messages came in a day, want 24", len(got))
		}
		// Tokens live ten hours, so a day takes at least three; apart from renewing them nothing broke the connection.
		if tokens < 3 || tokens > 4 || online > tokens {
			t.Errorf("%d connections and %d tokens in a day, want a few tokens and no connection more", online, tokens)
		}
		mu.Unlock()
		leave()
		if err := <-gone; err != nil {
			t.Error(err)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		hc.CloseIdleConnections()
	})
}
