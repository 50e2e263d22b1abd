package memory

import (
	"context"

	"carillon/server/planted"
	"carillon/server/push"
	"carillon/server/register"
)

// Insert registers a session. KindConflict, code "lease_lost": the session's room has no lease under its boot.
func (r *Register) Insert(ctx context.Context, s register.Session) (register.Inserted, error) {
	var in register.Inserted
	if err := r.usable(ctx, "insert"); err != nil {
		return in, err
	}
	if err := check(&s); err != nil {
		return in, &push.Error{Kind: push.KindInvalid, Code: "bad_session", Detail: "register: insert: " + err.Error()}
	}
	r.clear(clearAtInsert)
	l := r.lives.Load().lifeOf(s.Room, s.Boot)
	if l == nil {
		return in, leaseLost("insert")
	}
	old, err := r.put(l, &s)
	if err != nil {
		return in, err
	}
	in.Session = s
	if old != nil {
		// The order is left after the session was replaced and never before: a room that obeys it finds the newer epoch.
		was := old.session()
		old.counts.life.order(register.Order{Key: was.Key, Epoch: was.Epoch, By: s})
		if old.counts.life.counts(r.now()) {
			in.Replaced = []register.Session{was}
		}
	}
	return in, nil
}

// put places the session, gives it its epoch if it has none, and returns the entry of another session whose place it
// took.
func (r *Register) put(l *life, s *register.Session) (old *entry, err error) {
	h := r.hash(s.Product, s.User)
	st, i := r.stripeOf(h)
	st.mu.Lock()
	defer st.mu.Unlock()
	if !l.counts(r.now()) {
		return nil, leaseLost("insert")
	}
	old = st.findLocked(h, &s.Key)
	if s.Epoch == 0 {
		s.Epoch = r.nextEpoch()
	} else {
		if old != nil && old.epoch > s.Epoch && old.counts.life.counts(r.now()) {
			return nil, push.Errorf(push.KindConflict, "replaced", "register: insert: a newer session has taken its place")
		}
		r.noteEpoch(s.Epoch)
	}
	if old != nil {
		st.unlinkLocked(h, i, old)
		if old.counts.life == l && old.epoch == s.Epoch {
			old = nil // the same session once more replaces nobody
		}
	}
	st.linkLocked(h, i, newEntry(s, l.needCounts(s.Product)))
	return old, nil
}

func check(s *register.Session) error {
	if err := s.Product.Check(); err != nil {
		return err
	}
	if err := s.User.Check(); err != nil {
		return err
	}
	return s.Device.Check()
}

// Remove deletes the session if it is still that epoch and boot.
func (r *Register) Remove(ctx context.Context, k register.Key, epoch push.SessionEpoch, boot push.BootID) (bool, error) {
	if err := r.usable(ctx, "remove"); err != nil {
		return false, err
	}
	r.clear(clearAtInsert)
	h := r.hash(k.Product, k.User)
	st, i := r.stripeOf(h)
	st.mu.Lock()
	defer st.mu.Unlock()
	e := st.findLocked(h, &k)
	if e == nil || (e.epoch != epoch || e.counts.life.boot != boot) && !planted.Is(planted.RegisterDelete) {
		return false, nil
	}
	st.unlinkLocked(h, i, e)
	return e.counts.life.counts(r.now()), nil
}

// Lookup returns the sessions of each user that count.
func (r *Register) Lookup(ctx context.Context, p push.ProductID, users []push.UserID) ([][]register.Session, error) {
	if err := r.usable(ctx, "lookup"); err != nil {
		return nil, err
	}
	found := make([][]register.Session, len(users))
	for i, u := range users {
		r.each(p, u, func(e *entry) { found[i] = append(found[i], e.session()) })
	}
	return found, nil
}

// each calls f, under a lock, for every session of a user that counts.
func (r *Register) each(p push.ProductID, u push.UserID, f func(*entry)) {
	now := r.now()
	h := r.hash(p, u)
	st, _ := r.stripeOf(h)
	st.mu.Lock()
	defer st.mu.Unlock()
	for e := st.chains[h]; e != nil; e = e.chain {
		if e.isOf(p, u) && e.counts.life.counts(now) {
			f(e)
		}
	}
}
