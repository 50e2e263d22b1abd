package ws

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/transport/poller"
	"carillon/server/wire"
)

// problem is a refusal as it is read.
type problem struct {
	Type, Title, Code, Detail string
	Status                    int
}

// request sends a request and returns the answer with its body decoded, if it is a problem.
func request(t *testing.T, addr, raw string) (*http.Response, problem) {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Write([]byte(raw)); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var p problem
	if res.StatusCode != http.StatusSwitchingProtocols {
		if err := json.NewDecoder(res.Body).Decode(&p); err != nil {
			t.Errorf("body: %v", err)
		}
	}
	return res, p
}

func TestServeHTTP_RefusalsAreProblems(t *testing.T) {
	full := push.Errorf(push.KindUnavailable, "overloaded", "the node is full")
	full.After = 2100 * time.Millisecond
	cases := []struct {
		name    string
		request string
		refusal error
		status  int
		code    string
		header  [2]string // one that must be there
	}{
		{
			name: "method", request: strings.Replace(handshake, "GET", "POST", 1),
			status: 405, code: "method_not_allowed", header: [2]string{"Allow", "GET"},
		},
		{
			name: "no upgrade", request: without("Upgrade"),
			status: 426, code: "upgrade_required", header: [2]string{"Upgrade", "websocket"},
		},
		{
			name: "no connection", request: without("Connection"),
			status: 426, code: "upgrade_required", header: [2]string{"Connection", "Upgrade"},
		},
		{
			name: "old HTTP", request: strings.Replace(handshake, "HTTP/1.1", "HTTP/1.0", 1),
			status: 426, code: "upgrade_required", header: [2]string{"Upgrade", "websocket"},
		},
		{name: "no key", request: without("Sec-WebSocket-Key"), status: 400, code: "bad_handshake"},
		{
			name: "two keys", request: with("Sec-WebSocket-Key: BAAAAAAAAAAAAAAAAAAAAA=="),
			status: 400, code: "bad_handshake",
		},
		{
			name: "short key", request: strings.Replace(handshake, "AAAAAAAAAAAAAAAAAAAAAA==", "AAAA", 1),
			status: 400, code: "bad_handshake",
		},
		{
			name: "version", request: strings.Replace(handshake, "Version: 13", "Version: 8", 1),
			status: 400, code: "bad_handshake", header: [2]string{"Sec-Websocket-Version", "13"},
		},
		{
			name: "two versions", request: with("Sec-WebSocket-Version: 8"),
			status: 400, code: "bad_handshake", header: [2]string{"Sec-Websocket-Version", "13"},
		},
		{name: "strange page", request: with("Origin: https://evil.example"), status: 403, code: "origin_forbidden"},
		{name: "page without a host", request: with("Origin: null"), status: 403, code: "origin_forbidden"},
		{name: "page of the wrong scheme", request: with("Origin: http://app.example"), status: 403, code: "origin_forbidden"},
		{
			name: "full", request: handshake, refusal: full,
			status: 503, code: "overloaded", header: [2]string{"Retry-After", "3"},
		},
		{
			name: "full without saying when", request: handshake, refusal: push.Errorf(push.KindUnavailable, "full", ""),
			status: 503, code: "full", header: [2]string{"Retry-After", "1"},
		},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			r := newRoom()
			r.refusal = tc.refusal
			addr, _, stop := serve(t, Config{Acceptor: r, Origins: []string{"*.chat.example", "https://app.example"}}, nil, nil)
			defer stop(t.Context())
			res, p := request(t, addr, tc.request)
			if res.StatusCode != tc.status || p.Status != tc.status {
				t.Errorf("status: got %d, in the body %d, want %d", res.StatusCode, p.Status, tc.status)
			}
			if got, want := res.Header.Get("Content-Type"), "application/problem+json"; got != want {
				t.Errorf("content type: got %q, want %q", got, want)
			}
			if p.Code != tc.code || p.Type != "about:blank" || p.Title != http.StatusText(tc.status) {
				t.Errorf("problem: got %+v, want code %s", p, tc.code)
			}
			if name, want := tc.header[0], tc.header[1]; name != "" && res.Header.Get(name) != want {
				t.Errorf("%s: got %q, want %q", name, res.Header.Get(name), want)
			}
			if tc.status == 503 && res.Header.Get("Upgrade") != "" {
				t.Error("a refusal for want of room looks like an upgrade")
			}
			if len(r.began) > 0 {
				t.Error("a refused request got a session")
			}
		})
	}
}

