package transporttest

import (
	"context"
	"sync"
	"testing"

	"carillon/server/transport"
	"carillon/server/wire"
)

// Scenes about how connections begin and end.
var endScenes = []scene{
	{name: "close drains, then says the code", play: playClose},
	{name: "a close inside a Take that finds nothing", play: playCloseInTake},
	{name: "the first code counts", play: playFirstCode},
	{name: "close waits for the peer until it is cut", play: playCloseWaits},
	{name: "cut ends at once", play: playCut},
	{name: "the client's goodbye", duplex: true, play: playGoodbye},
	{name: "a half-closed client", play: playHalfClose},
	{name: "a client that vanishes", play: playKill},
	{name: "frames before the peer's answer to a close are received", duplex: true, play: playLateAck},
	{name: "closing the transport", play: playTransportClose},
}

// Scenes about what a session does before its connection stands.
var startScenes = []scene{
	{name: "a wake inside accept is kept", play: playEarlyWake},
	{name: "a close inside accept is kept", play: playEarlyClose},
	{name: "a cut inside accept is kept", play: playEarlyCut},
}

func playClose(t *testing.T, s *stage) {
	const n = 1000
	c, sess := s.dial(t)
	var outs []wire.Out
	for i := range n {
		outs = append(outs, message(i, make([]byte, 512)))
	}
	sess.put(outs...)
	sess.conn.Close(wire.CloseGoingAway)
	fs := recvEnd(t, c)
	if got := len(fs); got != n {
		t.Fatalf("frames before the code: got %d, want %d", got, n)
	}
	for i, f := range fs {
		if got := position(f); got != i {
			t.Fatalf("position: got %d, want %d", got, i)
		}
	}
	s.checkCode(t, c, wire.CloseGoingAway)
	sess.waitClosed(t, wire.CloseGoingAway)
}

func playCloseInTake(t *testing.T, s *stage) {
	c, sess := s.dial(t)
	var once sync.Once
	sess.mu.Lock()
	sess.inTake = func() { once.Do(func() { sess.conn.Close(wire.CloseDeleted) }) }
	sess.mu.Unlock()
	sess.conn.Wake(transport.Direct)
	if got := len(recvEnd(t, c)); got != 0 {
		t.Errorf("frames: got %d, want none", got)
	}
	s.checkCode(t, c, wire.CloseDeleted)
	sess.waitClosed(t, wire.CloseDeleted)
}

func playFirstCode(t *testing.T, s *stage) {
	c, sess := s.dial(t)
	sess.conn.Close(wire.CloseRevoked)
	sess.conn.Close(wire.CloseSlow)
	recvEnd(t, c)
	s.checkCode(t, c, wire.CloseRevoked)
	sess.waitClosed(t, wire.CloseRevoked)
}

func playCloseWaits(t *testing.T, s *stage) {
	_, sess := s.dial(t) // reads nothing, so never answers
	sess.put(message(0, nil))
	sess.conn.Close(wire.CloseReplaced)
	sess.wait(t, "everything taken", func() bool { return len(sess.queue) == 0 && !sess.taking })
	sess.conn.Cut(wire.CloseInternal)
	sess.waitClosed(t, wire.CloseReplaced)
}

func playCut(t *testing.T, s *stage) {
	c, sess := s.dial(t)
	sess.conn.Cut(wire.CloseSilent)
	recvEnd(t, c)
	if got := c.CloseCode(); got != 0 {
		t.Errorf("code: got %v, want none", got)
	}
	sess.waitClosed(t, wire.CloseSilent)
	takes := sess.count(&sess.takes)
	sess.put(message(0, nil))
	sess.conn.Close(wire.CloseSlow)
	shut(t, s.Harness)
	if got := sess.count(&sess.takes); got != takes {
		t.Errorf("Takes after Closed: got %d, want none", got-takes)
	}
}

func playGoodbye(t *testing.T, s *stage) {
	c, sess := s.dial(t)
	if err := c.Send(&wire.Ping{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Goodbye(); err != nil {
		t.Fatal(err)
	}
	recvEnd(t, c)
	sess.waitClosed(t, wire.CloseNormal)
	if got := len(sess.waitReceived(t, 1)); got != 1 {
		t.Errorf("frames before the goodbye: got %d, want 1", got)
	}

	busy, sess := s.dial(t)
	freeze(t, sess)
	if err := busy.Goodbye(); err != nil {
		t.Fatal(err)
	}
	recvEnd(t, busy)
	sess.waitClosed(t, wire.CloseNormal)
}

func playHalfClose(t *testing.T, s *stage) {
	c, sess := s.dial(t)
	if s.Capabilities.Duplex {
		if err := c.Send(&wire.Ping{}); err != nil {
			t.Fatal(err)
		}
		sess.waitReceived(t, 1)
	}
	if err := c.HalfClose(); err != nil {
		t.Fatal(err)
	}
	if s.Capabilities.Polls {
		sess.waitLost(t)
	} else {
		sess.waitClosed(t, s.HalfClosed)
	}
	recvEnd(t, c)
}

func playKill(t *testing.T, s *stage) {
	c, sess := s.dial(t)
	c.Kill()
	sess.waitLost(t)

	c, sess = s.dial(t)
	freeze(t, sess)
	c.Kill()
	sess.waitLost(t)
}

func playLateAck(t *testing.T, s *stage) {
	c, sess := s.dial(t)
	sess.put(message(0, nil))
	sess.conn.Close(wire.CloseGoingAway)
	sess.wait(t, "everything taken", func() bool { return len(sess.queue) == 0 && sess.takes >= 2 && !sess.taking })
	if err := c.Send(&wire.Ack{Cursor: "last"}); err != nil {
		t.Fatal(err)
	}
	recvEnd(t, c)
	sess.waitClosed(t, wire.CloseGoingAway)
	sess.mu.Lock()
	defer sess.mu.Unlock()
	if got := len(sess.received); got != 1 {
		t.Errorf("frames: got %d, want the last acknowledgement", got)
	}
}

func playTransportClose(t *testing.T, s *stage) {
	_, left := s.dial(t)
	c, gone := s.dial(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Close(ctx) }()
	gone.conn.Close(wire.CloseGoingAway)
	recvEnd(t, c)
	gone.waitClosed(t, wire.CloseGoingAway)
	cancel()
	if err := <-done; err == nil {
		t.Error("Close: got nil, want an error for the connection that it cut")
	}
	left.waitClosed(t, wire.CloseGoingAway)
}

func playEarlyWake(t *testing.T, s *stage) {
	s.acceptor.begin = func(sess *Session) { sess.put(message(7, nil)) }
	c, _ := s.dial(t)
	if got := position(recv(t, c)); got != 7 {
		t.Errorf("position: got %d, want 7", got)
	}
}

func playEarlyClose(t *testing.T, s *stage) {
	s.acceptor.begin = func(sess *Session) {
		sess.put(message(7, nil))
		sess.conn.Close(wire.CloseOverloaded)
	}
	c, sess := s.dial(t)
	if got := len(recvEnd(t, c)); got != 1 {
		t.Errorf("frames: got %d, want 1", got)
	}
	s.checkCode(t, c, wire.CloseOverloaded)
	sess.waitClosed(t, wire.CloseOverloaded)
}

func playEarlyCut(t *testing.T, s *stage) {
	s.acceptor.begin = func(sess *Session) { sess.conn.Cut(wire.CloseOverloaded) }
	c, sess := s.dial(t)
	recvEnd(t, c)
	sess.waitClosed(t, wire.CloseOverloaded)
}
