package transporttest

import (
	"context"
	"strconv"
	"sync"
	"testing"

	"carillon/server/transport"
	"carillon/server/wire"
)

// Scenes in which everything happens at once. What they claim is checked by the sessions, the race detector and the
// search for leaks.
var stormScenes = []scene{
	{name: "storm of wake, close and cut", play: playStorm},
	{name: "many sessions, each its own messages", play: playStrangers},
}

func playStorm(t *testing.T, s *stage) {
	const connections, callers, calls = 120, 4, 25
	var all sync.WaitGroup
	var sessions []*Session
	for i := range connections {
		c, sess := s.dial(t)
		sessions = append(sessions, sess)
		all.Go(func() { // the client reads until the end, or dies in the middle
			for n := 0; ; n++ {
				if i%5 == 0 && n == 10 {
					c.Kill()
				}
				if _, err := c.Recv(context.Background()); err != nil {
					return
				}
			}
		})
		if s.Capabilities.Duplex {
			all.Go(func() {
				for range 5 {
					_ = c.Send(&wire.Ping{}) // fails once the connection is gone
				}
				if i%3 == 0 {
					_ = c.Goodbye()
				}
			})
		}
		for k := range callers {
			all.Go(func() {
				for n := range calls {
					sess.put(message(n, []byte(strconv.Itoa(n))))
					sess.conn.Wake(transport.Direct)
				}
				if (i+k)%2 == 0 {
					sess.conn.Close(wire.CloseGoingAway)
				}
				if k == callers-1 && i%2 == 0 {
					sess.conn.Cut(wire.CloseSlow)
				}
			})
		}
	}
	all.Wait()
	for _, sess := range sessions {
		sess.conn.Cut(wire.CloseSlow)
		sess.wait(t, "Closed", func() bool { return len(sess.closed) == 1 })
	}
}

// playStrangers sends every client numbers of its own while connections come and go, so that a byte to a stranger would
// be seen.
func playStrangers(t *testing.T, s *stage) {
	const rounds, clients, messages = 5, 20, 50
	for range rounds {
		var all sync.WaitGroup
		for i := range clients {
			c, sess := s.dial(t)
			all.Go(func() {
				for n := range messages {
					sess.put(message(i*messages+n, nil))
				}
			})
			all.Go(func() {
				defer c.Kill()
				for n := range messages {
					f, err := c.Recv(context.Background())
					if err != nil {
						t.Errorf("client %d: %v", i, err)
						return
					}
					if got, want := position(f), i*messages+n; got != want {
						t.Errorf("client %d: got message %d, want %d", i, got, want)
						return
					}
				}
			})
		}
		all.Wait()
	}
}
