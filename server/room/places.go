package room

import (
	"context"
	"sync"

	"carillon/server/push"
	"carillon/server/register"
)

// codeProductFull is the code of an error whose product has as many sessions as it may.
const codeProductFull = "product_full"

var errProductFull = push.Errorf(push.KindLimited, codeProductFull, "the product holds as many sessions as it may")

// entrances counts the connects that are between the question how many sessions their product has and the register's answer.
type entrances struct {
	mu sync.Mutex
	n  map[push.ProductID]int // guarded by mu; never zero
}

// enter counts one more and returns how many there are.
func (e *entrances) enter(p push.ProductID) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.n == nil {
		e.n = make(map[push.ProductID]int)
	}
	e.n[p]++
	return e.n[p]
}

func (e *entrances) leave(p push.ProductID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.n[p]--; e.n[p] == 0 {
		delete(e.n, p)
	}
}

// insert registers a session, if its product has a place for it.
//
// Whoever asks counts those of this room who asked before and are not in the register yet, so this room never goes past the
// limit by itself; one that is on its way in may count twice for a moment, and somebody be told to come back who had
// fitted. Rooms do not know who is on the way into another: together they go past it by as many as are just then entering
// the others, which are at most Config.Openers each.
func (r *Room) insert(ctx context.Context, s register.Session, p Policy) (register.Inserted, error) {
	limits := p.Sessions.LimitsOf(s.Platform)
	most := p.Limits.Sessions
	if most == 0 {
		return r.cfg.Register.Insert(ctx, s, limits)
	}
	entering := r.entrances.enter(s.Product)
	defer r.entrances.leave(s.Product)
	n, err := r.cfg.Register.Count(ctx, s.Product)
	if err != nil {
		return register.Inserted{}, err
	}
	if n+entering <= most {
		return r.cfg.Register.Insert(ctx, s, limits)
	}
	return r.insertInstead(ctx, s, limits)
}

// insertInstead registers a session that takes the place of another: of its device's own, or of one that the session policy sends
// off for it. An error that comes with an epoch leaves it in the register, to be taken out when it ends.
func (r *Room) insertInstead(ctx context.Context, s register.Session, limits []push.SessionLimit) (register.Inserted, error) {
	online, err := r.cfg.Register.Lookup(ctx, s.Product, []push.UserID{s.User})
	if err != nil {
		return register.Inserted{}, err
	}
	if len(online[0]) == 0 {
		return register.Inserted{}, errProductFull
	}
	ins, err := r.cfg.Register.Insert(ctx, s, limits)
	if err != nil || len(ins.Replaced) > 0 {
		return ins, err
	}
	if _, err := r.cfg.Register.Remove(ctx, s.Key, ins.Session.Epoch, s.Boot); err != nil {
		return register.Inserted{Session: ins.Session}, err
	}
	return register.Inserted{}, errProductFull
}
