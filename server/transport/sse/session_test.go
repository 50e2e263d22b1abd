package sse

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"carillon/server/transport"
	"carillon/server/transport/transporttest"
	"carillon/server/wire"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	workers = 2
	// patience is how long a test waits for what must happen. Nothing waits for it to pass.
	patience = transporttest.Patience
)

// room makes sessions that keep what they are told. The contract itself is transporttest's to check.
type room struct {
	refusal error
	inside  func(*session) // called inside Accept; nil: nothing
	began   chan *session
}

func newRoom() *room { return &room{began: make(chan *session, 1<<14)} }

// Accept implements transport.Acceptor.
func (r *room) Accept(c transport.Conn, m transport.Meta) (transport.Session, error) {
	if r.refusal != nil {
		return nil, r.refusal
	}
	s := &session{
		conn: c, meta: m, frames: make(chan wire.Frame, 16), refusals: make(chan error, 16),
		closed: make(chan wire.CloseCode, 2), // room for a second one, which there must not be
	}
	if r.inside != nil {
		r.inside(s)
	}
	r.began <- s
	return s, nil
}

// session returns the next session.
func (r *room) session(t testing.TB) *session {
	t.Helper()
	return get(t, r.began, "a session")
}

type session struct {
	conn transport.Conn
	meta transport.Meta

	frames   chan wire.Frame
	refusals chan error
	closed   chan wire.CloseCode

	mu    sync.Mutex
	queue []wire.Out
}

func (s *session) Receive(f wire.Frame)       { s.frames <- f }
func (s *session) Alive()                     {}
func (s *session) Closed(code wire.CloseCode) { s.closed <- code }

// Refuse does what a room does.
func (s *session) Refuse(err error) {
	s.refusals <- err
	s.mu.Lock()
	s.queue = append(s.queue, wire.Out{Frame: &wire.Kick{Code: wire.CloseProtocol, Reason: "protocol"}})
	s.mu.Unlock()
	s.conn.Close(wire.CloseProtocol)
}

func (s *session) Take(b *transport.Batch) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = transporttest.Fill(b, s.queue)
	return len(b.Outs) > 0
}

func (s *session) put(frames ...wire.Frame) {
	s.mu.Lock()
	for _, f := range frames {
		s.queue = append(s.queue, wire.Out{Frame: f})
	}
	s.mu.Unlock()
	s.conn.Wake(transport.Direct)
}

// get returns the channel's next value, or fails the test when none comes.
func get[T any](t testing.TB, ch <-chan T, what string) T {
	t.Helper()
	return transporttest.Get(t, ch, what)
}

// serve runs a transport behind net/http. wrap and before may be nil.
func serve(
	t testing.TB, cfg Config, wrap func(net.Listener) net.Listener, config *tls.Config, before func(http.Handler) http.Handler,
) (addr string, tr *Transport, stop func(context.Context) error) {
	t.Helper()
	tr, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var h http.Handler = tr
	if before != nil {
		h = before(h)
	}
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // of TLS handshakes that a test gives up
	if wrap != nil {
		srv.Listener = wrap(srv.Listener)
	}
	if config != nil {
		srv.TLS = config
		srv.StartTLS()
	} else {
		srv.Start()
	}
	return srv.Listener.Addr().String(), tr, func(ctx context.Context) error {
		err := tr.Close(ctx)
		srv.Close()
		return err
	}
}

// start runs a transport for a test, with the room of its sessions.
func start(t testing.TB, cfg Config) (addr string, r *room) {
	t.Helper()
	r = newRoom()
	cfg.Acceptor = r
	addr, _, stop := serve(t, cfg, nil, nil, nil)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		stop(ctx) // cuts who is left
	})
	return addr, r
}

// welcome begins a stream.
var welcome = &wire.Welcome{Version: 1, Session: 5, Cursor: begin, HeartbeatMillis: 30000, Time: 3}
