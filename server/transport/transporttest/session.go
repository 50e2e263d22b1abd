package transporttest

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/wire"
)

// acceptor makes sessions and gives them to the scene.
type acceptor struct {
	t        testing.TB
	sessions chan *Session
	begin    func(s *Session) // called inside Accept; nil: nothing

	mu sync.Mutex
	// Guarded by mu.
	all     []*Session
	numbers push.SessionEpoch // how many were given
}

// Accept implements transport.Acceptor.
func (a *acceptor) Accept(c transport.Conn, m transport.Meta) (transport.Session, error) {
	s := newSession(a.t, c, m)
	if m.Capabilities.Polls {
		s.queue = append(s.queue, wire.Out{Frame: s.welcome(a.number())})
	}
	if a.begin != nil {
		a.begin(s)
	}
	a.mu.Lock()
	a.all = append(a.all, s)
	a.mu.Unlock()
	a.sessions <- s
	return s, nil
}

// number returns the number of the next session.
func (a *acceptor) number() push.SessionEpoch {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.numbers++
	return a.numbers
}

// check holds every session to its last promise once the transport is gone.
func (a *acceptor) check(t *testing.T) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, s := range a.all {
		s.mu.Lock()
		if got := len(s.closed); got != 1 {
			t.Errorf("session %d of %d: Closed was called %d times, want once", i, len(a.all), got)
		}
		s.mu.Unlock()
	}
}

// Session plays the room's part. It checks at every call what the contract says about calls, answers a refusal as a room
// does, and keeps what it was told.
type Session struct {
	// Static after construction.
	t    testing.TB
	conn transport.Conn
	meta transport.Meta

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each change
	// Guarded by mu.
	queue    []wire.Out
	received []wire.Frame
	refused  []error
	alive    int
	takes    int // calls of Take
	biggest  int // most outs that one Take returned
	closed   []wire.CloseCode
	taking   bool
	calling  bool     // Receive, Refuse or Alive runs
	polls    int      // calls of Poll
	polling  bool     // a poll waits
	pollCall bool     // Poll or PollOver runs
	acks     []string // cursors of polls
	inTake   func()   // called in Take, without mu; nil: nothing
}

func newSession(t testing.TB, c transport.Conn, m transport.Meta) *Session {
	return &Session{t: t, conn: c, meta: m, changed: make(chan struct{})}
}

// welcome returns what a session of polls begins with: a poll that follows has to name it, and the cursor behind the answer
// before.
func (s *Session) welcome(n push.SessionEpoch) *wire.Welcome {
	cursor := push.Cursor{{Epoch: 1, Lineage: 1}, {Epoch: 1, Lineage: 1}}
	return &wire.Welcome{Version: wire.Version, Session: n, Cursor: string(push.AppendCursor(nil, push.CursorOwner(n), cursor))}
}

// Poll implements transport.PollSession.
func (s *Session) Poll(cursor string, wait time.Duration) {
	s.enterPolls("Poll")
	s.mu.Lock()
	s.polls++
	s.polling = true
	s.acks = append(s.acks, cursor)
	if wait < 0 {
		s.t.Errorf("Poll: a wait of %v", wait)
	}
	s.mu.Unlock()
	s.leavePolls()
}

// PollOver implements transport.PollSession.
func (s *Session) PollOver() {
	s.enterPolls("PollOver")
	s.mu.Lock()
	if !s.polling {
		s.t.Error("PollOver, and no poll waits")
	}
	if s.taking {
		s.t.Error("PollOver during Take")
	}
	s.polling = false
	s.mu.Unlock()
	s.leavePolls()
}

// enterPolls checks that polls and their ends are reported one at a time, where there are polls, and none after Closed.
func (s *Session) enterPolls(call string) {
	s.mu.Lock()
	switch {
	case !s.meta.Capabilities.Polls:
		s.t.Errorf("%s of a transport that does not poll", call)
	case s.pollCall:
		s.t.Errorf("%s beside another call of its kind", call)
	case len(s.closed) > 0:
		s.t.Errorf("%s after Closed", call)
	}
	s.pollCall = true
	s.mu.Unlock()
	runtime.Gosched()
}

func (s *Session) leavePolls() {
	s.mu.Lock()
	s.pollCall = false
	s.noteLocked()
	s.mu.Unlock()
}

// Receive implements transport.Session.
func (s *Session) Receive(f wire.Frame) {
	s.enter("Receive")
	defer s.leave()
	s.mu.Lock()
	s.received = append(s.received, f)
	s.mu.Unlock()
}

// Refuse implements transport.Session.
func (s *Session) Refuse(err error) {
	s.enter("Refuse")
	defer s.leave()
	e, ok := errors.AsType[*push.Error](err)
	if !ok || e.Code == "" {
		s.t.Errorf("Refuse: got %v, want a *push.Error with a code", err)
		e = &push.Error{Code: "unknown"}
	}
	s.mu.Lock()
	s.refused = append(s.refused, err)
	s.queue = append(s.queue, wire.Out{Frame: &wire.Error{Code: e.Code, Detail: e.Detail}})
	s.mu.Unlock()
	s.conn.Wake(transport.Direct)
	if e.Code != wire.CodeUnknown {
		s.conn.Close(wire.CloseProtocol)
	}
}

