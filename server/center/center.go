package center

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"carillon/server/auth"
	"carillon/server/catalog"
	"carillon/server/clock"
	"carillon/server/push"
	"carillon/server/register"
	"carillon/server/saver"
	"carillon/server/task"
)

// Drain is how the sessions of a node are sent away.
type Drain struct {
	Spread  time.Duration // over how long they come back; 0: as configured
	Address *string       // origin of where they come back, empty: where they were; nil: as configured
}

// Config is what a center is made of. Saver, Register, Rooms, Catalog, Tasks, Keys, IDs, Holder, Secret and Rand are needed.
type Config struct {
	Saver    saver.Store
	Register register.Register
	Rooms    push.Rooms
	Catalog  Catalog
	Tasks    task.Store
	Keys     Keys
	IDs      IDs
	Holder   string // names this life of this center in the leases of tasks; of its node and random
	Secret   string // the bearer of the admin interface

	Backup func(ctx context.Context, directory string) error // nil: not supported by the store
	Drain  func(ctx context.Context, d Drain) error          // begins to drain, does not wait; nil: no sessions here

	Rand    io.Reader // of request ids and secrets, safe for concurrent use; crypto/rand.Reader outside tests
	Clock   clock.Clock
	Log     *slog.Logger
	Metrics prometheus.Registerer // nil: nothing is measured
	Limits  Limits
}

// Catalog is the catalog with the look-up that costs nothing; *catalog.Cache is one.
type Catalog interface {
	catalog.Catalog
	LookupProduct(ctx context.Context, id push.ProductID) (*catalog.Product, error)
}

// Keys judges the Authorization header of a product server; *auth.APIKeys does.
type Keys interface {
	Check(ctx context.Context, authorization string) (auth.Principal, error)
}

// IDs gives message ids; idgenerator's generator does.
type IDs interface {
	Next(ctx context.Context) (push.MsgID, error)
}

// Limits of requests. A zero field means its default.
type Limits struct {
	Request       int           // bytes of the body of a single publish, or of an admin request; 256 KiB
	Batch         int           // bytes of the body of a batch; 8 MiB
	Items         int           // messages of a batch; 500
	Targets       int           // users, or devices, that a message names; 1 000
	BatchTargets  int           // users that all messages of a batch name together; 10 000
	SmallAudience int           // users that an audience by tags has at most if they are settled when the message is sent; 10 000; below 0: none is
	BodyDepth     int           // levels that a message's JSON body nests; 60
	InFlight      int           // requests of one product under way in this process; 256
	Streams       int           // answers that go on and on, of one product, in this process; 64
	StoreDeadline time.Duration // how long a write to the store may take; 10 s
}

func (l Limits) withDefaults() Limits {
	def(&l.Request, 256<<10)
	def(&l.Batch, 8<<20)
	def(&l.Items, 500)
	def(&l.Targets, 1000)
	def(&l.BatchTargets, 10000)
	def(&l.SmallAudience, 10000)
	def(&l.BodyDepth, 60)
	def(&l.InFlight, 256)
	def(&l.Streams, 64)
	def(&l.StoreDeadline, 10*time.Second)
	return l
}

func def[T ~int | ~int64](p *T, v T) {
	if *p == 0 {
		*p = v
	}
}

// Center serves the REST interface, and runs tasks while RunTasks is called. It is safe for concurrent use, owns no goroutine apart from that, and holds
// nothing that has to be closed: whoever made its stores closes them.
type Center struct {
	// Static after construction.
	cfg     Config
	limits  Limits
	metrics *metrics
	booted  string // random, the first part of request ids

	requests atomic.Uint64 // request ids made so far
	runner   runner
	ending   chan struct{} // closed by EndStreams
	ended    sync.Once
	uploads  gate
	inFlight sync.Map // push.ProductID to *atomic.Int64; products are few and never go
	streams  sync.Map // the same, of answers that go on and on
}

// New returns a center. It registers its metrics with Config.Metrics.
func New(cfg Config) (*Center, error) {
	for _, missing := range []struct {
		is   bool
		what string
	}{
		{cfg.Saver == nil, "Saver"}, {cfg.Register == nil, "Register"}, {cfg.Rooms == nil, "Rooms"},
		{cfg.Catalog == nil, "Catalog"}, {cfg.Tasks == nil, "Tasks"}, {cfg.Holder == "", "Holder"}, {cfg.Keys == nil, "Keys"}, {cfg.IDs == nil, "IDs"},
		{cfg.Secret == "", "Secret"}, {cfg.Rand == nil, "Rand"},
	} {
		if missing.is {
			return nil, errors.New("center: Config." + missing.what + " is missing")
		}
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Center{cfg: cfg, limits: cfg.Limits.withDefaults(), ending: make(chan struct{})}
	c.runner = runner{wake: make(chan struct{}, 1), running: make(map[task.Ref]bool)}
	var err error
	if c.metrics, err = newMetrics(cfg.Metrics); err != nil {
		return nil, err
	}
	if c.booted, err = randomHex(cfg.Rand, 6); err != nil {
		return nil, err
	}
	return c, nil
}

// finishing returns the context of a change that was begun: it outlives its caller, by no more than the store's deadline.
func (c *Center) finishing(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), c.limits.StoreDeadline)
}

// EndStreams ends the answers that go on and on, for a server that is to be shut down. Those that come after it end at once.
func (c *Center) EndStreams() { c.ended.Do(func() { close(c.ending) }) }

// Public returns the handler of /v1, for the public listener. It routes by the whole path of the request, wherever it is
// mounted: nothing may strip it.
func (c *Center) Public() http.Handler { return c.publicRouter() }

// Admin returns the handler of /admin/v1, for the admin listener.
func (c *Center) Admin() http.Handler { return c.adminRouter() }
