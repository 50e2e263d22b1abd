package longpoll

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/transport/engine"
	"carillon/server/transport/transporttest"
	"carillon/server/wire"
)

func TestConnection_GoesOnAfterEachAnswer(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		const rounds = 50
		addr, r, _ := start(t, cfg)
		l := dial(t, addr)
		s, a := l.begin(r)
		for i := range rounds {
			l.next(s, a)
			s.put(message(push.Position(i+1), `1`))
			if a = l.answer(); a.Cursor != cursorAt(1, push.Position(i+1)) {
				t.Fatalf("round %d: cursor %s", i, a.Cursor)
			}
		}
		l.write("DELETE / HTTP/1.1\r\nHost: h\r\n\r\n") // any other request
		if res, _ := l.refused(); res.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("another request: got %d", res.StatusCode)
		}
	})
}

func TestConnection_OverTLSGoesOnAfterEachAnswer(t *testing.T) {
	r := newRoom()
	var secure []bool
	var mu sync.Mutex
	tr, err := New(Config{Acceptor: r})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		secure = append(secure, r.TLS != nil)
		mu.Unlock()
		tr.ServeHTTP(w, r)
	}))
	l := NewListener(srv.Listener, ListenerConfig{})
	srv.Listener, srv.Config.ConnContext = l, l.ConnContext
	srv.StartTLS()
	nc, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, l.Addr().String())
	c.nc.Close()
	c.nc = nc
	c.br.Reset(nc)
	s, a := c.begin(r)
	for i := range 5 {
		c.next(s, a)
		s.put(message(push.Position(i+1), `1`))
		a = c.answer()
	}
	nc.Close()
	s.conn.Cut(wire.CloseLost)
	if err := tr.Close(t.Context()); err != nil {
		t.Error(err)
	}
	srv.Close()
	if len(secure) != 6 || bytes.Contains(fmt.Append(nil, secure), []byte("false")) {
		t.Errorf("requests that know of their TLS: %v, want all 6", secure)
	}
	if got := l.Returned(); got != 0 {
		t.Errorf("%d connections came back, and TLS stays where it is", got)
	}
}

// A request that is sent before the one in front of it was answered waits for its turn.
func TestConnection_RequestsThatComeEarlyAreAnsweredInTurn(t *testing.T) {
	for _, tc := range []struct {
		name     string
		requests int
	}{{"one", 1}, {"more than is kept", 100}} {
		t.Run(tc.name, func(t *testing.T) {
			engines(t, func(t *testing.T, cfg Config) {
				addr, r, tr := start(t, cfg)
				l := dial(t, addr)
				s, a := l.begin(r)
				early := strings.Repeat("DELETE / HTTP/1.1\r\nHost: carillon.example\r\n\r\n", tc.requests)
				half := len(early) / 2
				l.write(request(a.Session, a.Cursor, "", "alice", "") + early[:half])
				get(t, s.polls, "the poll")
				l.write(early[half:])
				if tr.Engine() == engine.Epoll {
					waitEarly(t, tr, s.number, min(len(early), maxEarly))
				}
				s.put(message(1, `1`))
				if b := l.answer(); len(b.Frames) != 1 {
					t.Errorf("the poll: got %d frames, want 1", len(b.Frames))
				}
				for i := range tc.requests {
					if res, _ := l.refused(); res.StatusCode != http.StatusMethodNotAllowed {
						t.Fatalf("request %d: got %d", i, res.StatusCode)
					}
				}
				l.write(request(a.Session, cursorAt(1, 1), "0", "alice", ""))
				l.answer()
			})
		})
	}
}

// waitEarly waits until so much has been read of a client that waits.
func waitEarly(t *testing.T, tr *Transport, n push.SessionEpoch, want int) {
	t.Helper()
	c := tr.lookup(n)
	transporttest.Eventually(t, "what came early is read", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.waits != nil && c.waits.rare != nil && len(c.waits.rare.early) == want
	})
}