// Alive implements transport.Session.
func (s *Session) Alive() {
	s.enter("Alive")
	defer s.leave()
	s.mu.Lock()
	s.alive++
	s.mu.Unlock()
}

// enter checks that of the calls which come one after the other no two come at once, and none after Closed. It lets
// other goroutines go first, so that a transport which breaks that is found out.
func (s *Session) enter(call string) {
	s.mu.Lock()
	if s.calling {
		s.t.Errorf("%s beside another call of its kind", call)
	}
	if len(s.closed) > 0 {
		s.t.Errorf("%s after Closed", call)
	}
	s.calling = true
	s.mu.Unlock()
	runtime.Gosched()
}

func (s *Session) leave() {
	s.mu.Lock()
	s.calling = false
	s.noteLocked()
	s.mu.Unlock()
}

// Fill moves what there is room for from the head of a queue into a batch, and returns the rest.
func Fill(b *transport.Batch, queue []wire.Out) (rest []wire.Out) {
	n := 0
	for ; n < len(queue) && !b.Full(); n++ {
		b.Outs = append(b.Outs, queue[n])
		b.Size += queue[n].Size()
	}
	clear(queue[:n])
	return queue[n:]
}

// Take implements transport.Session.
func (s *Session) Take(b *transport.Batch) bool {
	s.mu.Lock()
	if s.taking {
		s.t.Error("two Takes at once")
	}
	if len(s.closed) > 0 {
		s.t.Error("Take after Closed")
	}
	if len(b.Outs) > 0 || b.Size != 0 {
		s.t.Error("Take into a batch that is not empty")
	}
	if b.MaxOuts < 1 || b.MaxSize < 1 {
		s.t.Errorf("Take: got a batch for %d outs of %d bytes, want at least 1", b.MaxOuts, b.MaxSize)
	}
	if s.meta.Capabilities.Polls && !s.polling {
		s.t.Error("Take, and no poll waits")
	}
	s.taking = true
	s.takes++
	s.noteLocked()
	f := s.inTake
	s.mu.Unlock()
	if f != nil {
		f()
	}
	runtime.Gosched()

	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.closed) > 0 {
		s.t.Error("Closed during Take")
	}
	s.queue = Fill(b, s.queue)
	n := len(b.Outs)
	s.biggest = max(s.biggest, n)
	s.taking = false
	s.noteLocked()
	return n > 0
}

// Closed implements transport.Session.
func (s *Session) Closed(code wire.CloseCode) {
	s.mu.Lock()
	if s.calling || s.taking || s.pollCall {
		s.t.Error("Closed beside another call")
	}
	s.closed = append(s.closed, code)
	if len(s.closed) > 1 {
		s.t.Errorf("Closed was called with %v", s.closed)
	}
	s.noteLocked()
	s.mu.Unlock()
	// A late word of the room does nothing.
	s.conn.Wake(transport.Direct)
	s.conn.Close(wire.CloseInternal)
	s.conn.Cut(wire.CloseInternal)
}

func (s *Session) noteLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// put queues frames and wakes the connection once.
func (s *Session) put(outs ...wire.Out) {
	s.mu.Lock()
	s.queue = append(s.queue, outs...)
	s.mu.Unlock()
	s.conn.Wake(transport.Direct)
}

// wait waits until ok, which is called under mu, is true.
func (s *Session) wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	late := time.After(Patience)
	for {
		s.mu.Lock()
		done, changed := ok(), s.changed
		s.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("session: %s: waited in vain", what)
		}
	}
}

// waitClosed waits for Closed and compares its code.
func (s *Session) waitClosed(t *testing.T, want wire.CloseCode) {
	t.Helper()
	s.wait(t, "Closed", func() bool { return len(s.closed) > 0 })
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := s.closed[0]; got != want {
		t.Errorf("Closed: got %v, want %v", got, want)
	}
}

// waitLost waits for the end of a session whose client is gone. Of a client that polls nobody can say so but the session,
// which has seen its poll end and no other come.
func (s *Session) waitLost(t *testing.T) {
	t.Helper()
	if s.meta.Capabilities.Polls {
		s.wait(t, "PollOver", func() bool { return !s.polling })
		s.conn.Cut(wire.CloseLost)
	}
	s.waitClosed(t, wire.CloseLost)
}

// waitReceived waits for n frames and returns them.
func (s *Session) waitReceived(t *testing.T, n int) []wire.Frame {
	t.Helper()
	s.wait(t, fmt.Sprintf("%d frames", n), func() bool { return len(s.received) >= n })
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.received
}

// count reads a number under mu.
func (s *Session) count(n *int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *n
}

// message returns the nth message of an own slot, counted from 0.
func message(n int, body []byte) wire.Out {
	m := &push.Message{ID: push.MsgID(n + 1), Kind: push.BodyBinary, Body: body, Created: 1, Expires: 2, Persistent: true}
	return wire.Out{Shared: wire.NewShared(m), Slot: push.Own, Pos: push.Position(n + 1)}
}

// position returns the n that [message] made a frame from, -1 for a frame of another kind.
func position(f wire.Frame) int {
	if m, ok := f.(*wire.Message); ok {
		return int(m.Pos) - 1
	}
	return -1
}
