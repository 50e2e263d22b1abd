package engine

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/transport/poller"
	"carillon/server/transport/transporttest"
	"carillon/server/wire"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen before it fails.
const patience = transporttest.Patience

// plain is the plainest dialect: messages are JSON lines, the client's bytes are shown to the test, and a goodbye is the end of
// the stream.
type plain struct {
	Conn
	fed   chan string // what came; nil: nobody looks
	ended chan error  // what ReadEnded said
}

// Feed implements Dialect.
func (p *plain) Feed(b []byte) {
	if p.fed != nil {
		p.fed <- string(b)
	}
}

// ReadEnded implements Dialect.
func (p *plain) ReadEnded(err error) {
	if p.ended != nil {
		p.ended <- err
	}
	p.Drop(wire.CloseLost)
}

// Collect implements Dialect.
func (p *plain) Collect(t *Turn) {
	outs := t.Take()
	for i := range outs {
		t.Buf = appendLine(t.Buf, &outs[i])
	}
	if outs == nil && t.Closing != 0 {
		t.Mark = Goodbye
	}
}

func appendLine(dst []byte, o *wire.Out) []byte {
	return append(wire.AppendOut(dst, wire.JSON, o), '\n')
}

// Wrote implements Dialect.
func (p *plain) Wrote(Mark) { p.CloseWrite() }

// Release implements Dialect.
func (p *plain) Release() {}

// session keeps what it is told.
type session struct {
	conn   transport.Conn
	closed chan wire.CloseCode

	mu    sync.Mutex
	queue []wire.Out
}

func (*session) Receive(wire.Frame)           {}
func (*session) Refuse(error)                 {}
func (*session) Alive()                       {}
func (s *session) Closed(code wire.CloseCode) { s.closed <- code }

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

// room makes sessions.
type room struct{ began chan *session }

func newRoom() *room { return &room{began: make(chan *session, 1<<10)} }

// Accept implements transport.Acceptor.
func (r *room) Accept(c transport.Conn, _ transport.Meta) (transport.Session, error) {
	s := &session{conn: c, closed: make(chan wire.CloseCode, 2)}
	r.began <- s
	return s, nil
}

func newEngine(t testing.TB, cfg Config) (*Engine, *room) {
	t.Helper()
	r := newRoom()
	cfg.Kind, cfg.Acceptor = "plain", r
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = e.Close(ctx) // cuts who is left
	})
	return e, r
}

// forms returns the forms that this system has.
func forms() []Form {
	if poller.Supported {
		return []Form{Epoll, Goroutine}
	}
	return []Form{Goroutine}
}

// inForms runs f on an engine of each form.
func inForms(t *testing.T, f func(t *testing.T, e *Engine, r *room)) {
	for _, form := range forms() {
		t.Run(string(form), func(t *testing.T) {
			e, r := newEngine(t, Config{Form: form})
			f(t, e, r)
		})
	}
}

// pair returns both ends of a TCP connection.
func pair(t testing.TB) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { c.Close(); s.Close() })
	return s.(*net.TCPConn), c.(*net.TCPConn)
}

func dial(t testing.TB, addr string) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	nc.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { nc.Close() })
	return nc
}

// connect has a connection stand and returns it with its session and its far end.
func connect(t testing.TB, e *Engine, r *room, early string) (*plain, *session, *net.TCPConn) {
	t.Helper()
	p := &plain{fed: make(chan string, 1<<10), ended: make(chan error, 2)}
	if err := e.Accept(p, transport.Meta{}, true); err != nil {
		t.Fatal(err)
	}
	near, far := pair(t)
	if err := e.Adopt(p, near, []byte(early)); err != nil {
		t.Fatal(err)
	}
	return p, get(t, r.began, "a session"), far
}

// get returns the channel's next value, or fails the test when none comes.
func get[T any](t testing.TB, ch <-chan T, what string) T {
	t.Helper()
	return transporttest.Get(t, ch, what)
}

// next returns the next n bytes that were fed.
func (p *plain) next(t *testing.T, n int) string {
	t.Helper()
	s := ""
	for len(s) < n {
		s += get(t, p.fed, "bytes of the client")
	}
	return s
}

func text(n int) wire.Out {
	m := &push.Message{ID: push.MsgID(n + 1), Body: []byte(`{"text":"tea is ready"}`), Created: 1}
	return wire.Out{Shared: wire.NewShared(m), Slot: push.NoSlot}
}

// reads fails unless exactly want comes next from the far end.
func reads(t *testing.T, far io.Reader, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if n, err := io.ReadFull(far, b); err != nil || string(b) != want {
		t.Fatalf("the client read %q, %v, want %q", b[:n], err, want)
	}
}
