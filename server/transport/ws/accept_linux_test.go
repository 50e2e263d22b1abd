//go:build linux

package ws

import (
	"net/http"
	"net/http/httptest"
	"testing"
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
