package sse

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/transport/engine"
	"carillon/server/wire"
)

// forms are the engines that this system has.
func forms(t testing.TB) []engine.Form {
	if tr, err := New(Config{Acceptor: newRoom(), Engine: engine.Epoll}); err == nil {
		tr.Close(t.Context())
		return []engine.Form{engine.Epoll, engine.Goroutine}
	}
	return []engine.Form{engine.Goroutine}
}

// eachForm runs a test on every engine.
func eachForm(t *testing.T, test func(t *testing.T, addr string, r *room)) {
	for _, f := range forms(t) {
		t.Run(string(f), func(t *testing.T) {
			addr, r := start(t, Config{Engine: f, Workers: workers})
			test(t, addr, r)
		})
	}
}

// problem is the body of a refusal.
type problem struct {
	Status                  int
	Code, Detail, Parameter string
}

// refused reads the answer of a client that is refused.
func refused(t *testing.T, c *rawClient) (*http.Response, problem) {
	t.Helper()
	c.nc.SetReadDeadline(time.Now().Add(patience))
	if err := c.readHead(); err != nil {
		t.Fatal(err)
	}
	if got := c.head.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("content type: got %q", got)
	}
	var p problem
	if err := json.NewDecoder(c.head.Body).Decode(&p); err != nil {
		t.Fatal(err)
	}
	if p.Status != c.head.StatusCode {
		t.Errorf("status: got %d in the head, %d in the body", c.head.StatusCode, p.Status)
	}
	return c.head, p
}

func TestServeHTTP_RefusesWithoutASession(t *testing.T) {
	full := push.Errorf(push.KindUnavailable, "overloaded", "the node is full")
	full.After = 2100 * time.Millisecond
	line := func(old, now string) string { return strings.Replace(request, old, now, 1) }
	cases := []struct {
		name    string
		request string
		refusal error
		status  int
		code    string
		header  [2]string // one that must be there
	}{
		{name: "POST", request: line("GET", "POST"), status: 405, code: "method_not_allowed", header: [2]string{"Allow", "GET"}},
		{name: "no credential", request: line("Authorization", "X"), status: 401, code: "unauthenticated",
			header: [2]string{"Www-Authenticate", `Bearer realm="carillon"`}},
		{name: "a token in the URL", request: line("client=raw%2F1", "token=a.b.c"), status: 400, code: "token_in_url"},
		{name: "a parameter", request: line("client=raw%2F1", "version=new"), status: 400, code: "invalid_parameter"},
		{name: "a body", request: line("\r\n\r\n", "\r\nContent-Length: 2\r\n\r\n{}"), status: 400, code: "unexpected_body"},
		{name: "a full node", request: request, refusal: full, status: 503, code: "overloaded", header: [2]string{"Retry-After", "3"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			addr, r := start(t, Config{Workers: workers})
			r.refusal = c.refusal
			resp, p := refused(t, dialRaw(t, addr, nil, c.request))
			if p.Status != c.status || p.Code != c.code {
				t.Errorf("got %d %s, want %d %s", p.Status, p.Code, c.status, c.code)
			}
			if got := resp.Header.Get(c.header[0]); c.header[0] != "" && got != c.header[1] {
				t.Errorf("%s: got %q, want %q", c.header[0], got, c.header[1])
			}
			if len(r.began) > 0 {
				t.Error("a session was made")
			}
		})
	}
}

func TestServeHTTP_HEADIsRefusedAndTheConnectionGoesOn(t *testing.T) {
	addr, r := start(t, Config{Workers: workers})
	c := dialRaw(t, addr, nil, strings.Replace(request, "GET", "HEAD", 1)+request)
	resp, err := http.ReadResponse(c.br, httptest.NewRequest(http.MethodHead, "/", nil))
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("status: got %d, want 405", resp.StatusCode)
	}
	s := r.session(t)
	s.put(welcome)
	if err := c.readHead(); err != nil || c.head.StatusCode != http.StatusOK {
		t.Errorf("the request behind it: got %+v, %v", c.head, err)
	}
}

func TestServeHTTP_HTTP2IsRefused(t *testing.T) {
	tr, err := New(Config{Acceptor: newRoom()})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close(t.Context())
	srv := httptest.NewUnstartedServer(tr)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer a.b.c")
	resp, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.ProtoMajor != 2 {
		t.Fatalf("the test speaks %s", resp.Proto)
	}
	var p problem
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
		t.Fatal(err)
	}
	if p.Status != 505 || p.Code != "http_version" {
		t.Errorf("got %+v, want 505 http_version", p)
	}
}

