package room

import (
	"context"
	"sync"
	"sync/atomic"
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

// removeAll takes sessions out of the register, callsAtOnce side by side, and returns those that may still be there: once one
// fails, nobody else is made to wait for the same.
func (r *Room) removeAll(ctx context.Context, outs []stray) (left []stray, err error) {
	done := make([]bool, len(outs)) // each is one goroutine's
	var failing sync.Once
	var failed atomic.Bool
	var running sync.WaitGroup
	for first := range min(callsAtOnce, len(outs)) {
		running.Go(func() {
			for i := first; i < len(outs) && !failed.Load(); i += callsAtOnce {
				if e := r.remove(ctx, outs[i]); e != nil {
					failed.Store(true)
					failing.Do(func() { err = e })
					return
				}
				done[i] = true
			}
		})
	}
	running.Wait()
	for i, out := range outs {
		if !done[i] {
			left = append(left, out)
		}
	}
	return left, err
}

// removeStrays tries again what remove could not do, while the register answers. It is called by ackLoop alone.
func (r *Room) removeStrays(ctx context.Context) {
	if len(r.strays) == 0 || r.unrenewedFor(r.now(), 2*register.RenewEvery) {
		return
	}
	r.strays, _ = r.removeAll(ctx, r.strays) // it was logged when they left
}
