package longpoll

import (
	"context"
	"sync"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/transport/engine"
	"carillon/server/transport/transporttest"
	"carillon/server/wire"
)

// room makes sessions that keep what they are told. The contract itself is transporttest's to check.
type room struct {
	refusal error
	silent  bool                                 // sessions say no welcome by themselves
	accept  func(transport.Conn, *session)       // called inside Accept; nil: nothing
	welcome func(n push.SessionEpoch) []wire.Out // what a session begins with; nil: a welcome

	began chan *session

	mu   sync.Mutex
	last push.SessionEpoch
}

func newRoom() *room { return &room{began: make(chan *session, 1<<14)} }

// Accept implements transport.Acceptor.
func (r *room) Accept(c transport.Conn, m transport.Meta) (transport.Session, error) {
	if r.refusal != nil {
		return nil, r.refusal
	}
	r.mu.Lock()
	r.last++
	s := &session{
		conn: c, meta: m, number: r.last,
		frames: make(chan wire.Frame, 1<<10), polls: make(chan polled, 1<<10), overs: make(chan struct{}, 1<<10),
		closed: make(chan wire.CloseCode, 2), // room for a second one, which there must not be
	}
	r.mu.Unlock()
	switch {
	case r.silent:
	case r.welcome != nil:
		s.queue = r.welcome(s.number)
	default:
		s.queue = []wire.Out{{Frame: welcomeOf(s.number)}}
	}
	if r.accept != nil {
		r.accept(c, s)
	}
	r.began <- s
	return s, nil
}

// session returns the next session.
func (r *room) session(t testing.TB) *session {
	t.Helper()
	return get(t, r.began, "a session")
}

// cursorAt is the cursor of a session with its own slot at pos.
func cursorAt(n push.SessionEpoch, pos push.Position) string {
	c := push.Cursor{{Epoch: 1, Lineage: 2, Pos: pos}, {Epoch: 3, Lineage: 4, Pos: 5}}
	return string(push.AppendCursor(nil, push.CursorOwner(n), c))
}

func welcomeOf(n push.SessionEpoch) *wire.Welcome {
	return &wire.Welcome{Version: wire.Version, Session: n, Cursor: cursorAt(n, 0)}
}

// message is a persistent one at a position of the own slot.
func message(pos push.Position, body string) wire.Out {
	m := &push.Message{ID: push.MsgID(pos), Body: []byte(body), Created: 1, Expires: 2, Persistent: true}
	return wire.Out{Shared: wire.NewShared(m), Slot: push.Own, Pos: pos}
}

type polled struct {
	cursor string
	wait   time.Duration
}

type session struct {
	conn   transport.Conn
	meta   transport.Meta
	number push.SessionEpoch

	frames chan wire.Frame
	polls  chan polled
	overs  chan struct{}
	closed chan wire.CloseCode

	mu     sync.Mutex
	queue  []wire.Out
	takes  int
	inPoll func()        // when set, called inside Poll
	gate   chan struct{} // when set, Take waits until it is closed
	taken  chan struct{} // when set, gets a value before Take waits
}

func (s *session) Receive(f wire.Frame) { s.frames <- f }

func (s *session) Poll(cursor string, wait time.Duration) {
	s.mu.Lock()
	f := s.inPoll
	s.mu.Unlock()
	if f != nil {
		f()
	}
	s.polls <- polled{cursor, wait}
}

func (s *session) PollOver()                  { s.overs <- struct{}{} }
func (s *session) Closed(code wire.CloseCode) { s.closed <- code }
func (s *session) Alive()                     { panic("a poll is no sign of life besides") }
func (s *session) Refuse(error)               { panic("polls carry no frames") }

func (s *session) Take(b *transport.Batch) bool {
	s.mu.Lock()
	gate, taken := s.gate, s.taken
	s.mu.Unlock()
	if gate != nil {
		taken <- struct{}{}
		<-gate
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takes++
	s.queue = transporttest.Fill(b, s.queue)
	return len(b.Outs) > 0
}

func (s *session) put(outs ...wire.Out) {
	s.mu.Lock()
	s.queue = append(s.queue, outs...)
	s.mu.Unlock()
	s.conn.Wake(transport.Direct)
}

// end says goodbye to a poll for which nothing was there when it came. The goodbye wakes nobody before Close does: as an answer
// of its own it would leave the end to the next poll.
func (s *session) end(code wire.CloseCode, outs ...wire.Out) {
	s.mu.Lock()
	s.queue = append(s.queue, outs...)
	s.mu.Unlock()
	s.conn.Close(code)
}

func (s *session) waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue)
}

// connect returns the session's first frame.
func (s *session) connect(t testing.TB) *wire.Connect {
	t.Helper()
	f := get(t, s.frames, "a connect")
	c, ok := f.(*wire.Connect)
	if !ok {
		t.Fatalf("first frame: got %T, want a connect", f)
	}
	return c
}

// start runs a transport for a test, with the room of its sessions.
func start(t testing.TB, cfg Config) (addr string, r *room, tr *Transport) {
	t.Helper()
	r = newRoom()
	if cfg.Acceptor == nil {
		cfg.Acceptor = r
	}
	addr, tr, _, stop := serve(t, cfg, nil)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Nanosecond)
		defer cancel()
		stop(ctx) // cuts who is left
	})
	return addr, r, tr
}

// engines runs f on both forms. What f starts with a Config, it starts with the one it is given, completed.
func engines(t *testing.T, f func(t *testing.T, cfg Config)) {
	t.Run("default", func(t *testing.T) { f(t, Config{}) }) // epoll where there is one
	t.Run("goroutine", func(t *testing.T) { f(t, Config{Engine: engine.Goroutine}) })
}
