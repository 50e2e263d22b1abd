package engine

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/wire"
)

func TestConn_EarlyBytesComeFirst(t *testing.T) {
	inForms(t, func(t *testing.T, e *Engine, r *room) {
		p, _, far := connect(t, e, r, "early ")
		if _, err := far.Write([]byte("and late")); err != nil {
			t.Fatal(err)
		}
		if got, want := p.next(t, 14), "early and late"; got != want {
			t.Errorf("fed: got %q, want %q", got, want)
		}
	})
}

// What is larger than a read comes in several, none of it lost.
func TestConn_FeedsWhateverComes(t *testing.T) {
	inForms(t, func(t *testing.T, e *Engine, r *room) {
		p, _, far := connect(t, e, r, "")
		want := strings.Repeat("0123456789", 20_000)
		go func() {
			far.Write([]byte(want))
			far.CloseWrite()
		}()
		if got := p.next(t, len(want)); got != want {
			t.Errorf("fed: got %d other bytes", len(got))
		}
		if err := get(t, p.ended, "the end"); err != nil {
			t.Errorf("the end of the stream: got %v, want nil", err)
		}
	})
}

func TestConn_DeafOneIsFedNothing(t *testing.T) {
	inForms(t, func(t *testing.T, e *Engine, r *room) {
		p := &plain{fed: make(chan string, 10), ended: make(chan error, 2)}
		p.Deafen()
		if err := e.Accept(p, transport.Meta{}, true); err != nil {
			t.Fatal(err)
		}
		near, far := pair(t)
		if err := e.Adopt(p, near, nil); err != nil {
			t.Fatal(err)
		}
		far.Write([]byte("nobody hears"))
		far.CloseWrite()
		get(t, p.ended, "the end")
		if len(p.fed) > 0 {
			t.Errorf("fed: %q", <-p.fed)
		}
		get(t, get(t, r.began, "a session").closed, "Closed")
	})
}

// A goodbye without bytes is told to the dialect behind everything that was queued.
func TestConn_EmptyGoodbyeFollowsTheQueue(t *testing.T) {
	inForms(t, func(t *testing.T, e *Engine, r *room) {
		_, s, far := connect(t, e, r, "")
		want := ""
		var outs []wire.Out
		for i := range 500 {
			outs = append(outs, text(i))
			want += string(appendLine(nil, &outs[i]))
		}
		s.put(outs...)
		s.conn.Close(wire.CloseGoingAway)
		reads(t, far, want)
		if n, err := far.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("behind the queue: got %d bytes, %v, want the end", n, err)
		}
		if len(s.closed) > 0 {
			t.Error("the end does not wait for the peer")
		}
		far.Close()
		if got := get(t, s.closed, "Closed"); got != wire.CloseGoingAway {
			t.Errorf("Closed: got %v, want %v", got, wire.CloseGoingAway)
		}
	})
}

// What the kernel did not take stays in order, however often a write stalls.
func TestConn_StalledWriteGoesOn(t *testing.T) {
	inForms(t, func(t *testing.T, e *Engine, r *room) {
		_, s, far := connect(t, e, r, "")
		far.SetReadBuffer(16 << 10)
		body := `"` + strings.Repeat("x", 60<<10) + `"`
		var want []byte // grown in place: 12 MB, and the connection's patience has begun
		for i := range 200 {
			o := wire.Out{Shared: wire.NewShared(&push.Message{ID: push.MsgID(i + 1), Body: []byte(body), Created: 1}), Slot: push.NoSlot}
			s.put(o)
			want = appendLine(want, &o)
		}
		reads(t, far, string(want))
	})
}

func TestAccept_AfterCloseRefuses(t *testing.T) {
	e, r := newEngine(t, Config{Form: forms()[0]})
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := e.Accept(&plain{}, transport.Meta{}, true); push.KindOf(err) != push.KindUnavailable {
		t.Errorf("got %v, want a refusal", err)
	}
	if len(r.began) > 0 {
		t.Error("a refused connection got a session")
	}
	if e.poller.Made() {
		t.Error("a poller was made after Close")
	}
}

// brokenRoom is an Acceptor with a broken invariant.
type brokenRoom struct{}

func (brokenRoom) Accept(transport.Conn, transport.Meta) (transport.Session, error) {
	panic("an invariant is broken")
}

