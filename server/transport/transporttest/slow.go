package transporttest

import (
	"strconv"
	"testing"

	"carillon/server/wire"
)

// Scenes about clients that do not read.
var slowScenes = []scene{
	{name: "frozen clients do not delay others", play: playFrozen},
	{name: "a thawed client misses nothing", play: playThaw},
	{name: "a frozen client is cut", play: playCutFrozen},
}

const (
	bigBody  = 64 << 10
	bigCount = 192 // of such bodies, more than the kernel buffers for a client that does not read
)

// freeze gives a session more than its client's socket takes.
func freeze(t *testing.T, sess *Session) {
	t.Helper()
	body := make([]byte, bigBody)
	var outs []wire.Out
	for i := range bigCount {
		outs = append(outs, message(i, body))
	}
	sess.put(outs...)
	sess.wait(t, "a first Take", func() bool { return sess.takes > 0 })
}

func playFrozen(t *testing.T, s *stage) {
	var frozen []*Session
	for range s.Workers + 2 {
		_, sess := s.dial(t)
		freeze(t, sess)
		frozen = append(frozen, sess)
	}
	c, sess := s.dial(t)
	for i := range 500 {
		sess.put(message(i, []byte(strconv.Itoa(i))))
		if got := position(recv(t, c)); got != i {
			t.Fatalf("position: got %d, want %d", got, i)
		}
	}
	for i, f := range frozen {
		f.mu.Lock()
		if len(f.queue) == 0 {
			t.Errorf("client %d took %d bytes without reading: it was never frozen", i, bigBody*bigCount)
		}
		f.mu.Unlock()
	}
}

func playThaw(t *testing.T, s *stage) {
	c, sess := s.dial(t)
	freeze(t, sess)
	sess.put(message(bigCount, []byte("last")))
	for i := range bigCount + 1 {
		if got := position(recv(t, c)); got != i {
			t.Fatalf("position: got %d, want %d", got, i)
		}
	}
}

func playCutFrozen(t *testing.T, s *stage) {
	c, sess := s.dial(t)
	freeze(t, sess)
	sess.conn.Close(wire.CloseReplaced) // cannot be written
	sess.conn.Cut(wire.CloseSlow)
	sess.waitClosed(t, wire.CloseReplaced)

	c2, sess2 := s.dial(t)
	freeze(t, sess2)
	sess2.conn.Cut(wire.CloseSlow)
	sess2.waitClosed(t, wire.CloseSlow)
	for _, c := range []Client{c, c2} {
		recvEnd(t, c)
		if got := c.CloseCode(); got != 0 {
			t.Errorf("a cut client: got code %v, want none", got)
		}
	}
}
