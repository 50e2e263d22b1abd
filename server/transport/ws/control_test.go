package ws

import (
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/wire"
)

func TestPing_IsAnsweredInOrder(t *testing.T) {
	addr, r := start(t, Config{})
	c := dialRaw(t, addr, nil)
	s := r.session(t)
	s.put(text(0))
	if before, _ := c.until(t, fin|opText); before != 0 {
		t.Fatalf("frames before the message: got %d, want 0", before)
	}
	for _, payload := range []string{"", "are you there?", string(make([]byte, 125))} {
		if err := c.write(frame(fin|opPing, payload)); err != nil {
			t.Fatal(err)
		}
		before, got := c.until(t, fin|opPong)
		if before != 0 || got != payload {
			t.Errorf("pong: got %q after %d frames, want %q", got, before, payload)
		}
		get(t, s.alives, "Alive")
	}
	if err := c.write(frame(fin|opPong, "unasked")); err != nil {
		t.Fatal(err)
	}
	get(t, s.alives, "Alive")
}

// hold lets a worker have the session's connection and keeps it inside Take until the returned function is called.
func hold(t *testing.T, s *session, outs ...wire.Out) (release func()) {
	t.Helper()
	gate, takes := make(chan struct{}), make(chan struct{}, 1<<10)
	s.mu.Lock()
	s.gate, s.takes = gate, takes
	s.mu.Unlock()
	s.put(outs...)
	get(t, takes, "Take")
	return func() { close(gate) }
}

func TestPing_FloodFoldsIntoTheLatest(t *testing.T) {
	const n = 1000
	addr, r := start(t, Config{})
	for _, outs := range [][]wire.Out{{}, {text(0)}} {
		c := dialRaw(t, addr, nil)
		s := r.session(t)
		release := hold(t, s, outs...)
		for i := range n {
			if err := c.write(frame(fin|opPing, fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
		}
		for range n {
			get(t, s.alives, "Alive")
		}
		// The last Alive came just before its pong was noted; the frame behind it comes after.
		if err := c.Send(&wire.Ping{}); err != nil {
			t.Fatal(err)
		}
		get(t, s.frames, "the frame behind the pings")
		release()
		before, got := c.until(t, fin|opPong)
		if want := fmt.Sprint(n - 1); before != len(outs) || got != want {
			t.Errorf("pong: got %q after %d frames, want %q after %d", got, before, want, len(outs))
		}
	}
}

func TestGoodbye_InsideATakeIsAnswered(t *testing.T) {
	addr, r := start(t, Config{})
	c := dialRaw(t, addr, nil)
	s := r.session(t)
	release := hold(t, s)
	if err := c.Goodbye(); err != nil {
		t.Fatal(err)
	}
	said := func() bool {
		c := s.conn.(*conn)
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.said != nil && c.said.bye != nil
	}
	for late := time.Now().Add(patience); !said(); runtime.Gosched() {
		if time.Now().After(late) {
			t.Fatal("the goodbye is not noted")
		}
	}
	release()
	c.until(t, fin|opClose)
	c.ends(t)
	if got := get(t, s.closed, "Closed"); got != wire.CloseNormal {
		t.Errorf("Closed: got %v, want %v", got, wire.CloseNormal)
	}
}

func TestPing_InsideAMessageIsNoLife(t *testing.T) {
	addr, r := start(t, Config{})
	c := dialRaw(t, addr, nil)
	s := r.session(t)
	if err := c.write(join(frame(opText, `{"type":`), frame(fin|opPing, "in"))); err != nil {
		t.Fatal(err)
	}
	c.until(t, fin|opPong) // answered all the same
	if got := len(s.alives); got != 0 {
		t.Errorf("Alive for a ping inside a message: got %d, want none", got)
	}
	if err := c.write(join(frame(fin|opContinue, `"ping"}`), frame(fin|opPing, "out"))); err != nil {
		t.Fatal(err)
	}
	get(t, s.frames, "the message")
	get(t, s.alives, "Alive")
}

// No timer of the transport's ends a connection: on virtual time, a silent hour passes, and it is still there.
func TestTransport_SilenceIsTheSessionsToJudge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { silentHour(t) })
}
