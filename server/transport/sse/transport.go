package sse

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/transport/engine"
	"carillon/server/transport/web"
	"carillon/server/wire"
)

// capabilities are what this transport can do.
var capabilities = transport.Capabilities{Encoding: wire.JSON}

// Engine is how connections are held; see package engine.
type Engine = engine.Form

// Config says how to accept connections. Acceptor is required, everything else has a default.
type Config struct {
	Acceptor transport.Acceptor
	Tickets  web.Tickets // nil: there are none

	// Remote returns the client's address, where it is not that of the socket (behind trusted proxies).
	Remote func(*http.Request) netip.AddrPort

	// Grace is how long a client may confirm nothing of what was sent before the kernel gives it up; 0: as long as the
	// system likes. Only Linux can be told.
	Grace time.Duration

	Workers int              // drain workers; default GOMAXPROCS
	Engine  Engine           // how connections are held; by default the best that the system has
	Now     func() time.Time // for the header Date; default time.Now
	Log     *slog.Logger     // failures on our side; default: none
}

// Transport accepts streams and owns their connections. It is an http.Handler; the http.Server in front of it bounds the
// reading of request headers. It is safe for concurrent use.
type Transport struct {
	// Static after construction.
	cfg    Config
	engine *engine.Engine
}

// New returns a running transport. Its goroutines end with [Transport.Close].
func New(cfg Config) (*Transport, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	e, err := engine.New(engine.Config{
		Kind: transport.SSE, Acceptor: cfg.Acceptor, Workers: cfg.Workers, Form: cfg.Engine, UserTimeout: cfg.Grace, Log: cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	return &Transport{cfg: cfg, engine: e}, nil
}

// Engine returns how connections over plain TCP are held.
func (t *Transport) Engine() Engine { return t.engine.Form() }

// Writes returns how many writes to sockets have been made, or tried. Compared with the number of frames it tells how many
// frames leave together.
func (t *Transport) Writes() int64 { return t.engine.Writes() }

// Close refuses new connections and waits until the present ones have ended, which is for their sessions to bring about. When
// ctx ends, it cuts what is left and says so in its error.
func (t *Transport) Close(ctx context.Context) error { return t.engine.Close(ctx) }

// ServeHTTP makes a connection of a request, or answers why not, as application/problem+json. It returns as soon as the
// connection stands.
func (t *Transport) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if p := web.Check(r, http.MethodGet); p != nil {
		p.Write(w)
		return
	}
	request, p := web.Parse(r, t.cfg.Tickets)
	if p != nil {
		p.Write(w)
		return
	}
	c := &conn{head: &head{now: t.cfg.Now, extra: web.ExtraHeaders(w)}}
	if err := t.engine.Accept(c, web.MetaOf(r, transport.SSE, capabilities, t.cfg.Remote), r.TLS == nil); err != nil {
		web.ProblemOf(err).Write(w)
		return
	}
	// Before the connection stands nobody else calls the session, and what it asks for is kept.
	c.Session().Receive(&request.Connect)
	if err := t.engine.Hijack(c, w, nil); err != nil && !errors.Is(err, http.ErrNotSupported) {
		t.cfg.Log.Debug("sse: a connection is lost", slog.Any("err", err))
	} else if err != nil {
		t.cfg.Log.Error("sse: the server in front cannot be hijacked", slog.Any("err", err))
		web.ProblemOf(err).Write(w)
	}
}

// CodeUnexpected is the code of what a client sends after its request.
const CodeUnexpected = "unexpected_bytes"

var errUnexpected = push.Errorf(push.KindInvalid, CodeUnexpected,
	"nothing is sent on this connection after the request; frames go by POST /connect/frames")