func TestConnection_EndsWhereTheClientSaysSo(t *testing.T) {
	for _, tc := range []struct{ name, version, headers string }{
		{"HTTP/1.1 with Connection: close", "1.1", "Connection: close\r\n"},
		{"HTTP/1.0", "1.0", ""},
		{"HTTP/1.0 as proxies send it", "1.0", "Connection: close\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			engines(t, func(t *testing.T, cfg Config) {
				addr, r, tr := start(t, cfg)
				first := dial(t, addr)
				s, a := first.begin(r)
				l := dial(t, addr)
				l.write(strings.Replace(request(a.Session, a.Cursor, "", "alice", tc.headers), "HTTP/1.1", "HTTP/"+tc.version, 1))
				get(t, s.polls, "the poll")
				l.write(strings.Repeat("more than was asked for, and than is kept", 200))
				s.put(message(1, `"last"`))
				if got := l.ends(); !strings.HasSuffix(got, "]}\n") || !strings.Contains(got, "Connection: close\r\n") ||
					!strings.Contains(got, `"last"`) || !strings.HasPrefix(got, "HTTP/1.") {
					t.Errorf("got %q, want an answer and the end", got)
				}
				get(t, s.overs, "the end of the poll")
				s.conn.Cut(wire.CloseLost)
				checkEmpty(t, tr)
			})
		})
	}
}

// proxied is a listener that knows its clients from what a proxy says.
type proxied struct{ net.Listener }

type proxiedConn struct{ *net.TCPConn }

func (proxiedConn) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(203, 0, 113, 7), Port: 4711}
}

func (l proxied) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return proxiedConn{nc.(*net.TCPConn)}, nil
}

func TestConnection_IsOfTheSameClientWhenItComesBack(t *testing.T) {
	r := newRoom()
	tr, err := New(Config{Acceptor: r})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(tr)
	back := NewListener(proxied{srv.Listener}, ListenerConfig{})
	srv.Listener, srv.Config.ConnContext = back, back.ConnContext
	srv.Start()
	defer srv.Close()
	l := dial(t, back.Addr().String())
	for i := range 3 { // each poll begins a session, and ends it with its second
		s, a := l.begin(r)
		if got := s.meta.Remote.String(); got != "203.0.113.7:4711" {
			t.Errorf("session %d: the client is %s", i, got)
		}
		l.next(s, a)
		s.conn.Cut(wire.CloseLost)
		l.answer()
	}
	if err := tr.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// tight is a listener whose connections have small buffers in the kernel, so that an answer does not fit.
type tight struct{ net.Listener }

func (l tight) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err == nil {
		nc.(*net.TCPConn).SetWriteBuffer(4 << 10)
	}
	return nc, err
}

// slowly starts a transport whose answers do not fit into the kernel, and a poll of a client that does not read.
func slowly(t *testing.T, cfg Config) (tr *Transport, s *session, l *line, a body, large string) {
	t.Helper()
	r := newRoom()
	cfg.Acceptor = r
	tr, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(tr)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	back := NewListener(tight{srv.Listener}, ListenerConfig{})
	srv.Listener, srv.Config.ConnContext = back, back.ConnContext
	srv.Start()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		tr.Close(ctx)
		srv.Close()
	})
	d := net.Dialer{ControlContext: smallReceive}
	nc, err := d.Dial("tcp", back.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	l = dial(t, back.Addr().String())
	l.nc.Close()
	l.nc = nc
	l.br.Reset(nc)
	t.Cleanup(func() { nc.Close() })
	nc.SetReadDeadline(time.Now().Add(2 * patience))
	s, a = l.begin(r)
	l.next(s, a)
	return tr, s, l, a, `"` + strings.Repeat("x", 1<<20) + `"`
}

