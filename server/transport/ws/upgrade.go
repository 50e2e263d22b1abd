package ws

import (
	"bufio"
	"errors"
	"log/slog"
	"net"
	"net/http"

	"carillon/server/transport"
	"carillon/server/transport/web"
	"carillon/server/wire"

	"github.com/coder/websocket"
)

// capabilities are what this transport can do.
var capabilities = transport.Capabilities{Encoding: wire.JSON, Duplex: true, Close: true}

// ServeHTTP makes a connection of a request, or answers why not, as application/problem+json: 405 for a method other
// than GET, 426 without an upgrade, 400 for an upgrade that is not RFC 6455's, 403 for a page that is not admitted, 503
// with Retry-After when the Acceptor takes no more, 429 when it takes no more of this client. It returns as soon as the
// connection stands.
func (t *Transport) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		notGet.Write(w)
		return
	}
	if !t.cfg.origins.Admit(r) {
		strangeOrigin.Write(w)
		return
	}
	// The library looks at the first of several versions; a request has one (RFC 6455, 11.3.5).
	if len(r.Header.Values("Sec-WebSocket-Version")) > 1 {
		w.Header().Set("Sec-WebSocket-Version", "13")
		badHandshake.Write(w)
		return
	}
	u := &upgrade{w: w, r: r, c: &conn{t: t}, ends: w.Header().Get("Connection") == "close"}
	_, err := websocket.Accept(u, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // of the origin, which is judged above
		CompressionMode:    websocket.CompressionDisabled,
	})
	if !errors.Is(err, errTaken) {
		t.refuse(u, err)
	}
}

// errTaken ends the library's part in the handshake: a connection gets no library connection of its own.
var errTaken = errors.New("ws: taken")

// refuse answers a request that did not become a connection.
func (t *Transport) refuse(u *upgrade, err error) {
	switch {
	case u.refusal != nil:
		u.answer(u.refusal)
	case u.taken:
		// Only the end of a client in the middle of its handshake, or a server that cannot be hijacked, leads here.
		t.cfg.Log.Warn("ws: handshake failed", slog.Any("err", err))
		if errors.Is(err, http.ErrNotSupported) {
			u.answer(err)
		}
	case u.status == http.StatusUpgradeRequired:
		// The library leaves these out where the request's HTTP is too old; an answer 426 names what it requires.
		u.w.Header().Set("Connection", "Upgrade")
		u.w.Header().Set("Upgrade", "websocket")
		noUpgrade.Write(u.w)
	default:
		badHandshake.Write(u.w)
	}
}

// The refusals that need no Acceptor.
var (
	notGet = &web.Problem{
		Status: http.StatusMethodNotAllowed, Code: web.CodeMethod, Allow: http.MethodGet, Detail: "connect with GET",
	}
	strangeOrigin = &web.Problem{
		Status: http.StatusForbidden, Code: "origin_forbidden", Detail: "pages of this origin may not connect",
	}
	noUpgrade = &web.Problem{
		Status: http.StatusUpgradeRequired, Code: "upgrade_required", Detail: "connect with an upgrade to websocket",
	}
	badHandshake = &web.Problem{
		Status: http.StatusBadRequest, Code: "bad_handshake", Detail: "the upgrade is not that of RFC 6455, version 13",
	}
)

// upgrade is the ResponseWriter that the library sees. The library checks the handshake; its refusals are kept for us to
// word, and when it has nothing to object, Hijack asks for a session before anything is answered.
type upgrade struct {
	w http.ResponseWriter
	r *http.Request
	c *conn

	status  int   // what the library wanted to answer
	refusal error // why there is no session
	taken   bool  // there is a session
	ends    bool  // whoever is in front wants the connection to end with a refusal
}

// Header implements http.ResponseWriter.
func (u *upgrade) Header() http.Header { return u.w.Header() }

// WriteHeader implements http.ResponseWriter. Nothing is written before Hijack.
func (u *upgrade) WriteHeader(status int) { u.status = status }

// Write implements http.ResponseWriter. The library writes the text of a refusal, which we word ourselves.
func (u *upgrade) Write(p []byte) (int, error) { return len(p), nil }

// answer writes a refusal where the library expected an upgrade.
func (u *upgrade) answer(err error) {
	for _, name := range []string{"Upgrade", "Connection", "Sec-Websocket-Accept"} {
		u.w.Header().Del(name)
	}
	if u.ends {
		u.w.Header().Set("Connection", "close")
	}
	web.ProblemOf(err).Write(u.w)
}

// Hijack implements http.Hijacker: it asks for a session, answers, and hands the socket to the engine.
func (u *upgrade) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	t := u.c.t
	m := web.MetaOf(u.r, transport.WebSocket, capabilities, t.cfg.Remote)
	if u.refusal = t.engine.Accept(u.c, m, u.r.TLS == nil); u.refusal != nil {
		return nil, nil, u.refusal
	}
	u.taken = true
	if err := t.engine.Hijack(u.c, u.w, switching(u.w.Header())); err != nil {
		return nil, nil, err
	}
	return nil, nil, errTaken
}

// switching returns the answer 101 with the headers that the library and the handlers in front have set, in any order.
func switching(h http.Header) []byte {
	b := make([]byte, 0, 512)
	b = append(b, "HTTP/1.1 101 Switching Protocols\r\n"...)
	for name, values := range h {
		for _, v := range values {
			b = append(append(append(append(b, name...), ": "...), v...), "\r\n"...)
		}
	}
	return append(b, "\r\n"...)
}
