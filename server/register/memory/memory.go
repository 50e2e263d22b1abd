// Package memory is the register of a single process: everything lives in this process and ends with it.
//
// # How it is kept
//
// Sessions lie in stripes by a hash of product and user, each stripe under its own lock, so that all sessions of a user
// are found and changed together. A room's present boot is a life. A session points at the counts of its life and
// product, and counts exactly as long as that life does: when a lease runs out or another boot joins, nothing is walked,
// the life simply stops counting. What it leaves behind is cleared away a little at each later write.
//
// Numbers are kept, not taken: how many sessions a product has, and whether a room holds anybody of a shard, cost a look
// at each room, however many are online. A session takes 112 bytes and its share of a map; its
// names are the ones that the room keeps.
//
// # Invariants
//
//   - A session is in the chain of its hash and in the list of its life, or in neither; both change under the lock of its
//     stripe, together with the counts.
//   - A life that ended never counts again and takes no more sessions. "Ended" is set before the clearing begins, and an
//     insert looks at it under the lock of the stripe, so that nothing is left in a stripe that was cleared.
//   - Locks are taken in the order: joining, graves, stripe, life. No call is made to anybody else under any of them.
package memory

import (
	"context"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"carillon/server/clock"
	"carillon/server/push"
	"carillon/server/register"
)

// Config says how a register is made. Its zero value is useful.
type Config struct {
	Clock clock.Clock // clock.System if nil
}

// Register is a register.Register, and tells stores who is online as saver.Locator asks it. All methods are safe for concurrent use.
type Register struct {
	// Static after construction.
	clock clock.Clock
	begun time.Time // leases are measured from here, by the clock's monotonic reading where it has one
	hash  func(push.ProductID, push.UserID) uint64

	closed atomic.Bool
	epochs register.Epochs
	lives  atomic.Pointer[table]
	graves graves

	// joining makes changes to the table one at a time; reading it needs no lock.
	joining sync.Mutex

	stripes [stripeCount]stripe
}

// New returns an empty register.
func New(c Config) *Register {
	if c.Clock == nil {
		c.Clock = clock.System
	}
	seed := maphash.MakeSeed()
	r := &Register{clock: c.Clock, begun: c.Clock.Now()}
	r.hash = func(p push.ProductID, u push.UserID) uint64 {
		return maphash.String(seed, string(p))*31 + maphash.String(seed, string(u))
	}
	r.lives.Store(&table{})
	for i := range r.stripes {
		r.stripes[i].chains = make(map[uint64]*entry)
	}
	return r
}

// Count returns how many sessions that count a product has. Its cost is one look at each room.
func (r *Register) Count(ctx context.Context, p push.ProductID) (int, error) {
	if err := r.usable(ctx, "count"); err != nil {
		return 0, err
	}
	now, n := r.now(), int64(0)
	for _, l := range r.lives.Load().list {
		if l.counts(now) {
			if c := l.countsOf(p); c != nil {
				n += c.all.Load()
			}
		}
	}
	return int(n), nil
}

// Close makes every later call fail with KindClosed. The locator methods find nobody then.
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
		return &push.Error{Kind: push.KindUnavailable, Code: "register_unavailable", Detail: "register: " + op, Err: err}
	}
	return nil
}

// now is the time that leases are measured in: since the register was made.
func (r *Register) now() time.Duration { return r.clock.Now().Sub(r.begun) }

var _ register.Register = (*Register)(nil)
