package room

import (
	"context"
	"errors"
	"time"

	"carillon/server/planted"
	"carillon/server/push"
	"carillon/server/register"
	"carillon/server/transport"
	"carillon/server/wire"
)

func (r *Room) self() register.Room {
	return register.Room{ID: r.cfg.ID, Boot: r.cfg.Boot, Addr: r.cfg.Addr}
}

// join takes the lease, trying until ctx ends.
func (r *Room) join(ctx context.Context) error {
	for {
		err := r.cfg.Register.Join(ctx, r.self())
		if err == nil {
			r.noteRenewed()
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.log.Warn("joining the register failed; trying again", "err", err)
		if !r.pause(ctx, register.RenewEvery) {
			return ctx.Err()
		}
	}
}

// pause waits for d or the end of ctx, and reports whether it was d.
func (r *Room) pause(ctx context.Context, d time.Duration) bool {
	over := make(chan struct{})
	t := r.cfg.Clock.AfterFunc(d, func() { close(over) })
	defer t.Stop()
	select {
	case <-over:
		return true
	case <-ctx.Done():
		return false
	}
}

// leaseLoop renews the lease every second and carries out the orders that come with it.
func (r *Room) leaseLoop(ctx context.Context) {
	t := r.cfg.Clock.NewTicker(register.RenewEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			r.renew(ctx)
		}
	}
}

func (r *Room) renew(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, register.ZombieAfter)
	defer cancel()
	orders, err := r.cfg.Register.Renew(ctx, r.cfg.ID, r.cfg.Boot)
	var e *push.Error
	switch {
	case err == nil:
	case errors.As(err, &e) && e.Code == "lease_lost":
		r.log.Warn("the lease was lost; joining again")
		r.m.failed("lease_lost")
		r.back = new(comeback) // whoever was put back before is gone with the lease
	default:
		if ctx.Err() == nil {
			r.m.failed("renew")
			r.log.Warn("renewing the lease failed", "err", err)
		}
		return
	}
	for _, o := range orders {
		r.Evict(o)
	}
	if r.cfg.Obey != nil {
		lost, err := r.cfg.Obey(ctx)
		if err != nil {
			r.m.failed("obey")
			r.log.Warn("what rooms are told could not be read; the lease does not count as renewed", "err", err)
			return
		}
		if lost {
			r.startOver()
		}
	}
	var out []outcast
	if back := r.back; back != nil {
		if err := r.rejoin(ctx, back); err != nil {
			r.log.Warn("joining again is not done yet", "joined", back.joined, "sessions", back.len(), "err", err)
			return
		}
		out, r.back = back.out, nil
	}
	r.noteRenewed()
	for _, o := range out { // not before the room may write, or they would not be told why
		now := r.now()
		o.s.mu.Lock()
		if o.code == wire.CloseLost {
			o.s.passOnAndUnlock()
			continue
		}
		o.s.endAndUnlock(now, o.code, o.detail)
	}
	if r.zombie.Swap(false) {
		now := r.now()
		for _, s := range r.snapshot() { // those whose Take was refused
			s.mu.Lock()
			s.wakeAndUnlock(now, transport.Bulk)
		}
	}
}

// startOver ends every session, for good, of a room that missed what it was told: some of them may have no right to be here, and
// those that have come back at once.
func (r *Room) startOver() {
	r.log.Warn("what this room was told is gone; its sessions begin anew")
	now := r.now()
	for _, s := range r.snapshot() {
		s.mu.Lock()
		s.endAndUnlock(now, wire.CloseInternal, "")
	}
}

// leaveIfClosed has a session leave the register that ended while it was put there: what its end took out was not in yet.
func (s *session) leaveIfClosed() {
	s.mu.Lock()
	gone := s.state == closed
	s.mu.Unlock()
	if gone {
		s.room.leavings.put(leaving{s: s, again: true})
	}
}

// record is the session as the register knows it; false while it has no epoch or once it ends.
func (s *session) record() (register.Session, bool) {
	row := s.room.rowOf(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoch == 0 || s.state >= ending {
		return register.Session{}, false
	}
	return register.Session{
		Key: s.key(), Shard: s.shard.ref.Shard, Platform: s.platform, Class: s.class(), Transport: string(s.kind.name()),
		TokenID: s.tokenID, Room: s.room.cfg.ID, Boot: s.room.cfg.Boot, Epoch: s.epoch, Since: s.since, Row: row,
	}, true
}

// isZombie reports whether the room may not write: its lease was not renewed for register.ZombieAfter, so another node
// may already count its sessions as gone.
func (r *Room) isZombie(now moment) bool {
	if !r.unrenewedFor(now, register.ZombieAfter) {
		return false
	}
	r.zombie.Store(true)
	return true
}

// Evict ends the session that an order names, if this room still holds it.
func (r *Room) Evict(o register.Order) {
	if planted.Is(planted.KickInRegisterOnly) {
		return
	}
	now := r.now()
	for _, s := range r.sessionsOf(nil, o.Product, o.User) {
		s.mu.Lock()
		if s.device() != o.Device || s.epoch == 0 || s.epoch > o.Epoch {
			s.mu.Unlock()
			continue
		}
		if o.Continues(s.epoch) && !planted.Is(planted.ContinuedIsReplaced) {
			s.passOnAndUnlock()
			continue
		}
		why := "the same device connected again"
		if o.By.Device != o.Device {
			why = "another device of this account connected, and the session policy made room for it"
		}
		s.endByAndUnlock(now, wire.CloseReplaced, why, o.By)
	}
}

// evict ends a session that was replaced, wherever it is.
func (r *Room) evict(room push.RoomID, o register.Order) {
	if room == r.cfg.ID {
		r.Evict(o)
	} else if r.cfg.Evict != nil {
		r.cfg.Evict(room, o)
	}
}
