package ws

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"path"
	"runtime"
	"sync"
	"sync/atomic"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/transport/poller"
	"carillon/server/wire"
)

// Engine is how connections are held.
type Engine string

const (
	// EngineEpoll parks connections on an epoll: one that is idle holds no goroutine and no buffer. It is for plain TCP on
	// Linux; connections that cannot be parked (TLS in this process) have a goroutine each.
	EngineEpoll Engine = "epoll"
	// EngineGoroutine gives each connection a goroutine. It runs everywhere.
	EngineGoroutine Engine = "goroutine"
)

// Config says how to accept connections. Acceptor is required, everything else has a default.
type Config struct {
	Acceptor transport.Acceptor

	// Origins lists the hosts whose pages may connect, besides the host that they connect to: patterns of path.Match,
	// without regard to case, against the host of the Origin header, or against "scheme://host" where the pattern holds
	// "://". "*" admits every page. Requests without an Origin (not from a browser) are always admitted.
	Origins []string

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
	if cfg.Acceptor == nil {
		return cfg, errors.New("ws: config: Acceptor is missing")
	}
	for _, p := range cfg.Origins {
		if _, err := path.Match(p, ""); err != nil {
			return cfg, fmt.Errorf("ws: config: origin pattern %q: %w", p, err)
		}
	}
	switch cfg.Engine {
	case "", EngineEpoll, EngineGoroutine:
	default:
		return cfg, fmt.Errorf("ws: config: the engine is %q, and not %s or %s", cfg.Engine, EngineEpoll, EngineGoroutine)
	}
	if cfg.FirstFrameBytes < 0 || cfg.FrameBytes < 0 || cfg.Workers < 0 {
		return cfg, errors.New("ws: config: a limit is negative")
	}
	if cfg.Remote == nil {
		cfg.Remote = socketAddr
	}
	if cfg.FirstFrameBytes == 0 {
		cfg.FirstFrameBytes = transport.MaxFirstFrame
	}
	if cfg.FrameBytes == 0 {
		cfg.FrameBytes = transport.MaxFrame
	}
	if cfg.Workers == 0 {
		cfg.Workers = runtime.GOMAXPROCS(0)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return cfg, nil
}

func socketAddr(r *http.Request) netip.AddrPort {
	a, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// Transport accepts WebSockets and owns their connections. It is an http.Handler; the http.Server in front of it bounds
// the reading of request headers. It is safe for concurrent use.
type Transport struct {
	// Static after construction.
	cfg Config

	ready   readyList
	parkMu  sync.Mutex                    // held while poller is made or closed
	poller  atomic.Pointer[poller.Poller] // of parked connections; nil before the first one
	noFiles sync.Once                     // says that there are no descriptors left
	parsers parsers
	writes  []atomic.Int64 // system calls that wrote: one counter a worker, the last for all who wait
	drains  sync.Pool      // of *drain, for the goroutines that write by waiting
	buffers sync.Pool      // of *[]byte, for the message that is being read
	running sync.WaitGroup // every goroutine of ours; added to only while a connection or a worker is counted

	mu sync.Mutex
	// Guarded by mu.
	closed bool
	live   *conn // all connections, from the handshake to the return of Session.Closed
	count  int
	empty  chan struct{} // closed by whoever finds, after closed was set, that count is 0
}

// New returns a running transport. Its goroutines end with [Transport.Close].
func New(cfg Config) (*Transport, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	t := &Transport{cfg: cfg, empty: make(chan struct{})}
	if cfg.Engine == EngineEpoll {
		if _, err := t.pollerOf(); err != nil {
			return nil, fmt.Errorf("ws: engine %s: %w", EngineEpoll, err)
		}
	}
	t.ready.init()
	t.writes = make([]atomic.Int64, cfg.Workers+1)
	t.drains.New = func() any { return newDrain(&t.writes[cfg.Workers]) }
	t.buffers.New = func() any { b := make([]byte, 0, 1<<10); return &b }
	for i := range cfg.Workers {
		t.running.Go(func() { t.work(&t.writes[i]) })
	}
	return t, nil
}

// Engine returns the engine that the transport runs.
func (t *Transport) Engine() Engine {
	if t.cfg.Engine == "" && !poller.Supported {
		return EngineGoroutine
	}
	return cmp.Or(t.cfg.Engine, EngineEpoll)
}

// pollerOf returns the poller of parked connections, and makes it for the first one.
func (t *Transport) pollerOf() (*poller.Poller, error) {
	if p := t.poller.Load(); p != nil {
		return p, nil
	}
	t.parkMu.Lock()
	defer t.parkMu.Unlock()
	if p := t.poller.Load(); p != nil {
		return p, nil
	}
	p, err := poller.New(0)
	if err != nil {
		return nil, err // the next connection tries again
	}
	t.poller.Store(p)
	return p, nil
}

// Writes returns how many writes to sockets have been made, or tried, after handshakes. Compared with the number of frames
// it tells how many frames leave together.
func (t *Transport) Writes() int64 {
	n := int64(0)
	for i := range t.writes {
		n += t.writes[i].Load()
	}
	return n
}

// Close refuses new connections, waits until the present ones have ended, which is for their sessions to bring about,
// and for every goroutine of the transport. When ctx ends, it cuts what is left and says so in its error; then it still
// waits for the goroutines, which a cut connection does not hold up.
func (t *Transport) Close(ctx context.Context) error {
	t.mu.Lock()
	if !t.closed {
		t.closed = true
		if t.count == 0 {
			close(t.empty)
		}
	}
	t.mu.Unlock()

	var err error
	select {
	case <-t.empty:
	case <-ctx.Done():
		left := t.connections()
		for _, c := range left {
			c.Cut(wire.CloseGoingAway)
		}
		if len(left) > 0 {
			err = fmt.Errorf("ws: close: %d connections were cut: %w", len(left), context.Cause(ctx))
		}
		<-t.empty
	}
	t.ready.close()
	t.running.Wait()
	t.parkMu.Lock()
	if p := t.poller.Swap(nil); p != nil {
		err = errors.Join(err, p.Close())
	}
	t.parkMu.Unlock()
	t.parsers.close()
	return err
}

// enter counts a new connection; false once the transport is closed.
func (t *Transport) enter(c *conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.count++
	c.after = t.live
	if t.live != nil {
		t.live.before = c
	}
	t.live = c
	return true
}

// leave is the opposite of enter, after the connection's last call.
func (t *Transport) leave(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.before != nil {
		c.before.after = c.after
	} else {
		t.live = c.after
	}
	if c.after != nil {
		c.after.before = c.before
	}
	c.before, c.after = nil, nil
	if t.count--; t.count == 0 && t.closed {
		close(t.empty)
	}
}

func (t *Transport) connections() []*conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	cs := make([]*conn, 0, t.count)
	for c := t.live; c != nil; c = c.after {
		cs = append(cs, c)
	}
	return cs
}

// errClosed is the refusal of a transport that has been closed.
var errClosed = push.Errorf(push.KindUnavailable, "shutting_down", "this node takes no more connections")
