package sse

import (
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/transport/engine"
	"carillon/server/transport/transporttest"
	"carillon/server/wire"
)

// The transport has no deadline of its own, and none of net/http's is left on the connection: only its session ends it.
func TestVirtual_NothingButTheSessionEndsASilentHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom()
		tr, err := New(Config{Acceptor: r, Engine: engine.Goroutine}) // an epoll waits for the real world
		if err != nil {
			t.Fatal(err)
		}
		l := transporttest.NewPipes()
		srv := &http.Server{Handler: tr, ReadTimeout: time.Minute, WriteTimeout: time.Minute, IdleTimeout: time.Minute}
		var serving sync.WaitGroup
		serving.Go(func() { srv.Serve(l) })

		c := newRawClient(t, l.Dial())
		if _, err := c.nc.Write([]byte(request)); err != nil {
			t.Fatal(err)
		}
		s := <-r.began
		s.put(welcome)
		if f, err := c.Recv(t.Context()); err != nil || f.Type() != wire.TypeWelcome {
			t.Fatalf("got %v, %v", f, err)
		}
		for range 3 {
			time.Sleep(time.Hour)
			synctest.Wait()
			if len(s.closed) > 0 {
				t.Fatalf("closed with %v after silence", <-s.closed)
			}
			s.put(&wire.Ping{})
			if f, err := c.Recv(t.Context()); err != nil || f.Type() != wire.TypePing {
				t.Fatalf("got %v, %v", f, err)
			}
		}

		s.conn.Close(wire.CloseGoingAway)
		time.Sleep(time.Hour) // the client does not go, and nobody minds but the session
		synctest.Wait()
		if len(s.closed) > 0 {
			t.Fatalf("closed with %v before the peer went", <-s.closed)
		}
		s.conn.Cut(wire.CloseInternal)
		if got := <-s.closed; got != wire.CloseGoingAway {
			t.Errorf("Closed: got %v, want %v", got, wire.CloseGoingAway)
		}
		if err := tr.Close(t.Context()); err != nil {
			t.Errorf("Close: %v", err)
		}
		srv.Close()
		serving.Wait()
		c.nc.Close()
	})
}
