package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/push"
	"carillon/server/wire"
)

const owner = push.CursorOwner(0xabc)

// cursorAt is a cursor of alice's phone.
func cursorAt(lineage push.Lineage, own, common push.Position) string {
	return string(push.AppendCursor(nil, owner, push.Cursor{
		push.Own:    {Epoch: 7, Lineage: lineage, Pos: own},
		push.Common: {Epoch: 8, Lineage: lineage, Pos: common},
	}))
}

func ownMessage(id push.MsgID, pos push.Position) *wire.Message {
	return &wire.Message{Slot: push.Own, Pos: pos, Message: push.Message{ID: id, Body: []byte("1"), Persistent: true}}
}

// pipe is both ends of an in-memory connection.
type pipe struct {
	url      string
	toClient chan wire.Frame
	toServer chan wire.Frame
	gone     chan struct{} // closed at the end
	shut     atomic.Bool   // the client's writes fail, and what was sent to it is still to be read
	once     sync.Once
	err      error // why, for the client
}

func (p *pipe) end(err error) {
	p.once.Do(func() {
		p.err = err
		close(p.gone)
	})
}

// The client's end.

func (p *pipe) Read() (wire.Frame, error) {
	select {
	case f := <-p.toClient:
		return f, nil
	default:
	}
	select {
	case f := <-p.toClient:
		return f, nil
	case <-p.gone:
		return nil, p.err
	}
}

func (p *pipe) Write(ctx context.Context, f wire.Frame) error {
	if p.shut.Load() {
		return errors.New("the server closed the connection")
	}
	select {
	case p.toServer <- f:
		return nil
	case <-p.gone:
		return errors.New("the connection is gone")
	case <-ctx.Done():
		p.end(ctx.Err())
		return ctx.Err()
	}
}

func (p *pipe) Close() { p.end(errors.New("closed by the client")) }
func (p *pipe) Cut()   { p.end(errors.New("cut by the client")) }

// The server's end.

func (p *pipe) send(fs ...wire.Frame) {
	for _, f := range fs {
		p.toClient <- f
	}
}

// recv returns the client's next frame that is not a heartbeat.
func (p *pipe) recv(t *testing.T) wire.Frame {
	t.Helper()
	for {
		select {
		case f := <-p.toServer:
			if f.Type() != wire.TypePing && f.Type() != wire.TypePong {
				return f
			}
		case <-p.gone:
			t.Fatalf("the connection ended (%v), want a frame", p.err)
		case <-time.After(time.Hour):
			t.Fatal("no frame within an hour")
		}
	}
}

func (p *pipe) recvAck(t *testing.T) string {
	t.Helper()
	f, ok := p.recv(t).(*wire.Ack)
	if !ok {
		t.Fatalf("got a %T, want an acknowledgement", f)
	}
	return f.Cursor
}

// noAck fails if the client acknowledges within the time.
func (p *pipe) noAck(t *testing.T, d time.Duration) {
	t.Helper()
	end := time.After(d)
	for {
		select {
		case f := <-p.toServer:
			if a, ok := f.(*wire.Ack); ok {
				t.Fatalf("got acknowledgement %q, want none", a.Cursor)
			}
		case <-end:
			return
		}
	}
}

// world is a client, its application and its network, inside a synctest bubble.
type world struct {
	t      *testing.T
	cfg    Config
	client *Client
	dials  chan *pipe
	cancel context.CancelFunc
	result chan error

	// Guarded by mu.
	mu      sync.Mutex
	refuse  error    // what the next dials answer
	log     []string // what happened, in order
	handled []push.MsgID
	renewed []bool
	states  []Status
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, dials: make(chan *pipe, 1)}
	w.cfg = Config{
		URLs: []string{"ws://one/connect"},
		Tokens: func(_ context.Context, renew bool) (string, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.renewed = append(w.renewed, renew)
			return fmt.Sprintf("token-%d", len(w.renewed)), nil
		},
		Storage: &Memory{},
		Dialer:  w,
		Random:  func() float64 { return 0.5 },
		Callbacks: Callbacks{
			Message: func(_ context.Context, m *wire.Message) error {
				w.note("handle %d", m.ID)
				w.mu.Lock()
				defer w.mu.Unlock()
				w.handled = append(w.handled, m.ID)
				return nil
			},
			Recall: func(_ context.Context, r *wire.Recall) error { w.note("recall %d", r.ID); return nil },
			Gap:    func(_ context.Context, g *wire.Gap) { w.note("gap %d-%d %s", g.From, g.To, g.Reason) },
			Kick:   func(k *wire.Kick) { w.note("kick %d", k.Code) },
			Repeat: func(m *wire.Message) { w.note("repeat %d", m.ID) },
			Acked:  func(string) { w.note("acked") },
			Status: func(s Status) {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.states = append(w.states, s)
			},
		},
	}
	return w
}

func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, fmt.Sprintf(format, args...))
}

func (w *world) events() []string {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.log)
}

func (w *world) ids() []push.MsgID {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.handled)
}

// lastDelay returns how long the client said it waits before its next attempt.
func (w *world) lastDelay() time.Duration {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range slices.Backward(w.states) {
		if s.Phase == Waiting {
			return s.Delay
		}
	}
	return -1
}

// Dial implements Dialer.
func (w *world) Dial(ctx context.Context, url string) (Conn, error) {
	w.mu.Lock()
	refuse := w.refuse
	w.mu.Unlock()
	if refuse != nil {
		return nil, refuse
	}
	p := &pipe{
		url: url, toClient: make(chan wire.Frame, 4000), toServer: make(chan wire.Frame, 100), gone: make(chan struct{}),
	}
	select {
	case w.dials <- p:
		return p, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// start runs the client.
func (w *world) start() {
	w.t.Helper()
	c, err := New(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.client, w.result = c, make(chan error, 1)
	ctx, cancel := context.WithCancel(w.t.Context())
	w.cancel = cancel
	go func() { w.result <- c.Run(ctx) }()
}

// stop ends the client and returns what Run returned.
func (w *world) stop() error {
	w.cancel()
	return <-w.result
}

// accept waits for a connection and returns it with its connect frame.
func (w *world) accept() (*pipe, *wire.Connect) {
	w.t.Helper()
	select {
	case p := <-w.dials:
		f, ok := p.recv(w.t).(*wire.Connect)
		if !ok {
			w.t.Fatalf("the first frame is a %T", f)
		}
		return p, f
	case err := <-w.result:
		w.t.Fatalf("Run returned %v, want a connection", err)
	case <-time.After(time.Hour):
		w.t.Fatal("no connection within an hour")
	}
	return nil, nil
}

// welcomed accepts a connection and welcomes it at the cursor.
func (w *world) welcomed(cursor string) (*pipe, *wire.Connect) {
	w.t.Helper()
	p, c := w.accept()
	p.send(welcomeAt(cursor))
	return p, c
}

func welcomeAt(cursor string) *wire.Welcome {
	return &wire.Welcome{Version: 1, Session: 1, Cursor: cursor, HeartbeatMillis: 30000, GraceMillis: 10000}
}

func equal[T comparable](t *testing.T, what string, got, want []T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}
