package ws

import (
	"bufio"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"carillon/server/transport/transporttest"
	"carillon/server/wire"
)

func silentHour(t *testing.T) {
	r := newRoom()
	tr, err := New(Config{Acceptor: r, Engine: EngineGoroutine}) // an epoll waits for the real world
	if err != nil {
		t.Fatal(err)
	}
	l := transporttest.NewPipes()
	srv := &http.Server{Handler: tr}
	var serving sync.WaitGroup
	serving.Go(func() { srv.Serve(l) })

	nc := l.Dial()
	c := &rawClient{nc: nc, br: bufio.NewReader(nc)}
	if _, err := nc.Write([]byte(handshake)); err != nil {
		t.Fatal(err)
	}
	if _, err := http.ReadResponse(c.br, nil); err != nil {
		t.Fatal(err)
	}
	s := <-r.began
	if err := c.write(frame(opText, `{"type":"pi`)); err != nil { // half a message, and then nothing
		t.Fatal(err)
	}
	time.Sleep(time.Hour)
	synctest.Wait()
	if len(s.closed) > 0 {
		t.Fatalf("closed with %v after silence", <-s.closed)
	}
	if err := c.write(frame(fin|opContinue, `ng"}`)); err != nil {
		t.Fatal(err)
	}
	if _, ok := (<-s.frames).(*wire.Ping); !ok {
		t.Error("the message that took an hour is another")
	}

	s.conn.Close(wire.CloseGoingAway)
	c.until(t, fin|opClose)
	time.Sleep(time.Hour) // the client does not answer, and nobody minds but the session
	synctest.Wait()
	if len(s.closed) > 0 {
		t.Fatalf("closed with %v before the peer answered", <-s.closed)
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
	nc.Close()
}
