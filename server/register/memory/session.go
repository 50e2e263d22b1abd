package memory

import (
	"context"
	"time"

	"carillon/server/planted"
	"carillon/server/push"
	"carillon/server/register"
)

// Insert registers a session. KindConflict: "lease_lost", "replaced" or "session_limit", see the contract.
func (r *Register) Insert(ctx context.Context, s register.Session, limits []push.SessionLimit) (register.Inserted, error) {
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
	old, gone, err := r.put(l, &s, limits)
	if err != nil {
		return in, err
	}
	in.Session = s
	if old != nil {
		r.dismiss(old, &in)
	}
	for _, e := range gone {
		r.dismiss(e, &in)
	}
	return in, nil
}

// dismiss leaves the order for a session that was taken out for the inserted one. That is after it was taken out and never
// before: a room that obeys the order finds who is there instead.
func (r *Register) dismiss(e *entry, in *register.Inserted) {
	was := e.session()
	e.counts.life.order(register.Order{Key: was.Key, Epoch: was.Epoch, By: in.Session})
	if e.counts.life.counts(r.now()) {
		in.Replaced = append(in.Replaced, was)
	}
}

// put places the session, gives it its epoch if it has none, and returns the entry of another session whose place it took,
// and those of others of its user that the limits sent off.
func (r *Register) put(l *life, s *register.Session, limits []push.SessionLimit) (old *entry, gone []*entry, err error) {
	h := r.hash(s.Product, s.User)
	st, i := r.stripeOf(h)
	st.mu.Lock()
	defer st.mu.Unlock()
	now := r.now()
	if !l.counts(now) {
		return nil, nil, leaseLost("insert")
	}
	old = st.findLocked(h, &s.Key)
	var own *register.Seat
	if old != nil && old.counts.life.counts(now) {
		own = &register.Seat{Epoch: old.epoch, Row: old.traits.Value().row}
	}
	row, err := register.Succeed(register.Seat{Epoch: s.Epoch, Row: s.Row}, own)
	if err != nil {
		return nil, nil, err
	}
	if len(limits) > 0 {
		if gone, err = st.admitLocked(h, s, limits, now); err != nil {
			return nil, nil, err
		}
	}
	if s.Epoch == 0 {
		s.Epoch = r.epochs.Next(s.Row, push.Milli(r.clock.Now()))
	} else {
		r.epochs.See(s.Epoch)
	}
	s.Row = row
	if row >= s.Epoch {
		s.Row = 0
	}
	if old != nil {
		st.unlinkLocked(h, i, old)
		if old.counts.life == l && old.epoch == s.Epoch {
			old = nil // the same session once more replaces nobody
		}
	}
	for _, e := range gone {
		st.unlinkLocked(h, i, e)
	}
	st.linkLocked(h, i, newEntry(s, l.needCounts(s.Product)))
	return old, gone, nil
}

// usualSessions is how many sessions of a user a decision is made about without memory of the heap.
const usualSessions = 16

// admitLocked asks the limits whether the session may come in, and returns the entries that have to go for it. Its cost is a
// look at each session of the user.
func (st *stripe) admitLocked(h uint64, s *register.Session, limits []push.SessionLimit, now time.Duration) (
	gone []*entry, err error,
) {
	var seatsHere [usualSessions]register.Seat
	var entriesHere [usualSessions]*entry
	others, entries := seatsHere[:0], entriesHere[:0]
	var device register.Seat
	var own *register.Seat
	for e := st.chains[h]; e != nil; e = e.chain {
		if !e.isOf(s.Product, s.User) || !e.counts.life.counts(now) ||
			planted.Is(planted.PlacesByRoom) && e.counts.life.id != s.Room {
			continue
		}
		seat := register.Seat{Device: e.device, Platform: e.traits.Value().platform, Epoch: e.epoch}
		if e.device == s.Device {
			device, own = seat, &device
			continue
		}
		others, entries = append(others, seat), append(entries, e)
	}
	newcomer := register.Seat{Device: s.Device, Platform: s.Platform, Epoch: s.Epoch}
	if err := register.Admit(newcomer, own, others, limits); err != nil {
		return nil, err
	}
	for i := range others {
		if others[i].Goes {
			gone = append(gone, entries[i])
		}
	}
	return gone, nil
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

// Lookup returns where each user is.
func (r *Register) Lookup(ctx context.Context, p push.ProductID, users []push.UserID) ([][]register.Found, error) {
	if err := r.usable(ctx, "lookup"); err != nil {
		return nil, err
	}
	found := make([][]register.Found, len(users))
	var all []register.Found // those of several users lie in one piece of memory
	for i, u := range users {
		from := len(all)
		r.each(p, u, func(e *entry) {
			if len(all) == cap(all) { // what was found before stays where it is
				room := make([]register.Found, 0, len(all)-from+min(len(users)-i, 256))
				all, from = append(room, all[from:]...), 0
			}
			all = append(all, register.Found{Room: e.counts.life.id, Device: e.device, Epoch: e.epoch})
		})
		if len(all) > from {
			found[i] = all[from:len(all):len(all)]
		}
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