func TestServeHTTP_ConnectIsWhatTheRequestSays(t *testing.T) {
	want := netip.MustParseAddrPort("198.51.100.7:99")
	addr, r := start(t, Config{Workers: workers, Remote: func(*http.Request) netip.AddrPort { return want }})
	asked := strings.Replace(request, "?client", "?cursor=old&version=7&client", 1)
	dialRaw(t, addr, nil, strings.Replace(asked, "\r\n\r\n", "\r\nLast-Event-ID: "+begin+"\r\n\r\n", 1))
	s := r.session(t)
	connect, ok := get(t, s.frames, "connect").(*wire.Connect)
	if !ok || *connect != (wire.Connect{Version: 7, Token: "a.b.c", Cursor: begin, Client: "raw/1"}) {
		t.Errorf("got %+v", connect)
	}
	m := transport.Meta{Kind: transport.SSE, Capabilities: capabilities, Remote: want, UserAgent: "raw/1"}
	if s.meta != m {
		t.Errorf("meta: got %+v, want %+v", s.meta, m)
	}
}

// tickets is a bag with one ticket.
type tickets struct{}

func (tickets) Redeem(_ context.Context, ticket string) (string, bool, error) {
	return "of the ticket", ticket == "t1", nil
}

func TestServeHTTP_ATicketStandsForItsToken(t *testing.T) {
	addr, r := start(t, Config{Workers: workers, Tickets: tickets{}})
	noHeader := strings.Replace(request, "Authorization: Bearer a.b.c\r\n", "", 1)
	dialRaw(t, addr, nil, strings.Replace(noHeader, "client=raw%2F1", "ticket=t1", 1))
	if c := get(t, r.session(t).frames, "connect").(*wire.Connect); c.Token != "of the ticket" {
		t.Errorf("token: got %q", c.Token)
	}
	if _, p := refused(t, dialRaw(t, addr, nil, strings.Replace(noHeader, "client=raw%2F1", "ticket=t2", 1))); p.Code != "ticket_refused" {
		t.Errorf("another ticket: got %+v", p)
	}
}

// What handlers in front have set (CORS) stands in the answer, although net/http does not write it.
func TestStream_KeepsTheHeadersOfHandlersInFront(t *testing.T) {
	r := newRoom()
	addr, tr, stop := serve(t, Config{Acceptor: r, Workers: workers}, nil, nil, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Access-Control-Allow-Origin", "https://app.example.com")
			next.ServeHTTP(w, r)
		})
	})
	defer func() { tr.Close(t.Context()); stop(t.Context()) }()
	for _, f := range []wire.Frame{welcome, &wire.Kick{Code: wire.CloseTokenRefused}} {
		c := dialRaw(t, addr, nil, request)
		s := r.session(t)
		s.put(f)
		if err := c.readHead(); err != nil {
			t.Fatal(err)
		}
		if got := c.head.Header.Get("Access-Control-Allow-Origin"); got != "https://app.example.com" {
			t.Errorf("%s: got %q", f.Type(), got)
		}
		c.Kill()
		get(t, s.closed, "Closed")
	}
}

func TestStream_HTTP10IsServedToo(t *testing.T) {
	eachForm(t, func(t *testing.T, addr string, r *room) { // nginx speaks it unless told otherwise
		c := dialRaw(t, addr, nil, strings.Replace(request, "HTTP/1.1", "HTTP/1.0", 1))
		s := r.session(t)
		s.put(welcome)
		c.until(t, "\r\n\r\n")
		s.conn.Close(wire.CloseGoingAway)
		if got := string(c.all(t)); !strings.HasPrefix(got, "event: welcome\n") || !strings.HasSuffix(got, "}\n\n") {
			t.Errorf("got %q", got)
		}
	})
}

// The answer as net/http's client reads it: the body ends where the stream ends, and not in the middle.
func TestStream_EndsWithTheSession(t *testing.T) {
	eachForm(t, func(t *testing.T, addr string, r *room) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/connect/sse", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer a.b.c")
		client := &http.Client{Transport: &http.Transport{}}
		done := make(chan struct{})
		go func() {
			defer close(done)
			s := r.session(t)
			s.put(welcome)
			s.put(&wire.Cursor{Cursor: begin, Reason: wire.CursorGoodbye}, &wire.Goaway{Code: wire.CloseGoingAway, DelayMillis: 7})
			s.conn.Close(wire.CloseGoingAway)
			if got := get(t, s.closed, "Closed"); got != wire.CloseGoingAway {
				t.Errorf("closed with %v", got)
			}
		}()
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		want := "retry: 7\n" + `data: {"type":"goaway","code":4000,"delay_ms":7}` + "\n\n"
		if resp.StatusCode != http.StatusOK || !strings.HasSuffix(string(b), want) {
			t.Errorf("got %d %q, want the end %q", resp.StatusCode, b, want)
		}
		<-done
	})
}
