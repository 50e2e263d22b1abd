package longpoll

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/transport/engine"
	"carillon/server/transport/poller"
	"carillon/server/transport/ready"
	"carillon/server/transport/roster"
	"carillon/server/transport/web"
	"carillon/server/wire"
)

// Engine is how connections are held; see package engine.
type Engine = engine.Form

// Config says how to accept polls. Acceptor is required, everything else has a default.
type Config struct {
	Acceptor transport.Acceptor // its sessions are transport.PollSession

	// Tickets redeems the one-time tickets that stand for tokens; nil: there are none.
	Tickets web.Tickets

	// Owner returns whom a token speaks for, or why it does not hold. A poll that shows another token than the one before is
	// taken for a renewal if it is of the same device; without Owner it begins a new session. It may look keys up, and
	// keeps to ctx.
	Owner func(ctx context.Context, token string) (push.CursorOwner, error)

	// Remote returns the client's address, where it is not that of the socket (behind trusted proxies).
	Remote func(*http.Request) netip.AddrPort

	Workers int // default GOMAXPROCS

	// Engine is how polls wait. With engine.Epoll, the default where there is one, they are parked if they come over plain TCP of
	// a [Listener]; all others, and with engine.Goroutine all, wait in their handlers. To ask for engine.Epoll where there is
	// none is an error.
	Engine Engine

	Now func() time.Time // for the date of answers; default time.Now
	Log *slog.Logger     // what fails on our side; default: none
}

func (cfg Config) withDefaults() (Config, error) {
	if cfg.Acceptor == nil {
		return cfg, errors.New("longpoll: config: Acceptor is missing")
	}
	if err := cfg.Engine.Check(); err != nil {
		return cfg, fmt.Errorf("longpoll: config: %w", err)
	}
	if cfg.Workers < 0 {
		return cfg, errors.New("longpoll: config: a limit is negative")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.Workers = cmp.Or(cfg.Workers, runtime.GOMAXPROCS(0))
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return cfg, nil
}

// Transport answers polls and owns their sessions' connections. It is an http.Handler; the http.Server in front of it bounds
// the reading of request headers, and its WriteTimeout, which covers the wait as well, is best above two minutes. It is
// safe for concurrent use.
type Transport struct {
	// Static after construction.
	cfg Config

	live    *roster.Roster[conn] // all, from before Accept to the return of Session.Closed; polls that are not over join them
	ready   *ready.List[conn]
	poller  poller.Lazy    // of parked polls
	noFiles sync.Once      // says that there are no descriptors left
	writes  []atomic.Int64 // of answers: one counter a worker, the last for everybody else
	waiting atomic.Int64   // polls that are parked
	drains  sync.Pool      // of *drain, for handlers
	running sync.WaitGroup // the workers

	mu    sync.Mutex
	known map[push.SessionEpoch]*conn // guarded by mu
}

// New returns a running transport. Its goroutines end with [Transport.Close].
func New(cfg Config) (*Transport, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	t := &Transport{
		cfg:   cfg,
		live:  roster.New(func(c *conn) *roster.Entry[conn] { return &c.entry }),
		ready: ready.New(func(c *conn) *ready.Entry[conn] { return &c.place }),
		known: make(map[push.SessionEpoch]*conn),
	}
	if cfg.Engine == engine.Epoll {
		if err := t.poller.Make(); err != nil {
			return nil, fmt.Errorf("longpoll: engine %s: %w", engine.Epoll, err)
		}
	}
	t.writes = make([]atomic.Int64, cfg.Workers+1)
	t.drains.New = func() any { return newDrain(t.others()) }
	for i := range cfg.Workers {
		t.running.Go(func() { t.work(&t.writes[i]) })
	}
	return t, nil
}

// Engine returns the form in which polls over plain TCP wait.
func (t *Transport) Engine() Engine { return t.cfg.Engine.OrDefault() }

// Writes returns how many writes of answers have been made, or tried.
func (t *Transport) Writes() int64 {
	n := int64(0)
	for i := range t.writes {
		n += t.writes[i].Load()
	}
	return n
}

// others counts the writes of those who are no workers.
func (t *Transport) others() *atomic.Int64 { return &t.writes[len(t.writes)-1] }

// Waiting returns how many polls are parked.
func (t *Transport) Waiting() int64 { return t.waiting.Load() }

// Close refuses new sessions, waits until the present sessions have ended, which is for them to bring about, and for every
// request and goroutine of the transport. When ctx ends, it cuts what is left and says so in its error; then it still waits
// for the rest, which a cut session does not hold up.
func (t *Transport) Close(ctx context.Context) error {
	var err error
	if cut := t.live.Close(ctx, func(c *conn) { c.Cut(wire.CloseGoingAway) }); cut > 0 {
		err = fmt.Errorf("longpoll: close: %d sessions were cut: %w", cut, context.Cause(ctx))
	}
	t.ready.Close()
	t.running.Wait()
	return errors.Join(err, t.poller.Close())
}

// leavePoll is the end of a request.
func (t *Transport) leavePoll(parked bool) {
	if parked {
		t.waiting.Add(-1)
	}
	t.live.Part()
}

// leave is the end of a connection, after its last call.
func (t *Transport) leave(c *conn) {
	c.mu.Lock()
	id := c.id
	c.mu.Unlock()
	t.mu.Lock()
	if t.known[id] == c {
		delete(t.known, id)
	}
	t.mu.Unlock()
	t.live.Leave(c)
}

// enroll lets polls find a session that was welcomed. Numbers are the register's; of two of the same the newer is found.
func (t *Transport) enroll(c *conn) {
	c.mu.Lock()
	id := c.id
	c.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known[id] = c
}

func (t *Transport) lookup(id push.SessionEpoch) *conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.known[id]
}
