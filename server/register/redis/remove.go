package redis

import (
	"context"
	"slices"

	"carillon/server/planted"
	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/register"
)

// Remove deletes the session if it is still that epoch and boot.
func (r *Register) Remove(ctx context.Context, k register.Key, epoch push.SessionEpoch, boot push.BootID) (bool, error) {
	if err := r.usable(ctx, "remove"); err != nil {
		return false, err
	}
	u, err := r.userOf(ctx, k.Product, k.User)
	if err != nil {
		if push.KindOf(err) == push.KindNotFound {
			return false, nil
		}
		return false, err
	}
	turn := r.turnOf(k.Product, k.User)
	if err := turn.lock(ctx); err != nil {
		return false, err
	}
	defer turn.unlock()
	for try := range tries {
		if err := redisdb.Pause(ctx, try); err != nil {
			return false, unavailable("wait", err)
		}
		removed, done, err := r.tryRemove(ctx, &u, k, epoch, boot)
		if err != nil || done {
			return removed, err
		}
	}
	return false, unavailable("remove", errBusy)
}

// tryRemove reports whether it removed the session, and whether that is so for good: if not somebody else was faster.
func (r *Register) tryRemove(ctx context.Context, u *user, k register.Key, epoch push.SessionEpoch, boot push.BootID) (removed, done bool, err error) {
	was, err := r.readUser(ctx, u, "remove")
	if err != nil {
		return false, false, err
	}
	at := slices.IndexFunc(was.sessions, func(s stored) bool { return s.Device == k.Device })
	if at < 0 {
		return false, true, nil
	}
	s := &was.sessions[at]
	v, err := r.present(ctx)
	if err != nil {
		return false, false, err
	}
	// A session of a life that is not the room's present one does not count, and so is not there: its memory is given back otherwise.
	l := v.find(s.at)
	if l == nil || (s.Epoch != epoch || l.boot != boot) && !planted.Is(planted.RegisterDelete) {
		return false, true, nil
	}
	w := newWrite(ctx, r, u, v, v.now(r), &was)
	w.takesOut(s)
	done, err = w.run("remove")
	return done && l.holds(w.now), done, err
}
