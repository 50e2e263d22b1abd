package sse

import (
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/wire"
)

// The session hears nothing of such a client, so it is the kernel that gives it up, and the transport that says so.
func TestGrace_AClientThatTakesNothingIsLost(t *testing.T) {
	for _, f := range forms(t) {
		t.Run(string(f), func(t *testing.T) {
			addr, r := start(t, Config{Engine: f, Workers: workers, Grace: 100 * time.Millisecond})
			dialRaw(t, addr, nil, request) // and reads nothing
			s := r.session(t)
			s.mu.Lock()
			s.queue = append(s.queue, wire.Out{Frame: welcome})
			for i := range 200 { // more than the kernel takes
				s.queue = append(s.queue, message(push.Position(0x6955b90000001+i), string(make([]byte, 64<<10))))
			}
			s.mu.Unlock()
			s.conn.Wake(transport.Direct)
			if got := get(t, s.closed, "Closed"); got != wire.CloseLost {
				t.Errorf("closed with %v, want lost", got)
			}
		})
	}
}
