package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/transport/poller"
	"carillon/server/transport/ready"
	"carillon/server/transport/roster"
	"carillon/server/wire"
)

// Form is how connections are held.
type Form string

const (
	// Epoll parks connections on an epoll: one that is idle holds no goroutine and no buffer. It is for plain TCP on Linux;
	// connections that cannot be parked (TLS in this process) have a goroutine each.
	Epoll Form = "epoll"
	// Goroutine gives each connection a goroutine. It runs everywhere.
	Goroutine Form = "goroutine"
)

// Check returns an error unless f is a form, or "", which is that of this system.
func (f Form) Check() error {
	switch f {
	case "", Epoll, Goroutine:
		return nil
	}
	return fmt.Errorf("the engine is %q, and not %s or %s", f, Epoll, Goroutine)
}

// OrDefault returns f, which for "" is that of this system: Epoll where there is an epoll, else Goroutine.
func (f Form) OrDefault() Form {
	if f == "" && !poller.Supported {
		return Goroutine
	}
	return cmp.Or(f, Epoll)
}

// Config says how to hold connections. Kind and Acceptor are required, everything else has a default.
type Config struct {
	Kind     transport.Kind // of the transport; begins its errors
	Acceptor transport.Acceptor

	FirstFrameBytes int // largest first frame of a client; default transport.MaxFirstFrame
	FrameBytes      int // largest later one; default transport.MaxFrame
	Workers         int // drain workers; default GOMAXPROCS

	// Form is by default Epoll where there is an epoll, else Goroutine. To ask for Epoll where there is none is an error.
	Form Form

	// UserTimeout is after how long the kernel gives up a peer that confirms nothing of what was sent (TCP_USER_TIMEOUT); 0:
	// when the system does. Only Linux can be told.
	UserTimeout time.Duration

	Log *slog.Logger // failures on our side; default: none
}

func (cfg Config) withDefaults() (Config, error) {
	if cfg.Kind == "" {
		return cfg, errors.New("engine: config: Kind is missing")
	}
	if cfg.Acceptor == nil {
		return cfg, fmt.Errorf("%s: config: Acceptor is missing", cfg.Kind)
	}
	if err := cfg.Form.Check(); err != nil {
		return cfg, fmt.Errorf("%s: config: %w", cfg.Kind, err)
	}
	if cfg.FirstFrameBytes < 0 || cfg.FrameBytes < 0 || cfg.Workers < 0 || cfg.UserTimeout < 0 {
		return cfg, fmt.Errorf("%s: config: a limit is negative", cfg.Kind)
	}
	cfg.FirstFrameBytes = cmp.Or(cfg.FirstFrameBytes, transport.MaxFirstFrame)
	cfg.FrameBytes = cmp.Or(cfg.FrameBytes, transport.MaxFrame)
	cfg.Workers = cmp.Or(cfg.Workers, runtime.GOMAXPROCS(0))
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return cfg, nil
}

// Engine drives the connections of one transport. It is safe for concurrent use.
type Engine struct {
	// Static after construction.
	cfg Config

	live    *roster.Roster[Conn] // all connections, from Accept to the return of Session.Closed
	ready   *ready.List[Conn]
	poller  poller.Lazy    // of parked connections
	noFiles sync.Once      // says that there are no descriptors left
	writes  []atomic.Int64 // system calls that wrote: one counter a worker, the last for all others
	drains  sync.Pool      // of *drain, for the goroutines that write and are no workers
	running sync.WaitGroup // every goroutine of ours; added to only while a connection or a worker is counted
}

// New returns a running engine. Its goroutines end with [Engine.Close].
func New(cfg Config) (*Engine, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	e := &Engine{
		cfg:   cfg,
		live:  roster.New(func(c *Conn) *roster.Entry[Conn] { return &c.entry }),
		ready: ready.New(func(c *Conn) *ready.Entry[Conn] { return &c.place }),
	}
	if cfg.Form == Epoll {
		if err := e.poller.Make(); err != nil {
			return nil, fmt.Errorf("%s: engine %s: %w", cfg.Kind, Epoll, err)
		}
	}
	e.writes = make([]atomic.Int64, cfg.Workers+1)
	e.drains.New = func() any { return newDrain(&e.writes[cfg.Workers]) }
	for i := range cfg.Workers {
		e.running.Go(func() { e.work(&e.writes[i]) })
	}
	return e, nil
}

// Form returns the form in which connections over plain TCP are held.
func (e *Engine) Form() Form { return e.cfg.Form.OrDefault() }

// Writes returns how many writes to sockets have been made, or tried. Compared with the number of frames it tells how many
// frames leave together.
func (e *Engine) Writes() int64 {
	n := int64(0)
	for i := range e.writes {
		n += e.writes[i].Load()
	}
	return n
}

// Close refuses new connections, waits until the present ones have ended, which is for their sessions to bring about,
// and for every goroutine of the engine. When ctx ends, it cuts what is left and says so in its error; then it still
// waits for the goroutines, which a cut connection does not hold up.
func (e *Engine) Close(ctx context.Context) error {
	var err error
	if cut := e.live.Close(ctx, func(c *Conn) { c.Cut(wire.CloseGoingAway) }); cut > 0 {
		err = fmt.Errorf("%s: close: %d connections were cut: %w", e.cfg.Kind, cut, context.Cause(ctx))
	}
	e.ready.Close()
	e.running.Wait()
	return errors.Join(err, e.poller.Close())
}

// errClosed is the refusal of an engine that has been closed.
var errClosed = push.Errorf(push.KindUnavailable, "shutting_down", "this node takes no more connections")
