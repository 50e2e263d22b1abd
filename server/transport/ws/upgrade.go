package ws

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/wire"

	"github.com/coder/websocket"
)

// maxUserAgent is the most bytes of a User-Agent that a session keeps.
const maxUserAgent = 256

// ServeHTTP makes a connection of a request, or answers why not, as application/problem+json: 405 for a method other
// than GET, 426 without an upgrade, 400 for an upgrade that is not RFC 6455's, 403 for a page that is not admitted, 503
// with Retry-After when the Acceptor takes no more, 429 when it takes no more of this client. It returns as soon as the
// connection stands.
func (t *Transport) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		t.problem(w, http.StatusMethodNotAllowed, "method_not_allowed", "connect with GET")
		return
	}
	if !t.cfg.origins.Admit(r) {
		t.problem(w, http.StatusForbidden, "origin_forbidden", "pages of this origin may not connect")
		return
	}
	// The library looks at the first of several versions; a request has one (RFC 6455, 11.3.5).
	if len(r.Header.Values("Sec-WebSocket-Version")) > 1 {
		w.Header().Set("Sec-WebSocket-Version", "13")
		t.problem(w, http.StatusBadRequest, "bad_handshake", badHandshake)
		return
	}
	u := &upgrade{w: w, r: r, c: &conn{t: t}}
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
		t.refuseFull(u.w, u.refusal)
	case u.taken:
		// Only the end of a client in the middle of its handshake, or a server that cannot be hijacked, leads here.
		t.cfg.Log.Warn("ws: handshake failed", slog.Any("err", err))
	case u.status == http.StatusUpgradeRequired:
		// The library leaves these out where the request's HTTP is too old; an answer 426 names what it requires.
		u.w.Header().Set("Connection", "Upgrade")
		u.w.Header().Set("Upgrade", "websocket")
		t.problem(u.w, u.status, "upgrade_required", "connect with an upgrade to websocket")
	default:
		t.problem(u.w, http.StatusBadRequest, "bad_handshake", badHandshake)
	}
}

const badHandshake = "the upgrade is not that of RFC 6455, version 13"

func (t *Transport) refuseFull(w http.ResponseWriter, err error) {
	status, code, detail, after := http.StatusServiceUnavailable, "unavailable", "", time.Duration(0)
	if e, ok := errors.AsType[*push.Error](err); ok {
		code, detail, after = e.Code, e.Detail, e.After
		if e.Kind == push.KindLimited {
			status = http.StatusTooManyRequests
		}
	}
	for _, name := range []string{"Upgrade", "Connection", "Sec-Websocket-Accept"} {
		w.Header().Del(name)
	}
	seconds := max(1, (after+time.Second-1)/time.Second)
	w.Header().Set("Retry-After", strconv.FormatInt(int64(seconds), 10))
	t.problem(w, status, code, detail)
}

// problem is an error as RFC 9457 writes it.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Code   string `json:"code"`
	Detail string `json:"detail,omitempty"`
}

func (t *Transport) problem(w http.ResponseWriter, status int, code, detail string) {
	b, err := json.Marshal(problem{"about:blank", http.StatusText(status), status, code, detail})
	if err != nil {
		panic(fmt.Sprintf("ws: a problem that is no JSON: %v", err)) // strings and a number always are
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(b) // whoever is gone by now does not miss it
}

// upgrade is the ResponseWriter that the library sees. The library checks the handshake; its refusals are kept for us to
// word, and when it has nothing to object, Hijack asks for a session before anything is answered.
type upgrade struct {
	w http.ResponseWriter
	r *http.Request
	c *conn

	status  int   // what the library wanted to answer
	refusal error // why there is no session
	taken   bool  // there is a session
}

// Header implements http.ResponseWriter.
func (u *upgrade) Header() http.Header { return u.w.Header() }

// WriteHeader implements http.ResponseWriter. Nothing is written before Hijack.
func (u *upgrade) WriteHeader(status int) { u.status = status }

// Write implements http.ResponseWriter. The library writes the text of a refusal, which we word ourselves.
func (u *upgrade) Write(p []byte) (int, error) { return len(p), nil }

// Hijack implements http.Hijacker: it asks for a session, answers, and hands the socket to the engine.
func (u *upgrade) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	t := u.c.t
	if u.refusal = t.engine.Accept(u.c, t.meta(u.r), u.r.TLS == nil); u.refusal != nil {
		return nil, nil, u.refusal
	}
	u.taken = true
	u.w.WriteHeader(http.StatusSwitchingProtocols)
	if err := t.engine.Hijack(u.c, u.w); err != nil {
		return nil, nil, err
	}
	return nil, nil, errTaken
}

func (t *Transport) meta(r *http.Request) transport.Meta {
	return transport.Meta{
		Kind:         transport.WebSocket,
		Capabilities: transport.Capabilities{Encoding: wire.JSON, Duplex: true, Close: true},
		Remote:       t.cfg.Remote(r),
		UserAgent:    userAgent(r),
	}
}

func userAgent(r *http.Request) string {
	s := r.UserAgent()
	if len(s) > maxUserAgent {
		s = strings.Clone(s[:maxUserAgent])
	}
	return strings.ToValidUTF8(s, "")
}
