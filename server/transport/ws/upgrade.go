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
// with Retry-After when the Acceptor takes no more. It returns as soon as the connection stands.
func (t *Transport) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		t.problem(w, http.StatusMethodNotAllowed, "method_not_allowed", "connect with GET")
		return
	}
	// The library looks at the first of several versions; a request has one (RFC 6455, 11.3.5).
	if len(r.Header.Values("Sec-WebSocket-Version")) > 1 {
		w.Header().Set("Sec-WebSocket-Version", "13")
		t.problem(w, http.StatusBadRequest, "bad_handshake", badHandshake)
		return
	}
	u := &upgrade{w: w, r: r, c: &conn{t: t}}
	ws, err := websocket.Accept(u, r, &websocket.AcceptOptions{
		OriginPatterns:  t.cfg.Origins,
		CompressionMode: websocket.CompressionDisabled,
		OnPingReceived:  u.c.onPing,
		OnPongReceived:  u.c.onPong,
	})
	switch {
	case errors.Is(err, errParked):
		u.c.stand(u.early)
	case err != nil:
		t.refuse(u, err)
	default:
		u.c.thread.ws = ws
		u.c.stand(nil)
	}
}

// errParked ends the library's part in the handshake of a connection that gets no library connection of its own.
var errParked = errors.New("ws: parked")

// refuse answers a request that did not become a connection.
func (t *Transport) refuse(u *upgrade, err error) {
	switch {
	case u.refusal != nil:
		t.refuseFull(u.w, u.refusal)
	case u.taken:
		// Only the end of a client in the middle of its handshake, or a server that cannot be hijacked, leads here.
		t.cfg.Log.Warn("ws: handshake failed", slog.Any("err", err))
		u.c.finishUnborn()
	case u.status == http.StatusForbidden:
		t.problem(u.w, u.status, "origin_forbidden", "pages of this origin may not connect")
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
	code, detail, after := "unavailable", "", time.Duration(0)
	if e, ok := errors.AsType[*push.Error](err); ok {
		code, detail, after = e.Code, e.Detail, e.After
	}
	for _, name := range []string{"Upgrade", "Connection", "Sec-Websocket-Accept"} {
		w.Header().Del(name)
	}
	seconds := max(1, (after+time.Second-1)/time.Second)
	w.Header().Set("Retry-After", strconv.FormatInt(int64(seconds), 10))
	t.problem(w, http.StatusServiceUnavailable, code, detail)
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

	status  int    // what the library wanted to answer
	refusal error  // why there is no session
	taken   bool   // there is a session
	early   []byte // what the client sent together with the handshake
}

// Header implements http.ResponseWriter.
func (u *upgrade) Header() http.Header { return u.w.Header() }

// WriteHeader implements http.ResponseWriter. Nothing is written before Hijack.
func (u *upgrade) WriteHeader(status int) { u.status = status }

// Write implements http.ResponseWriter. The library writes the text of a refusal, which we word ourselves.
func (u *upgrade) Write(p []byte) (int, error) { return len(p), nil }

// Hijack implements http.Hijacker: it takes the socket. A connection in the goroutine form gets the smallest buffers that
// bufio has: frames longer than that are read past the buffer, and nothing is written through one.
func (u *upgrade) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c := u.c
	if u.refusal = c.accept(u.r); u.refusal != nil {
		return nil, nil, u.refusal
	}
	u.taken = true
	u.w.WriteHeader(http.StatusSwitchingProtocols)
	nc, brw, err := http.NewResponseController(u.w).Hijack()
	if err != nil {
		return nil, nil, fmt.Errorf("ws: hijack: %w", err)
	}
	if n := brw.Reader.Buffered(); n > 0 {
		b, _ := brw.Reader.Peek(n)
		u.early = append([]byte(nil), b...)
	}
	if p := c.t.poller.Load(); p != nil && c.t.parks(u.r) {
		err := p.Adopt(&c.sock, nc)
		switch {
		case err == nil:
			return nil, nil, errParked
		case !errors.Is(err, errors.ErrUnsupported):
			nc.Close()
			return nil, nil, err
		}
		c.sock.Close(false) // what has no descriptor has a goroutine
	}
	c.thread = &thread{nc: nc, raw: rawOf(nc), early: u.early}
	s := stream{nc, c.t, c.thread}
	return s, bufio.NewReadWriter(bufio.NewReaderSize(s, 16), bufio.NewWriterSize(s, 16)), nil
}

// parks reports whether the connection of a request is to be parked.
func (t *Transport) parks(r *http.Request) bool { return t.Engine() == EngineEpoll && r.TLS == nil }

// reserve makes sure of a descriptor for a connection that is to be parked. The error is a refusal.
func (c *conn) reserve(r *http.Request) error {
	if !c.t.parks(r) {
		return nil
	}
	p, err := c.t.pollerOf()
	if err == nil {
		err = p.Reserve(&c.sock)
	}
	if err == nil {
		return nil
	}
	c.t.noFiles.Do(func() {
		c.t.cfg.Log.Warn("ws: a connection was refused, and so are others without a word here", slog.Any("err", err))
	})
	refusal := push.Errorf(push.KindUnavailable, "overloaded", "this node can hold no more connections")
	refusal.After = time.Second
	return refusal
}

// accept counts the connection, makes sure of its descriptor and asks for a session. In this order: while a connection is
// counted, Close of the transport leaves the poller alone. The error is a refusal.
func (c *conn) accept(r *http.Request) error {
	if !c.t.enter(c) {
		return errClosed
	}
	defer func() {
		if c.session == nil { // refused, or the Acceptor panics, after which net/http goes on
			c.sock.Close(false)
			c.t.leave(c)
		}
	}()
	if err := c.reserve(r); err != nil {
		return err
	}
	s, err := c.t.cfg.Acceptor.Accept(c, transport.Meta{
		Kind:         transport.WebSocket,
		Capabilities: transport.Capabilities{Encoding: wire.JSON, Duplex: true, Close: true},
		Remote:       c.t.cfg.Remote(r),
		UserAgent:    userAgent(r),
	})
	if err != nil {
		return err
	}
	c.session = s
	return nil
}

// finishUnborn ends a connection that had a session before it stood.
func (c *conn) finishUnborn() {
	c.drop(wire.CloseLost)
	c.sock.Close(false)
	c.mu.Lock()
	c.done = true
	c.mu.Unlock()
	c.finish()
}

func userAgent(r *http.Request) string {
	s := r.UserAgent()
	if len(s) > maxUserAgent {
		s = strings.Clone(s[:maxUserAgent])
	}
	return strings.ToValidUTF8(s, "")
}
