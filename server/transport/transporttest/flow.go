package transporttest

import (
	"bytes"
	"strconv"
	"strings"
	"sync"
	"testing"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/wire"
)

// Scenes about what flows while all is well.
var flowScenes = []scene{
	{name: "order", play: playOrder},
	{name: "order of the client's frames", duplex: true, play: playClientOrder},
	{name: "both directions at once", duplex: true, play: playBoth},
	{name: "one direction: a connect and nothing after it", oneWay: true, play: playOneWay},
	{name: "large and empty bodies", play: playBodies},
	{name: "queued frames in one write", play: playOneWrite},
	{name: "wakes fold", play: playFolding},
	{name: "a full batch is taken on without a wake", play: playFullBatch},
}

func playOrder(t *testing.T, s *stage) {
	const n = 5000
	c, sess := s.dial(t)
	var room sync.WaitGroup
	room.Go(func() {
		for i := range n {
			sess.put(message(i, []byte(strconv.Itoa(i))))
		}
	})
	for i := range n {
		if got := position(recv(t, c)); got != i {
			t.Fatalf("position: got %d, want %d", got, i)
		}
	}
	room.Wait()
}

func playClientOrder(t *testing.T, s *stage) {
	const n = 2000
	c, sess := s.dial(t)
	for i := range n {
		if err := c.Send(&wire.Ack{Cursor: strconv.Itoa(i)}); err != nil {
			t.Fatal(err)
		}
	}
	for i, f := range sess.waitReceived(t, n) {
		if got, want := f.(*wire.Ack).Cursor, strconv.Itoa(i); got != want {
			t.Fatalf("frame: got %s, want %s", got, want)
		}
	}
}

func playBoth(t *testing.T, s *stage) {
	const n = 1000
	c, sess := s.dial(t)
	var others sync.WaitGroup
	defer others.Wait()
	others.Go(func() {
		for i := range n {
			sess.put(message(i, bytes.Repeat([]byte{byte(i)}, i)))
		}
	})
	others.Go(func() {
		for i := range n {
			if err := c.Send(&wire.Ack{Cursor: strconv.Itoa(i)}); err != nil {
				t.Error(err)
			}
		}
	})
	for i := range n {
		f := recv(t, c)
		if got := position(f); got != i {
			t.Fatalf("position: got %d, want %d", got, i)
		}
		if got, want := f.(*wire.Message).Body, bytes.Repeat([]byte{byte(i)}, i); !bytes.Equal(got, want) {
			t.Fatalf("body of message %d: got %d other bytes, want %d", i, len(got), len(want))
		}
	}
	for i, f := range sess.waitReceived(t, n) {
		if got, want := f.(*wire.Ack).Cursor, strconv.Itoa(i); got != want {
			t.Fatalf("frame: got %s, want %s", got, want)
		}
	}
}

// playOneWay is for clients that cannot send on their connection: what they asked for when they connected is received as one
// connect frame, before anything is written.
func playOneWay(t *testing.T, s *stage) {
	c, sess := s.dial(t)
	connect, ok := sess.waitReceived(t, 1)[0].(*wire.Connect)
	if !ok || connect.Version != wire.Version || connect.Token == "" {
		t.Fatalf("first frame: got %+v, want a connect with a token", connect)
	}
	for i := range 10 {
		sess.put(message(i, []byte(strconv.Itoa(i))))
		if got := position(recv(t, c)); got != i {
			t.Fatalf("position: got %d, want %d", got, i)
		}
	}
	c.Kill()
	sess.waitLost(t)
	sess.mu.Lock()
	defer sess.mu.Unlock()
	if got := len(sess.received); got != 1 {
		t.Errorf("frames: got %d, want the connect alone", got)
	}
	if sess.alive > 0 || len(sess.refused) > 0 {
		t.Errorf("signs of life: got %d, refusals: got %v, want none of either", sess.alive, sess.refused)
	}
}

func playBodies(t *testing.T, s *stage) {
	c, sess := s.dial(t)
	// A transport's header grows with the length of the frame: short frames of every length, and frames of every length
	// around 64 KiB.
	var bodies []wire.Out
	for n := range 300 {
		bodies = append(bodies, message(len(bodies), bytes.Repeat([]byte{byte(n)}, n)))
	}
	for _, n := range []int{0, 1, 1 << 12, 48 << 10, 1<<16 - 300, 1<<16 - 1, 1 << 16, 0} {
		bodies = append(bodies, message(len(bodies), bytes.Repeat([]byte{'a'}, n)))
	}
	text := `{"text":"` + strings.Repeat("ä", 32<<10) + `"}`
	object := push.Message{ID: 1, Body: []byte(text), Created: 1} // JSON, not persistent
	for i := range 200 {
		m := object
		m.Body = append([]byte{'"'}, bytes.Repeat([]byte{'b'}, 1<<16-160+i)...)
		m.Body = append(m.Body, '"')
		bodies = append(bodies, wire.Out{Shared: wire.NewShared(&m), Slot: push.NoSlot})
	}
	bodies = append(bodies, wire.Out{Shared: wire.NewShared(&object), Slot: push.NoSlot})
	sess.put(bodies...)
	for i := range bodies {
		want := bodies[i].Shared.Message()
		got, ok := recv(t, c).(*wire.Message)
		if !ok || got.ID != want.ID || !bytes.Equal(got.Body, want.Body) {
			t.Fatalf("message %d of %d bytes did not arrive as it was", i, len(want.Body))
		}
	}
}

func playOneWrite(t *testing.T, s *stage) {
	const n = 16
	c, sess := s.dial(t)
	sess.put(message(0, nil))
	recv(t, c)
	if s.Writes == nil {
		return
	}
	// The worker may still be in its last look after the first message; when that is over, nobody has the connection.
	sess.wait(t, "rest", func() bool { return !sess.taking && sess.takes >= 2 })
	before := s.Writes()
	var outs []wire.Out
	for i := range n {
		outs = append(outs, message(i, []byte("x")))
	}
	sess.put(outs...)
	for i := range n {
		if got := position(recv(t, c)); got != i {
			t.Fatalf("position: got %d, want %d", got, i)
		}
	}
	if got := s.Writes() - before; got != 1 {
		t.Errorf("writes for %d queued frames: got %d, want 1", n, got)
	}
}

func playFolding(t *testing.T, s *stage) {
	c, sess := s.dial(t)
	in, out := make(chan struct{}), make(chan struct{})
	var once sync.Once
	sess.mu.Lock()
	sess.inTake = func() {
		once.Do(func() {
			close(in)
			<-out
		})
	}
	sess.mu.Unlock()
	sess.put(message(0, nil))
	<-in
	for range 1000 {
		sess.conn.Wake(transport.Direct)
	}
	close(out)
	recv(t, c)
	sess.put(message(1, nil))
	recv(t, c)
	sess.wait(t, "rest", func() bool { return !sess.taking })
	// Four in all: two with a message, and after each of them one that found nothing; one more for the folded wakes. A poll
	// is followed by one of its own.
	if got, most := sess.count(&sess.takes), 5+sess.count(&sess.polls); got > most {
		t.Errorf("Takes after 1000 wakes during one: got %d, want at most %d", got, most)
	}
}

func playFullBatch(t *testing.T, s *stage) {
	c, sess := s.dial(t)
	const n = 3000
	var outs []wire.Out
	for i := range n {
		outs = append(outs, message(i, nil))
	}
	sess.put(outs...) // one wake
	for i := range n {
		if got := position(recv(t, c)); got != i {
			t.Fatalf("position: got %d, want %d", got, i)
		}
	}
}
