package client

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"carillon/server/push"
	"carillon/server/wire"
)

// dialServer returns a client's connection to a server that runs serve on it and then cuts it.
func dialServer(t *testing.T, serve func(c *websocket.Conn)) Conn {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.CloseNow()
		serve(c)
	}))
	t.Cleanup(srv.Close)
	hc := &http.Client{Transport: &http.Transport{}}
	conn, err := (&WebSocket{Client: hc}).Dial(t.Context(), strings.Replace(srv.URL, "http", "ws", 1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Cut)
	return conn
}

func TestWebSocket_CarriesFramesBothWaysAndPassesOverUnknownOnes(t *testing.T) {
	got := make(chan string, 1)
	conn := dialServer(t, func(c *websocket.Conn) {
		_, b, err := c.Read(t.Context())
		if err != nil {
			t.Error(err)
		}
		got <- string(b)
		c.Write(t.Context(), websocket.MessageText, []byte(`{"type":"from_the_future","n":1}`))
		c.Write(t.Context(), websocket.MessageText, []byte(`{"type":"pong"}`))
	})
	if err := conn.Write(t.Context(), &wire.Ping{}); err != nil {
		t.Fatal(err)
	}
	if b := <-got; b != `{"type":"ping"}` {
		t.Errorf("the server read %s", b)
	}
	if f, err := conn.Read(); err != nil || f.Type() != wire.TypePong {
		t.Errorf("got %v, %v, want a pong", f, err)
	}
}

func TestWebSocket_ReadReportsHowTheConnectionEnded(t *testing.T) {
	cases := []struct {
		name  string
		serve func(c *websocket.Conn)
		code  wire.CloseCode // 0: no close code
	}{
		{"a close code", func(c *websocket.Conn) { c.Close(4001, "slow") }, wire.CloseSlow},
		{"a cut", func(c *websocket.Conn) { c.CloseNow() }, 0},
		{"a binary message", func(c *websocket.Conn) {
			c.Write(context.Background(), websocket.MessageBinary, []byte{1})
		}, 0},
		{"no frame", func(c *websocket.Conn) { c.Write(context.Background(), websocket.MessageText, []byte("{")) }, 0},
	}
	for _, c := range cases {
		conn := dialServer(t, c.serve)
		f, err := conn.Read()
		if err == nil {
			t.Errorf("%s: got a frame, %v", c.name, f)
			continue
		}
		var closed *ClosedError
		if got := errors.As(err, &closed); got != (c.code != 0) || got && closed.Code != c.code {
			t.Errorf("%s: got %v, want close code %d", c.name, err, c.code)
		}
	}
}

func TestWebSocket_CloseEndsAReadUnderWayThoughThePeerIsFrozen(t *testing.T) {
	thaw := make(chan struct{})
	conn := dialServer(t, func(*websocket.Conn) { <-thaw })
	defer close(thaw)
	read := make(chan error, 1)
	go func() {
		_, err := conn.Read()
		read <- err
	}()
	conn.Close()
	if err := <-read; err == nil {
		t.Error("Read returned a frame")
	}
}

func TestWebSocket_CutEndsAReadUnderWay(t *testing.T) {
	thaw := make(chan struct{})
	conn := dialServer(t, func(*websocket.Conn) { <-thaw })
	defer close(thaw)
	read := make(chan error, 1)
	go func() {
		_, err := conn.Read()
		read <- err
	}()
	conn.Cut()
	if err := <-read; err == nil {
		t.Error("Read returned a frame")
	}
}

func TestWebSocket_RefusalSaysKindAndWhenToComeBack(t *testing.T) {
	cases := []struct {
		status int
		after  string
		kind   push.Kind
		want   time.Duration
	}{
		{503, "7", push.KindUnavailable, 7 * time.Second},
		{429, "3", push.KindLimited, 3 * time.Second},
		{503, "999999999", push.KindUnavailable, time.Hour},
		{500, "soon", push.KindUnavailable, 0},
		{404, "", push.KindInvalid, 0},
	}
	for _, c := range cases {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", c.after)
			w.WriteHeader(c.status)
		}))
		hc := &http.Client{Transport: &http.Transport{}}
		_, err := (&WebSocket{Client: hc}).Dial(t.Context(), srv.URL)
		var e *push.Error
		if !errors.As(err, &e) || e.Kind != c.kind || e.After != c.want {
			t.Errorf("%d: got %#v, want kind %d after %v", c.status, err, c.kind, c.want)
		}
		hc.CloseIdleConnections()
		srv.Close()
	}
}