func TestAnswer_ThatTheClientReadsSlowlyArrives(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		tr, s, l, a, large := slowly(t, cfg)
		s.put(message(1, large))
		transporttest.Eventually(t, "the answer is under way", func() bool { return owes(tr, s.number) })
		if len(s.overs) > 0 {
			t.Fatal("the poll is over before its answer is in the kernel's hands")
		}
		l.write(request(a.Session, cursorAt(1, 1), "0", "alice", "")) // and is read by net/http in its turn
		if b := l.answer(); len(b.Frames) != 1 || !bytes.Contains(b.Frames[0], []byte(large)) {
			t.Errorf("got %d frames", len(b.Frames))
		}
		if b := l.answer(); b.Session != a.Session {
			t.Errorf("the next poll: got %+v", b)
		}
		get(t, s.overs, "the end of the poll")
	})
}

// owes reports whether an answer is under way that the kernel does not take.
func owes(tr *Transport, n push.SessionEpoch) bool {
	c := tr.lookup(n)
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.owes
	return p != nil && (p.rare != nil && p.rare.rest != nil || p.hand != nil && p.hand.writing)
}

func TestAnswer_ThatTheClientDoesNotReadIsCut(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		tr, s, l, _, large := slowly(t, cfg)
		s.put(message(1, large))
		transporttest.Eventually(t, "the answer is under way", func() bool { return owes(tr, s.number) })
		s.conn.Cut(wire.CloseSlow)
		if got := get(t, s.closed, "Closed"); got != wire.CloseSlow {
			t.Errorf("Closed: got %v, want %v", got, wire.CloseSlow)
		}
		b, err := io.ReadAll(l.br)
		if isTimeout(err) || len(b) > len(large) {
			t.Errorf("the client read %d bytes and %v, want a cut", len(b), err)
		}
		checkEmpty(t, tr)
	})
}

func TestAnswer_ThatCannotBeWrittenEndsTheSession(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		tr, s, l, _, large := slowly(t, cfg)
		s.put(message(1, large))
		transporttest.Eventually(t, "the answer is under way", func() bool { return owes(tr, s.number) })
		l.nc.(*net.TCPConn).SetLinger(0)
		l.nc.Close()
		get(t, s.overs, "the end of the poll")
		if got := get(t, s.closed, "Closed"); got != wire.CloseLost {
			t.Errorf("Closed: got %v, want %v", got, wire.CloseLost)
		}
		checkEmpty(t, tr)
	})
}

// What handlers in front of the transport said belongs to its answer, wherever that is written.
func TestAnswer_HasTheHeadersOfHandlersInFront(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		r := newRoom()
		cfg.Acceptor = r
		tr, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Access-Control-Allow-Origin", "https://app.example.com")
			w.Header().Add("Vary", "Origin")
			tr.ServeHTTP(w, r)
		}))
		back := NewListener(srv.Listener, ListenerConfig{})
		srv.Listener, srv.Config.ConnContext = back, back.ConnContext
		srv.Start()
		defer srv.Close()
		l := dial(t, back.Addr().String())
		check := func() {
			t.Helper()
			res, b := l.response()
			if h := res.Header; h.Get("Access-Control-Allow-Origin") != "https://app.example.com" || h.Get("Vary") != "Origin" {
				t.Errorf("headers: %v with %s", h, b)
			}
		}
		l.write(request("", "", "", "alice", ""))
		s := r.session(t)
		check()
		get(t, s.polls, "a poll")
		l.write(request("1", cursorAt(1, 0), "", "alice", ""))
		get(t, s.polls, "a poll")
		if tr.Engine() == engine.Epoll {
			transporttest.Eventually(t, "the poll is parked", func() bool { return tr.Waiting() == 1 })
		}
		s.put(message(1, `1`))
		check()
		s.conn.Cut(wire.CloseLost)
		if err := tr.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// The transport keeps no time: what a poll may wait, and how long a session lingers, is for the session to say.
