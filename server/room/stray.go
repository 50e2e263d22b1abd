package room

import (
	"context"
	"time"

	"carillon/server/push"
	"carillon/server/register"
)

// stray is a session that ended here and may still be in the register, because that could not be told. While it is there it
// holds a place of its user, which a session policy may refuse to others; so it is tried again for as long as the room has its
// lease. There are never more than sessions that ended since the register was last heard of.
type stray struct {
	key   register.Key
	epoch push.SessionEpoch
}

// removeTimeout is how long taking one session out may take.
const removeTimeout = 5 * time.Second

// remove takes a session out of the register.
func (r *Room) remove(ctx context.Context, s stray) error {
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	_, err := r.cfg.Register.Remove(ctx, s.key, s.epoch, r.cfg.Boot)
	if err != nil {
		r.m.failed("remove")
	}
	return err
}

// removeStrays tries again what remove could not do, while the register answers. It is called by ackLoop alone.
func (r *Room) removeStrays(ctx context.Context) {
	if len(r.strays) == 0 || time.Duration(r.now())-time.Duration(r.renewed.Load()) > 2*register.RenewEvery {
		return
	}
	for i, s := range r.strays {
		if err := r.remove(ctx, s); err != nil {
			r.strays = r.strays[i:]
			return
		}
	}
	r.strays = nil
}
