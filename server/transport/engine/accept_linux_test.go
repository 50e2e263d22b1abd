//go:build linux

package ws

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"carillon/server/transport"
)

// handshakeRequest is a handshake that the library accepts.
func handshakeRequest() *http.Request {
	r := parserRequest.Clone(parserRequest.Context())
	r.RemoteAddr = "192.0.2.1:1234"
	return r
}

// A request that comes after Close would otherwise make a poller that nobody ends, or reserve a descriptor in one that
// has ended.
func TestServeHTTP_AfterCloseMakesNoPoller(t *testing.T) {
	tr, err := New(Config{Acceptor: newRoom(), Engine: EngineEpoll})
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	tr.ServeHTTP(w, handshakeRequest())
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("got status %d, want 503", w.Code)
	}
	if p := tr.poller.Load(); p != nil {
		t.Error("a poller was made after Close")
		p.Close()
	}
}

// broken is an Acceptor with a broken invariant.
type broken struct{ conn transport.Conn }

func (b *broken) Accept(c transport.Conn, _ transport.Meta) (transport.Session, error) {
	b.conn = c
	panic("an invariant is broken")
}

// net/http goes on after a panic of a handler, so the connection has to be given up.
func TestServeHTTP_PanicOfTheAcceptorLeavesNothing(t *testing.T) {
	b := &broken{}
	tr, err := New(Config{Acceptor: b, Engine: EngineEpoll})
	if err != nil {
		t.Fatal(err)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		tr.ServeHTTP(httptest.NewRecorder(), handshakeRequest())
	}()
	c := b.conn.(*conn)
	if _, err := c.sock.Write(nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the reserved descriptor is still open: a write says %v", err)
	}
	c.sock.Close(false)
	if n := len(tr.connections()); n != 0 {
		t.Errorf("%d connections are counted, want 0: Close would wait for them", n)
		tr.leave(c)
	}
	if err := tr.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