func TestTransport_KeepsNoTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom()
		tr, err := New(Config{Acceptor: r, Engine: engine.Goroutine}) // an epoll waits for the real world
		if err != nil {
			t.Fatal(err)
		}
		inner := transporttest.NewPipes()
		back := NewListener(inner, ListenerConfig{})
		srv := &http.Server{Handler: tr, ConnContext: back.ConnContext}
		var serving sync.WaitGroup
		serving.Go(func() { srv.Serve(back) })
		nc := inner.Dial()
		l := &line{t: t, nc: nc}
		l.br = bufio.NewReader(nc)
		s, a := l.begin(r)
		time.Sleep(time.Hour) // between polls
		l.next(s, a)
		time.Sleep(time.Hour) // in one
		synctest.Wait()
		if len(s.overs) > 0 || len(s.closed) > 0 {
			t.Error("an hour is over, and something happened")
		}
		s.put(message(1, `1`))
		if b := l.answer(); len(b.Frames) != 1 {
			t.Errorf("got %d frames, want 1", len(b.Frames))
		}
		s.conn.Cut(wire.CloseLost)
		if err := tr.Close(t.Context()); err != nil {
			t.Error(err)
		}
		srv.Close()
		serving.Wait()
		nc.Close()
	})
}

func TestTransport_ClosedRefusesSessionsAndLetsThoseThatAreThereEnd(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		addr, r, tr := start(t, cfg)
		l := dial(t, addr)
		s, a := l.begin(r)
		done := make(chan error, 1)
		go func() { done <- tr.Close(context.Background()) }()
		transporttest.Eventually(t, "Close has begun", func() bool {
			c := &conn{}
			open := tr.live.Enter(c)
			if open {
				tr.live.Leave(c)
			}
			return !open
		})
		stranger := dial(t, addr)
		stranger.write(request("", "", "", "bob", ""))
		if res, code := stranger.refused(); res.StatusCode != 503 || code != "shutting_down" {
			t.Errorf("a new client: got %d %s, want 503 shutting_down", res.StatusCode, code)
		}
		l.next(s, a)
		s.waitTakes(t, 2)
		s.end(wire.CloseGoingAway, wire.Out{Frame: &wire.Goaway{Code: wire.CloseGoingAway}})
		if b := l.answer(); len(b.Frames) != 1 {
			t.Errorf("got %d frames, want the goodbye", len(b.Frames))
		}
		if err := get(t, done, "Close"); err != nil {
			t.Error(err)
		}
	})
}

func TestNew_RefusesWhatCannotWork(t *testing.T) {
	for _, cfg := range []Config{
		{},
		{Acceptor: newRoom(), Engine: "steam"},
		{Acceptor: newRoom(), Workers: -1},
	} {
		if tr, err := New(cfg); err == nil {
			t.Errorf("%+v: got no error", cfg)
			tr.Close(t.Context())
		}
	}
}

var _ transport.PollSession = (*session)(nil)

// A client that asks again, elsewhere, while its answer is under way has given that up. What was not persistent is lost with
// it; the cursor has not moved, so the session goes on.
func TestAnswer_ThatTheClientGaveUpIsOverBeforeTheNextPollBegins(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		tr, s, l, a, large := slowly(t, cfg)
		m := &push.Message{ID: 1, Body: []byte(large), Created: 1}
		s.put(wire.Out{Shared: wire.NewShared(m), Slot: push.NoSlot})
		transporttest.Eventually(t, "the answer is under way", func() bool { return owes(tr, s.number) })
		over := make(chan int, 1)
		s.mu.Lock()
		s.inPoll = func() { over <- len(s.overs) }
		s.mu.Unlock()
		again := dial(t, l.nc.RemoteAddr().String())
		again.next(s, a)
		if got := <-over; got != 1 {
			t.Errorf("%d polls were over when the next began, want 1", got)
		}
		s.put(message(1, `1`))
		if b := again.answer(); b.Session != a.Session || len(b.Frames) != 1 {
			t.Errorf("got %+v, want the message of the same session", b)
		}
		get(t, s.overs, "the end of the first")
		get(t, s.overs, "the end of the second")
		if res, err := http.ReadResponse(l.br, nil); err == nil { // in the one form it is cut, in the other it comes to its end
			io.Copy(io.Discard, res.Body)
		}
		l.nc.Close()
		if len(s.overs) > 0 || len(s.closed) > 0 {
			t.Error("the end of the answer that was given up was reported once more")
		}
	})
}
