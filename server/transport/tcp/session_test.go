package tcp

import (
	"context"
	"net"
	"sync"
	"testing"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/transport/engine"
	"carillon/server/transport/poller"
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
		conn: c, meta: m, frames: make(chan wire.Frame, 1<<12), refusals: make(chan string, 16),
		closed: make(chan wire.CloseCode, 2), // room for a second one, which there must not be
	}
	r.began <- s
	return s, nil
}

type session struct {
	conn transport.Conn
	meta transport.Meta

	frames   chan wire.Frame
	refusals chan string // codes
	closed   chan wire.CloseCode

	mu    sync.Mutex
	queue []wire.Out
}

func (s *session) Receive(f wire.Frame)       { s.frames <- f }
func (*session) Alive()                       {}
func (s *session) Closed(code wire.CloseCode) { s.closed <- code }

// Refuse answers as the room does.
func (s *session) Refuse(err error) {
	code := err.(*push.Error).Code
	s.refusals <- code
	s.put(wire.Out{Frame: &wire.Error{Code: code}})
	if code != wire.CodeUnknown {
		s.conn.Close(wire.CloseProtocol)
	}
}

func (s *session) Take(b *transport.Batch) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = transporttest.Fill(b, s.queue)
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

// forms returns the engines that this system has.
func forms() []engine.Form {
	if poller.Supported {
		return []engine.Form{engine.Epoll, engine.Goroutine}
	}
	return []engine.Form{engine.Goroutine}
}

// serve runs a transport on a listener, which wrap may put something around.
func serve(t testing.TB, cfg Config, wrap func(net.Listener) net.Listener) (addr string, tr *Transport, stop func(context.Context) error) {
	t.Helper()
	tr, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = l.Addr().String()
	if wrap != nil {
		l = wrap(l)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := tr.Serve(l); err != ErrClosed {
			t.Errorf("Serve: got %v, want ErrClosed", err)
		}
	})
	return addr, tr, func(ctx context.Context) error {
		err := tr.Close(ctx)
		serving.Wait()
		return err
	}
}

// start runs a transport for a test, with the room of its sessions.
func start(t testing.TB, cfg Config) (addr string, r *room) {
	t.Helper()
	r = newRoom()
	cfg.Acceptor = r
	addr, _, stop := serve(t, cfg, nil)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = stop(ctx) // cuts who is left
	})
	return addr, r
}

// connect dials and returns both ends.
func connect(t testing.TB, addr string, r *room) (*client, *session) {
	t.Helper()
	c := dial(t, addr, nil)
	return c, get(t, r.began, "a session")
}

func message(n int, body string) wire.Out {
	m := &push.Message{ID: push.MsgID(n + 1), Body: []byte(`"` + body + `"`), Created: 1}
	return wire.Out{Shared: wire.NewShared(m), Slot: push.NoSlot}
}
