package redis

import (
	"context"
	"hash/maphash"

	"carillon/server/push"
)

// turn is a mutex that can be waited for with a context, and held while the store is asked.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

func (t turn) lock(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	default:
	}
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return unavailable("wait", ctx.Err())
	}
}

func (t turn) unlock() { <-t }

// turns are those of all users, by a hash: so that of one node one at a time changes the sessions of a user, and only another
// node can have been faster.
type turns [512]turn

func (r *Register) turnOf(p push.ProductID, u push.UserID) turn {
	h := maphash.String(r.seed, string(p))*31 + maphash.String(r.seed, string(u))
	return r.users[h%uint64(len(r.users))]
}
