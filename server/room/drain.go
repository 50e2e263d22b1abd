package room

import (
	"context"

	"carillon/server/push"
	"carillon/server/wire"
)

// Drain refuses new connections, says goodbye to every client, with a spread over which they come back, and waits until
// all are gone or ctx ends. The room goes on serving those that are left; the end of Run cuts them.
func (r *Room) Drain(ctx context.Context) error {
	r.refuseNew()
	now := r.now()
	for _, s := range r.snapshot() {
		s.mu.Lock()
		s.endAndUnlock(now, wire.CloseGoingAway, "")
	}
	select {
	case <-r.emptied:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// End ends the sessions of a deleted device.
func (r *Room) End(p push.ProductID, u push.UserID, d push.DeviceID) {
	now := r.now()
	for _, s := range r.sessionsOf(nil, p, u) {
		if s.device() == d {
			s.mu.Lock()
			s.endAndUnlock(now, wire.CloseDeleted, "this device was deleted")
		}
	}
}

// Sessions returns what the room knows of a user's live sessions.
func (r *Room) Sessions(p push.ProductID, u push.UserID) []push.LiveSession {
	var live []push.LiveSession
	for _, s := range r.sessionsOf(nil, p, u) {
		if l, ok := s.inspect(); ok {
			live = append(live, l)
		}
	}
	return live
}

func (s *session) inspect() (push.LiveSession, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != open {
		return push.LiveSession{}, false
	}
	l := push.LiveSession{
		Device: s.device(), Platform: s.platform, Class: s.class(), Transport: string(s.kind.name()),
		Room: s.room.cfg.ID, Epoch: s.epoch, Since: s.since, Acked: s.acked,
	}
	for k := range s.slots {
		l.Sent[k] = s.slots[k].at
		if pos := s.queue.first(push.SlotKind(k)); pos > 0 {
			l.Sent[k].Pos = min(l.Sent[k].Pos, pos-1)
		}
	}
	return l, true
}
