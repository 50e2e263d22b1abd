package ws

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"

	"carillon/server/origin"
	"carillon/server/transport"
	"carillon/server/transport/engine"
)

// Engine is how connections are held, see package engine.
type Engine = engine.Form

// The engines.
const (
	EngineEpoll     = engine.Epoll
	EngineGoroutine = engine.Goroutine
)

// Config says how to accept connections. Acceptor is required, everything else has a default.
type Config struct {
	Acceptor transport.Acceptor

	// Origins lists the pages that may connect, besides those of the host that they connect to, as origin.New has it.
	// Requests without an Origin (not from a browser) are always admitted.
	Origins []string
	origins *origin.Rules // made of them

	// Remote returns the client's address, where it is not that of the socket (behind trusted proxies).
	Remote func(*http.Request) netip.AddrPort

	FirstFrameBytes int // largest first message of a client; default transport.MaxFirstFrame
	FrameBytes      int // largest later one; default transport.MaxFrame
	Workers         int // drain workers; default GOMAXPROCS

	// Engine is by default EngineEpoll where there is an epoll, else EngineGoroutine. To ask for EngineEpoll where there is
	// none is an error.
	Engine Engine

	Log *slog.Logger // handshakes that fail on our side; default: none
}

func (cfg Config) withDefaults() (Config, error) {
	var err error
	if cfg.origins, err = origin.New(cfg.Origins); err != nil {
		return cfg, fmt.Errorf("ws: config: %w", err)
	}
	cfg.FrameBytes = cmp.Or(cfg.FrameBytes, transport.MaxFrame)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return cfg, nil
}

// Transport accepts WebSockets and owns their connections. It is an http.Handler; the http.Server in front of it bounds
// the reading of request headers. It is safe for concurrent use.
type Transport struct {
	// Static after construction.
	cfg    Config
	engine *engine.Engine

	parsers parsers
}

// New returns a running transport. Its goroutines end with [Transport.Close].
func New(cfg Config) (*Transport, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	e, err := engine.New(engine.Config{
		Kind: transport.WebSocket, Acceptor: cfg.Acceptor, FirstFrameBytes: cfg.FirstFrameBytes, FrameBytes: cfg.FrameBytes,
		Workers: cfg.Workers, Form: cfg.Engine, Log: cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	return &Transport{cfg: cfg, engine: e}, nil
}

// Engine returns the engine that the transport runs.
func (t *Transport) Engine() Engine { return t.engine.Form() }

// Writes returns how many writes to sockets have been made, or tried, after handshakes. Compared with the number of frames
// it tells how many frames leave together.
func (t *Transport) Writes() int64 { return t.engine.Writes() }

// Close refuses new connections, waits until the present ones have ended, which is for their sessions to bring about,
// and for every goroutine of the transport. When ctx ends, it cuts what is left and says so in its error; then it still
// waits for the goroutines, which a cut connection does not hold up.
func (t *Transport) Close(ctx context.Context) error {
	err := t.engine.Close(ctx)
	t.parsers.close()
	return err
}
