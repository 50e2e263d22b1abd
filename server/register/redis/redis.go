package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"

	"carillon/server/clock"
	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/register"
)

// Config says how a register is made.
type Config struct {
	DB *redisdb.DB // stays open when the register is closed
	// Shards returns how many shards a product has, which never changes; KindNotFound if there is no such product. It is asked once for
	// each product.
	Shards func(context.Context, push.ProductID) (int, error)
	Clock  clock.Clock  // how time passes between two answers of the store; clock.System if nil
	Rand   io.Reader    // of the numbers of lives; crypto/rand if nil
	Log    *slog.Logger // nil: none
}

// Register is a register.Register. All methods are safe for concurrent use.
type Register struct {
	// Static after construction.
	db    *redisdb.DB
	ask   func(context.Context, push.ProductID) (int, error)
	clock clock.Clock
	rand  io.Reader
	log   *slog.Logger
	seed  maphash.Seed

	closed atomic.Bool
	epochs register.Epochs
	shards sync.Map // push.ProductID to int
	users  turns    // whoever changes a user's sessions has the turn of it
	view   atomic.Pointer[view]
	asked  atomic.Uint64 // how many times reading the table of leases was begun
	dead   dead

	// leasing is the turn of whoever reads or changes the table of leases, so that the view goes forward only.
	leasing turn

	mu   sync.Mutex
	book book // guarded by mu
}

var _ register.Register = (*Register)(nil)

// New returns a register over what lies in the database.
func New(c Config) (*Register, error) {
	if c.DB == nil || c.Shards == nil {
		return nil, push.Errorf(push.KindInvalid, "invalid_config", "a register needs a database, and the numbers of shards")
	}
	if c.Clock == nil {
		c.Clock = clock.System
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	r := &Register{
		db: c.DB, ask: c.Shards, clock: c.Clock, rand: c.Rand, log: c.Log, seed: maphash.MakeSeed(),
		leasing: newTurn(), book: newBook(),
	}
	r.view.Store(&view{})
	for i := range r.users {
		r.users[i] = newTurn()
	}
	return r, nil
}

// Close makes every later call fail with KindClosed. The database stays open.
func (r *Register) Close() error {
	r.closed.Store(true)
	return nil
}

// usable returns why a call cannot take place, nil if it can.
func (r *Register) usable(ctx context.Context, op string) error {
	if r.closed.Load() {
		return &push.Error{Kind: push.KindClosed, Code: "register_closed", Detail: "register: " + op}
	}
	if err := ctx.Err(); err != nil {
		return unavailable(op, err)
	}
	return nil
}

func unavailable(op string, err error) error {
	return &push.Error{Kind: push.KindUnavailable, Code: "register_unavailable", Detail: "register: " + op, Err: err}
}

// failed returns an error of the database as one of the register.
func failed(op string, err error) error {
	var e *push.Error
	switch {
	case !errors.As(err, &e):
		return unavailable(op, err)
	case e.Kind == push.KindClosed:
		return &push.Error{Kind: push.KindClosed, Code: "register_closed", Detail: "register: " + op, Err: err}
	}
	return fmt.Errorf("register: %s: %w", op, err)
}

func leaseLost(op string) error {
	return push.Errorf(push.KindConflict, "lease_lost", "register: %s: the room has no lease under this boot", op)
}

// errBusy is why a change was given up that others were always faster than.
var errBusy = errors.New("others keep changing what was read")

// shardsOf returns the number of shards of a product.
func (r *Register) shardsOf(ctx context.Context, p push.ProductID) (int, error) {
	if n, ok := r.shards.Load(p); ok {
		return n.(int), nil
	}
	n, err := r.ask(ctx, p)
	if err != nil {
		return 0, err
	}
	if n < 1 {
		return 0, push.Errorf(push.KindInternal, "register_damaged", "register: a product has %d shards", n)
	}
	r.shards.Store(p, n)
	return n, nil
}