// net/http goes on after a panic of a handler, so the connection has to be given up.
func TestAccept_PanicOfTheAcceptorLeavesNothing(t *testing.T) {
	for _, form := range forms() {
		e, err := New(Config{Kind: "plain", Acceptor: brokenRoom{}, Form: form})
		if err != nil {
			t.Fatal(err)
		}
		p := &plain{}
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			_ = e.Accept(p, transport.Meta{}, true)
		}()
		if _, err := p.sock.Write(nil); err == nil {
			t.Error("the reserved descriptor is still open")
		}
		if n := e.live.Len(); n != 0 {
			t.Errorf("%d connections are counted, want 0: Close would wait for them", n)
		}
		if err := e.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// A server whose connections cannot be taken over is found out after the session was made, which must hear of its end.
func TestHijack_FailureEndsTheSession(t *testing.T) {
	inForms(t, func(t *testing.T, e *Engine, r *room) {
		p := &plain{}
		if err := e.Accept(p, transport.Meta{}, true); err != nil {
			t.Fatal(err)
		}
		if err := e.Hijack(p, httptest.NewRecorder(), nil); err == nil { // no http.Hijacker
			t.Error("got no error")
		}
		if got := get(t, get(t, r.began, "a session").closed, "Closed"); got != wire.CloseLost {
			t.Errorf("Closed: got %v, want %v", got, wire.CloseLost)
		}
	})
}

// What a client sends behind its request is in net/http's buffer by the time the connection is taken over.
func TestHijack_KeepsWhatCameBehindTheRequest(t *testing.T) {
	inForms(t, func(t *testing.T, e *Engine, r *room) {
		p := &plain{fed: make(chan string, 1<<10)}
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if err := e.Accept(p, transport.Meta{}, true); err != nil {
				t.Error(err)
				return
			}
			if err := e.Hijack(p, w, []byte("HTTP/1.1 200 OK\r\n\r\n")); err != nil {
				t.Error(err)
			}
		}))
		defer srv.Close()
		nc := dial(t, srv.Listener.Addr().String())
		if _, err := nc.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\nbehind it")); err != nil {
			t.Fatal(err)
		}
		if got, want := p.next(t, 9), "behind it"; got != want {
			t.Errorf("fed: got %q, want %q", got, want)
		}
		line, err := bufio.NewReader(nc).ReadString('\n')
		if err != nil || !strings.HasPrefix(line, "HTTP/1.1 200") {
			t.Errorf("the answer begins with %q, %v", line, err)
		}
		get(t, r.began, "a session").conn.Cut(wire.CloseInternal)
	})
}

func TestClose_CutsWhoIsLeftAndSaysSo(t *testing.T) {
	inForms(t, func(t *testing.T, e *Engine, r *room) {
		_, s, _ := connect(t, e, r, "")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := e.Close(ctx); !errors.Is(err, context.Canceled) || !strings.HasPrefix(err.Error(), "plain: ") {
			t.Errorf("Close: got %v, want an error that names the transport", err)
		}
		if got := get(t, s.closed, "Closed"); got != wire.CloseGoingAway {
			t.Errorf("Closed: got %v, want %v", got, wire.CloseGoingAway)
		}
	})
}

func TestNew_RejectsWhatCannotWork(t *testing.T) {
	good := Config{Kind: "plain", Acceptor: newRoom()}
	for name, spoil := range map[string]func(*Config){
		"no kind":             func(c *Config) { c.Kind = "" },
		"no acceptor":         func(c *Config) { c.Acceptor = nil },
		"an unknown form":     func(c *Config) { c.Form = "steam" },
		"a negative frame":    func(c *Config) { c.FrameBytes = -1 },
		"a negative first":    func(c *Config) { c.FirstFrameBytes = -1 },
		"negative workers":    func(c *Config) { c.Workers = -1 },
		"a negative deadline": func(c *Config) { c.UserTimeout = -1 },
	} {
		cfg := good
		spoil(&cfg)
		if e, err := New(cfg); err == nil {
			e.Close(t.Context())
			t.Errorf("%s: got no error", name)
		}
	}
}

// What each of a million connections holds. A dialect may add 24 bytes before it falls into the next class of sizes.
func TestConn_IsSmall(t *testing.T) {
	if got, most := unsafe.Sizeof(Conn{}), uintptr(152); got > most {
		t.Errorf("size: got %d bytes, want at most %d", got, most)
	}
}

// Whoever flushes has written when Flush returns; a connection that somebody else is at is left to him.
func TestFlush_WritesHere(t *testing.T) {
	inForms(t, func(t *testing.T, e *Engine, r *room) {
		p, s, far := connect(t, e, r, "")
		s.queue = append(s.queue, wire.Out{Frame: &wire.Ping{}})
		p.Flush()
		if got := e.Writes(); got != 1 {
			t.Errorf("writes when Flush returned: got %d, want 1", got)
		}
		readLine(t, far)

		p.mu.Lock()
		p.drain = draining // somebody is
		p.mu.Unlock()
		s.mu.Lock()
		s.queue = append(s.queue, wire.Out{Frame: &wire.Pong{}})
		s.mu.Unlock()
		p.Flush()
		if got := e.Writes(); got != 1 {
			t.Errorf("writes beside another's: got %d, want none", got-1)
		}
		p.release(false) // who was at it leaves, and a worker takes over
		readLine(t, far)
	})
}

// Flushes, wakes and the end meet in any order, and every frame leaves once.
func TestFlush_BesideWakesAndTheEnd(t *testing.T) {
	inForms(t, func(t *testing.T, e *Engine, r *room) {
		const each = 200
		p, s, far := connect(t, e, r, "")
		var running sync.WaitGroup
		for _, wake := range []func(){p.Flush, func() { p.Wake(transport.Direct) }, func() { p.Wake(transport.Bulk) }} {
			running.Go(func() {
				for range each {
					s.mu.Lock()
					s.queue = append(s.queue, wire.Out{Frame: &wire.Ping{}})
					s.mu.Unlock()
					wake()
				}
			})
		}
		br := bufio.NewReader(far)
		for range 3 * each {
			if _, err := br.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		running.Wait()
		running.Go(p.Flush)
		running.Go(func() { p.Cut(wire.CloseInternal) })
		running.Wait()
		if got := get(t, s.closed, "Closed"); got != wire.CloseInternal {
			t.Errorf("Closed: got %v, want %v", got, wire.CloseInternal)
		}
		if rest := br.Buffered(); rest != 0 {
			t.Errorf("%d bytes came twice", rest)
		}
	})
}

func readLine(t *testing.T, far net.Conn) {
	t.Helper()
	if _, err := bufio.NewReader(far).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
}
