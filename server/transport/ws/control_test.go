package ws

import (
	"testing"
	"testing/synctest"

	"carillon/server/transport/transporttest"
	"carillon/server/wire"
)

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

func TestGoodbye_InsideATakeIsAnswered(t *testing.T) {
	addr, r := start(t, Config{})
	c := dialRaw(t, addr, nil)
	s := r.session(t)
	release := hold(t, s)
	if err := c.Goodbye(); err != nil {
		t.Fatal(err)
	}
	transporttest.Eventually(t, "the goodbye is noted", s.conn.(*conn).saysBye)
	release()
	c.until(t, fin|opClose)
	c.ends(t)
	if got := get(t, s.closed, "Closed"); got != wire.CloseNormal {
		t.Errorf("Closed: got %v, want %v", got, wire.CloseNormal)
	}
}

// No timer of the transport's ends a connection: on virtual time, a silent hour passes, and it is still there.
func TestTransport_SilenceIsTheSessionsToJudge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { silentHour(t) })
}
