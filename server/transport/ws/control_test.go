package ws

import (
	"fmt"
	"testing"
	"testing/synctest"

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

func TestPing_FloodFoldsIntoTheLatest(t *testing.T) {
	const n = 1000
	addr, r := start(t, Config{})
	c := dialRaw(t, addr, nil)
	s := r.session(t)
	gate, takes := make(chan struct{}), make(chan struct{}, n)
	s.mu.Lock()
	s.gate, s.takes = gate, takes
	s.mu.Unlock()
	s.put(text(0))
	get(t, takes, "Take") // a worker has the connection and is held inside Take
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
	close(gate)
	c.until(t, fin|opText)
	before, got := c.until(t, fin|opPong)
	if want := fmt.Sprint(n - 1); before != 0 || got != want {
		t.Errorf("pong: got %q after %d frames, want %q at once", got, before, want)
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
