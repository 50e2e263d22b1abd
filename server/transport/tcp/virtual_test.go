package tcp

import (
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/transport/engine"
	"carillon/server/wire"
)

// pipes is a listener whose connections are made in memory.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipes) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (l *pipes) dial() net.Conn {
	near, far := net.Pipe()
	l.conns <- far
	return near
}

// On virtual time: an hour inside a frame ends nothing, and a client that reads a byte a second gets its message whole while
// another has its own at once.
func TestTransport_TimeIsTheSessionsToJudge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := newRoom(), newPipes()
		tr, err := New(Config{Acceptor: r, Engine: engine.Goroutine}) // an epoll waits for the real world
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- tr.Serve(l) }()

		nc := l.dial()
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
				other := l.dial()
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
