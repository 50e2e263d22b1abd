package ws

import (
	"testing"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/wire"
)

// While a fan-out waits to be written to many, whoever gets something of his own does not wait behind it; nor does a
// connection that stands in the fan-out itself.
func TestDrain_DirectDoesNotWaitBehindAFanOut(t *testing.T) {
	const n = 100
	for _, engine := range allEngines() {
		t.Run(engine.name, func(t *testing.T) {
			cfg := engine.cfg
			cfg.Workers = 1
			addr, r := start(t, cfg)
			var sessions []*session
			var clients []*rawClient
			for range n {
				c, s := dialRaw(t, addr, nil), r.session(t)
				if err := c.write(frame(fin|opPong, "")); err != nil {
					t.Fatal(err)
				}
				get(t, s.alives, "a sign that the connection stands")
				clients, sessions = append(clients, c), append(sessions, s)
			}
			release := hold(t, sessions[0]) // the only worker is inside a Take
			order := make(chan int, 2*n)
			for i, s := range sessions[1:] {
				s.mu.Lock()
				s.taken = func() { order <- i + 1 }
				s.queue = append(s.queue, text(i))
				s.mu.Unlock()
				s.conn.Wake(transport.Bulk)
			}
			late := sessions[n-1]
			late.conn.Wake(transport.Direct)
			release()
			if got := get(t, order, "a Take"); got != n-1 {
				t.Errorf("the first to be written to is %d, want %d, who was woken directly", got, n-1)
			}
			for want := 1; want < n-1; want++ {
				if got := get(t, order, "a Take"); got != want {
					t.Fatalf("then %d, want %d: the fan-out keeps its order", got, want)
				}
			}
			clients[n-1].until(t, fin|opText)
		})
	}
}

// A message to everyone is taken once for a wake of each kind.
func TestConn_WakesOfBothKindsFold(t *testing.T) {
	addr, r := start(t, Config{Workers: 1})
	c := dialRaw(t, addr, nil)
	s := r.session(t)
	release := hold(t, s)
	m := wire.Out{Shared: wire.NewShared(&push.Message{ID: 1, Body: []byte(`1`), Created: 1}), Slot: push.NoSlot}
	for i := range 100 {
		s.mu.Lock()
		s.queue = append(s.queue, m)
		s.mu.Unlock()
		s.conn.Wake(transport.Share(i % 2))
	}
	release()
	for range 100 {
		c.until(t, fin|opText)
	}
}
