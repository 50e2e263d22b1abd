package ws

import (
	"errors"
	"io"
	"runtime"
	"syscall"
	"testing"
	"time"
	"weak"

	"carillon/server/push"
	"carillon/server/wire"
)

// The library's connection holds a finalizer and points at itself, which keeps it alive unless it was closed.
func TestEndedConnection_IsCollected(t *testing.T) {
	addr, r := start(t, Config{})
	for name, end := range map[string]func(c *rawClient, s *session){
		"killed":  func(c *rawClient, _ *session) { c.Kill() },
		"goodbye": func(c *rawClient, _ *session) { c.Goodbye() },
		"refused": func(c *rawClient, _ *session) { c.SendRaw([]byte("{")) },
		"cut":     func(_ *rawClient, s *session) { s.conn.Cut(wire.CloseSlow) },
	} {
		t.Run(name, func(t *testing.T) {
			held := func() weak.Pointer[conn] {
				c := dialRaw(t, addr, nil)
				s := r.session(t)
				end(c, s)
				c.ends(t)
				c.Kill()
				get(t, s.closed, "Closed")
				return weak.Make(s.conn.(*conn))
			}()
			for late := time.Now().Add(patience); held.Value() != nil; runtime.GC() {
				if time.Now().After(late) {
					t.Fatal("the connection is still in memory")
				}
			}
		})
	}
}

// A client that does not read leaves megabytes in the kernel. A reset frees them; an ordinary close would not.
func TestCut_ResetsTheSocket(t *testing.T) {
	addr, r := start(t, Config{})
	c := dialRaw(t, addr, nil)
	s := r.session(t)
	m := &push.Message{ID: 1, Kind: push.BodyBinary, Body: make([]byte, 64<<10), Created: 1}
	for range 128 {
		s.put(wire.Out{Shared: wire.NewShared(m), Slot: push.NoSlot})
	}
	c.until(t, fin|opText)
	s.conn.Cut(wire.CloseSlow)
	get(t, s.closed, "Closed")
	if _, err := io.Copy(io.Discard, c.br); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client's read ends with %v, want a reset", err)
	}
}
