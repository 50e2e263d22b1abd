package tcp

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/transport/engine"
	"carillon/server/transport/transporttest"
	"carillon/server/wire"
)

// On virtual time: an hour inside a frame ends nothing, and a client that reads a byte a second gets its message whole while
// another has its own at once.
func TestTransport_TimeIsTheSessionsToJudge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := newRoom(), transporttest.NewPipes()
		tr, err := New(Config{Acceptor: r, Engine: engine.Goroutine}) // an epoll waits for the real world
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- tr.Serve(l) }()

		nc := l.Dial()
		s := <-r.began
		ping := encoded(&wire.Ping{})
		if _, err := nc.Write(ping[:3]); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(s.closed) > 0 {
			t.Fatalf("closed with %v after silence", <-s.closed)
		}
		if _, err := nc.Write(ping[3:]); err != nil {
			t.Fatal(err)
		}
		if _, ok := (<-s.frames).(*wire.Ping); !ok {
			t.Error("the frame that took an hour is another")
		}

		out := message(0, "slowly read")
		want := appendFrame(nil, &out)
		s.put(out)
		got := make([]byte, len(want))
		for i := range got {
			time.Sleep(time.Second)
			if _, err := io.ReadFull(nc, got[i:i+1]); err != nil {
				t.Fatal(err)
			}
			if i == len(got)/2 {
				other := l.Dial()
				so := <-r.began
				began := time.Now()
				so.put(message(1, "quick"))
				if _, err := readFrame(other); err != nil {
					t.Fatal(err)
				}
				if !time.Now().Equal(began) {
					t.Error("a slow reader holds up another one")
				}
				other.Close()
				<-so.closed
			}
		}
		if string(got) != string(want) {
			t.Errorf("the slow reader got %q, want %q", got, want)
		}
		s.conn.Cut(wire.CloseSlow)
		if got := <-s.closed; got != wire.CloseSlow {
			t.Errorf("Closed: got %v, want %v", got, wire.CloseSlow)
		}
		if err := tr.Close(t.Context()); err != nil {
			t.Error(err)
		}
		<-served
		nc.Close()
	})
}
