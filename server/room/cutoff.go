package room

import (
	"context"
	"time"

	"carillon/server/push"
	"carillon/server/register"
	"carillon/server/wire"
)

// A room that cannot renew its lease writes nothing after register.ZombieAfter, and keeps its sessions: most of the time the store is
// away for a moment, and for everybody. Clients that were sent away then would come to rooms that can do no more for them. So
// the room asks first. After Config.CutOffAfter it has other rooms asked whether they hold their leases. Once one of them does, it
// is this room that is cut off: it says goodbye to its clients and takes no others until it has its lease again. Until one says so, it
// keeps them, however long that takes.
//
// The goodbye is the one thing that such a room writes (see session.Take). It carries no message and no cursor, so there is nothing in
// it that the store might know better.

// askEvery is how often a room that has no lease has others asked, once its time is over.
const askEvery = 2 * time.Second

// cutLoop watches whether the room is cut off. It is another goroutine than that which renews the lease, since others may be
// slow to answer.
func (r *Room) cutLoop(ctx context.Context) {
	t := r.cfg.Clock.NewTicker(min(askEvery, r.cfg.CutOffAfter))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			r.judgeCutOff(ctx)
		}
	}
}

// judgeCutOff sends everybody elsewhere if the room has no lease, and another one does.
func (r *Room) judgeCutOff(ctx context.Context) {
	if !r.unrenewedFor(r.now(), r.cfg.CutOffAfter) || r.isCutOff() {
		return
	}
	elsewhere := r.cfg.Elsewhere(ctx)
	if ctx.Err() != nil {
		return
	}
	r.m.asked(elsewhere)
	if !elsewhere || !r.noteCutOff() {
		return
	}
	ss := r.snapshot()
	r.log.Warn("this room cannot renew its lease and another one can; sending the clients away", "clients", len(ss))
	now := r.now()
	for _, s := range ss {
		s.mu.Lock()
		s.endAndUnlock(now, wire.CloseGoingAway, "")
	}
}

// unrenewedFor reports whether the last good renewal is longer ago than that.
func (r *Room) unrenewedFor(now moment, d time.Duration) bool {
	return int64(now)-r.renewed.Load() > int64(d)
}

func (r *Room) isCutOff() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cutOff
}

// noteCutOff has Accept refuse everybody from now on; false if the lease was renewed meanwhile, or the room goes away anyhow.
func (r *Room) noteCutOff() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.draining || !r.unrenewedFor(r.now(), r.cfg.CutOffAfter) {
		return false
	}
	r.cutOff = true
	r.m.cutOff.Set(1)
	return true
}

// noteRenewed notes that the room has its lease from now on for a while.
func (r *Room) noteRenewed() {
	r.mu.Lock()
	r.renewed.Store(int64(r.now()))
	was := r.cutOff
	r.cutOff = false
	if was {
		r.m.cutOff.Set(0)
	}
	r.mu.Unlock()
	if was {
		r.log.Info("this room has its lease again and takes clients")
	}
}

// Alive reports whether the room holds its lease, which it could not without the store, and takes clients.
func (r *Room) Alive() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.draining && !r.cutOff && !r.unrenewedFor(r.now(), register.ZombieAfter)
}

// refusalLocked is why the room takes nobody now, nil if it does.
func (r *Room) refusalLocked() error {
	switch {
	case r.draining:
		return &push.Error{Kind: push.KindUnavailable, Code: "draining", Detail: "this node is going away", After: time.Second}
	case r.cutOff:
		return &push.Error{
			Kind: push.KindUnavailable, Code: "cut_off", Detail: "this node cannot do its work now, and another one can", After: time.Second,
		}
	}
	return nil
}
