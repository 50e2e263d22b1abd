package ws

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/transport/transporttest"
	"carillon/server/wire"
)

// room makes sessions that keep what they are told. The contract itself is transporttest's to check.
type room struct {
	refusal error
	began   chan *session
}

func newRoom() *room { return &room{began: make(chan *session, 1<<14)} }

// Accept implements transport.Acceptor.
func (r *room) Accept(c transport.Conn, m transport.Meta) (transport.Session, error) {
	if r.refusal != nil {
		return nil, r.refusal
	}
	s := &session{
		conn: c, meta: m,
		frames: make(chan wire.Frame, 1<<10), refusals: make(chan error, 16), alives: make(chan struct{}, 1<<14),
		closed: make(chan wire.CloseCode, 2), // room for a second one, which there must not be
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
	alives   chan struct{}
	alive    atomic.Int64 // calls of Alive, also those for which alives had no room
	closed   chan wire.CloseCode

	mu    sync.Mutex
	queue []wire.Out
	gate  chan struct{} // when set, Take waits until it is closed
	takes chan struct{} // when set, gets a value before Take waits
	taken func()        // when set, is called by a Take that finds something
}

func (s *session) Receive(f wire.Frame)       { s.frames <- f }
func (s *session) Closed(code wire.CloseCode) { s.closed <- code }

func (s *session) Alive() {
	s.alive.Add(1)
	select {
	case s.alives <- struct{}{}:
	default:
	}
}

func (s *session) Refuse(err error) {
	s.refusals <- err
	if err.(*push.Error).Code != wire.CodeUnknown {
		s.conn.Close(wire.CloseProtocol)
	}
}

func (s *session) Take(b *transport.Batch) bool {
	s.mu.Lock()
	gate, takes := s.gate, s.takes
	s.mu.Unlock()
	if gate != nil {
		takes <- struct{}{}
		<-gate
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = transporttest.Fill(b, s.queue)
	if len(b.Outs) > 0 && s.taken != nil {
		s.taken()
	}
	return len(b.Outs) > 0
}

func (s *session) put(outs ...wire.Out) {
	s.mu.Lock()
	s.queue = append(s.queue, outs...)
	s.mu.Unlock()
	s.conn.Wake(transport.Direct)
}

// get returns the channel's next value, or fails the test when none comes.
func get[T any](t testing.TB, ch <-chan T, what string) T {
	t.Helper()
	return transporttest.Get(t, ch, what)
}

// start runs a transport for a test, with the room of its sessions.
func start(t testing.TB, cfg Config) (addr string, r *room) {
	t.Helper()
	r = newRoom()
	cfg.Acceptor = r
	addr, _, stop := serve(t, cfg, nil, nil)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Nanosecond)
		defer cancel()
		stop(ctx) // cuts who is left
	})
	return addr, r
}

// lean makes sessions that weigh nothing, for measurements.
type lean struct{ began chan struct{} }

func (l lean) Accept(transport.Conn, transport.Meta) (transport.Session, error) {
	l.began <- struct{}{}
	return leanSession{}, nil
}

type leanSession struct{}

func (leanSession) Receive(wire.Frame)         {}
func (leanSession) Refuse(error)               {}
func (leanSession) Alive()                     {}
func (leanSession) Take(*transport.Batch) bool { return false }
func (leanSession) Closed(wire.CloseCode)      {}

func text(n int) wire.Out {
	m := &push.Message{ID: push.MsgID(n + 1), Body: []byte(`{"text":"tea is ready"}`), Created: 1}
	return wire.Out{Shared: wire.NewShared(m), Slot: push.NoSlot}
}
