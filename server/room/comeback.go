package room

import (
	"context"
	"sync"

	"carillon/server/planted"
	"carillon/server/push"
	"carillon/server/register"
	"carillon/server/wire"
)

// callsAtOnce is how many of a room's calls to the register are under way side by side where each of many sessions needs one. A
// register on Redis takes a round trip or two for each of them, and packs what is under way together.
const callsAtOnce = 256

// comeback is the way of a room's sessions back into the register, from the loss of its lease until the last one is in again. With
// many sessions it takes several renewals: what was done stays done, as long as the lease that they renew holds. It is owned by
// leaseLoop, which lends its parts to the goroutines of putBack.
type comeback struct {
	joined bool // the lease was taken anew
	// left are those who are not in yet. All sessions of a user are in one part, and so go one after the other: side by side their writes
	// would get in each other's way.
	left [callsAtOnce][]*session

	mu  sync.Mutex
	out []outcast // guarded by mu while there are goroutines
}

// outcast is a session that could not be put back into the register.
type outcast struct {
	s      *session
	code   wire.CloseCode
	detail string
}

// len returns how many sessions are not in yet.
func (b *comeback) len() int {
	n := 0
	for i := range b.left {
		n += len(b.left[i])
	}
	return n
}

// rejoin takes the lease anew and inserts every session again, under the epoch it has, or goes on with that. Once it succeeds, b.out
// are those for which others that came meanwhile left no place, and those whose product is gone.
func (r *Room) rejoin(ctx context.Context, b *comeback) error {
	if !b.joined {
		if err := r.cfg.Register.Join(ctx, r.self()); err != nil {
			return err
		}
		r.held.forget()
		r.joins.Add(1) // before the sessions are looked at: see open
		b.joined = true
		for _, s := range r.snapshot() {
			if rec, ok := s.record(); ok {
				part := &b.left[s.shard.hash(rec.User)%callsAtOnce]
				*part = append(*part, s)
			}
		}
	}
	if err := r.putBack(ctx, b); err != nil {
		return err
	}
	// Publishers found none of these sessions while there was no lease. From here on they do; what came before, heads tell.
	r.missed.Store(!planted.Is(planted.LeaseForgotten))
	return nil
}

// putBack inserts those who are left. A part ends at its first failure, which may be that of everybody.
func (r *Room) putBack(ctx context.Context, b *comeback) error {
	var failing sync.Once
	var failed error
	var running sync.WaitGroup
	for i := range b.left {
		part := &b.left[i]
		if len(*part) == 0 {
			continue
		}
		running.Go(func() {
			for len(*part) > 0 {
				if err := r.putBackOne(ctx, b, (*part)[0]); err != nil {
					failing.Do(func() { failed = err })
					return
				}
				(*part)[0] = nil
				*part = (*part)[1:]
			}
		})
	}
	running.Wait()
	return failed
}

// putBackOne puts one session back, or among the outcasts. An error says that it has to be tried again.
func (r *Room) putBackOne(ctx context.Context, b *comeback, s *session) error {
	rec, ok := s.record()
	if !ok {
		return nil // it ended meanwhile
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	err := r.insertAnew(ctx, s, rec)
	e := asError(err)
	if e == nil || e.Kind != push.KindNotFound && (e.Kind != push.KindConflict || e.Code == "lease_lost") {
		return err
	}
	code, detail := closeFor(err)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.out = append(b.out, outcast{s, code, detail})
	return nil
}

// insertAnew inserts a session once more that was in the register, under the epoch that it has.
func (r *Room) insertAnew(ctx context.Context, s *session, rec register.Session) error {
	policy, err := r.cfg.Policy(ctx, rec.Product)
	if err != nil {
		return err
	}
	ins, err := r.cfg.Register.Insert(ctx, rec, policy.Sessions.LimitsOf(rec.Platform))
	if err != nil {
		return err
	}
	for _, old := range ins.Replaced {
		r.evict(old.Room, register.Order{Key: old.Key, Epoch: old.Epoch, By: ins.Session})
	}
	s.leaveIfClosed()
	return nil
}