func TestServeHTTP_AdmitsOwnAndListedPages(t *testing.T) {
	addr, r := start(t, Config{Origins: []string{"*.chat.example", "https://app.example"}})
	for _, origin := range []string{
		"https://carillon.example", "http://a.chat.example", "https://A.Chat.example", "https://app.example",
	} {
		if res, _ := request(t, addr, with("Origin: "+origin)); res.StatusCode != http.StatusSwitchingProtocols {
			t.Errorf("status for %s: got %d, want 101", origin, res.StatusCode)
		}
		r.session(t)
	}
	addr, _ = start(t, Config{Origins: []string{"*"}})
	if res, _ := request(t, addr, with("Origin: https://anybody.example")); res.StatusCode != http.StatusSwitchingProtocols {
		t.Errorf("status with *: got %d, want 101", res.StatusCode)
	}
}

func TestServeHTTP_ClosedTransportRefuses(t *testing.T) {
	r := newRoom()
	addr, tr, stop := serve(t, Config{Acceptor: r}, nil, nil)
	defer stop(t.Context())
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	res, p := request(t, addr, handshake)
	if res.StatusCode != http.StatusServiceUnavailable || p.Code != "shutting_down" || len(r.began) != 0 {
		t.Errorf("got %d %s and %d sessions, want 503 shutting_down and none", res.StatusCode, p.Code, len(r.began))
	}
}

// A server whose connections cannot be taken over is found out after the session was made, which must hear of its end.
func TestServeHTTP_FailedHandshakeEndsTheSession(t *testing.T) {
	r := newRoom()
	tr, err := New(Config{Acceptor: r})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(handshake)))
	if err != nil {
		t.Fatal(err)
	}
	tr.ServeHTTP(httptest.NewRecorder(), req) // no http.Hijacker
	if got := get(t, r.session(t).closed, "Closed"); got != wire.CloseLost {
		t.Errorf("Closed: got %v, want %v", got, wire.CloseLost)
	}
	if err := tr.Close(t.Context()); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func TestServeHTTP_TellsTheSessionWhoConnects(t *testing.T) {
	addr, r := start(t, Config{})
	c := dialRaw(t, addr, nil)
	m := r.session(t).meta
	if m.Kind != transport.WebSocket || !m.Capabilities.Duplex || !m.Capabilities.Close || m.UserAgent != "raw/1" {
		t.Errorf("meta: got %+v", m)
	}
	if got, want := m.Remote.String(), c.nc.LocalAddr().String(); got != want {
		t.Errorf("remote: got %s, want %s", got, want)
	}

	behind := netip.MustParseAddrPort("192.0.2.7:4711")
	addr, r = start(t, Config{Remote: func(*http.Request) netip.AddrPort { return behind }})
	request(t, addr, strings.Replace(handshake, "raw/1", strings.Repeat("ä", 300), 1))
	m = r.session(t).meta
	if m.Remote != behind {
		t.Errorf("remote: got %s, want %s", m.Remote, behind)
	}
	if got, want := len(m.UserAgent), 256; got != want {
		t.Errorf("user agent: got %d bytes, want %d", got, want)
	}
}

func TestServeHTTP_IdleConnectionHasNoGoroutine(t *testing.T) {
	if !poller.Supported {
		t.Skip("connections are not parked on this system")
	}
	idleGoroutines(t, EngineEpoll, 0)
}

func TestServeHTTP_IdleConnectionInTheGoroutineFormHasOne(t *testing.T) {
	idleGoroutines(t, EngineGoroutine, 1)
}

// idleGoroutines checks how many goroutines of the transport and of net/http an idle connection has.
func idleGoroutines(t *testing.T, engine Engine, each int) {
	const n = 50
	addr, r := start(t, Config{Engine: engine})
	for range n {
		c := dialRaw(t, addr, nil)
		s := r.session(t)
		s.put(text(0)) // one that has been written to
		c.until(t, fin|opText)
		if err := c.write(frame(fin|opText, ack("a"))); err != nil { // and read from
			t.Fatal(err)
		}
		get(t, s.frames, "the acknowledgement")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		var all strings.Builder
		pprof.Lookup("goroutine").WriteTo(&all, 2)
		readers := strings.Count(all.String(), "engine.(*Conn).read(")
		others := strings.Count(all.String(), "engine.(*Conn)") - readers - strings.Count(all.String(), "engine.(*Conn).stand.func")
		handlers := strings.Count(all.String(), "net/http.(*conn).serve(")
		if readers == each*n && others == 0 && handlers == 0 {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("goroutines of %d idle connections: got %d readers, %d handlers, %d others, want %d readers each",
				n, readers, handlers, others, each)
		}
		runtime.Gosched()
	}
}

func TestNew_RejectsWhatCannotWork(t *testing.T) {
	for _, cfg := range []Config{
		{},
		{Acceptor: newRoom(), Origins: []string{"[a"}},
		{Acceptor: newRoom(), FrameBytes: -1},
		{Acceptor: newRoom(), FirstFrameBytes: -1},
		{Acceptor: newRoom(), Workers: -1},
		{Acceptor: newRoom(), Engine: "steam"},
	} {
		if tr, err := New(cfg); err == nil {
			tr.Close(t.Context())
			t.Errorf("New(%+v): got no error", cfg)
		}
	}
}
