package room

import (
	"context"
	"time"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/wire"
)

// Goodbye is what a room that goes away tells its clients.
type Goodbye struct {
	Spread    time.Duration             // each is told another delay below it: 5 s
	Addresses map[transport.Kind]string // where to come back, by transport; none: where they were
}

// goawaySpread is over how long clients come back that are sent away one by one.
const goawaySpread = 5 * time.Second

// fullSpread is over how long clients come back whose product is full: a place is free when somebody has left, and each look
// costs a whole connect.
const fullSpread = 30 * time.Second

// goaway is the last frame to a client that is to come back later.
func (r *Room) goaway(code wire.CloseCode, kind transport.Kind) *wire.Goaway {
	g := Goodbye{Spread: goawaySpread}
	least := time.Duration(0)
	switch code {
	case wire.CloseGoingAway:
		g = *r.goodbye.Load()
	case wire.CloseProductFull:
		least, g.Spread = fullSpread/2, fullSpread/2
	}
	delay := least + r.jitter(g.Spread)
	return &wire.Goaway{
		Code: code, Reason: code.String(), DelayMillis: uint32(delay.Milliseconds()), Address: g.Addresses[kind],
	}
}

// SetGoodbye takes the place of Config.Goodbye for those who are sent away from now on. What it leaves out stays as configured;
// Addresses that are empty and not nil send everybody back to where they were.
func (r *Room) SetGoodbye(g Goodbye) {
	if g.Spread <= 0 {
		g.Spread = r.cfg.Goodbye.Spread
	}
	if g.Addresses == nil {
		g.Addresses = r.cfg.Goodbye.Addresses
	}
	r.goodbye.Store(&g)
}

// Drain refuses new connections, says goodbye to every client as Config.Goodbye or SetGoodbye has it, and waits until all are gone or ctx
// ends. The room goes on serving those that are left; the end of Run cuts them.
func (r *Room) Drain(ctx context.Context) error {
	r.refuseNew()
	now := r.now()
	for _, s := range r.snapshot() {
		s.mu.Lock()
		if s.state == ending {
			// One that polls may be waiting long for its next poll, to hear why it was kicked. A node that goes has no such time.
			patience := r.cfg.CloseTimeout
			if s.manner == polls && s.held == 0 {
				patience = r.goingPatience()
			}
			if soon := now.add(patience); soon < s.deadline {
				s.deadline = soon
				r.wheel.arm(s, soon)
			}
		}
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
		Room: s.room.cfg.ID, Epoch: s.epoch, Since: s.since, Tags: s.effectiveTagsLocked(),
	}
	for k := range s.slots {
		l.Sent[k] = s.slots[k].at
		if s.slots[k].told {
			l.Acked[k] = s.acked[k]
		}
		if pos := s.queue.first(push.SlotKind(k)); pos > 0 {
			l.Sent[k].Pos = min(l.Sent[k].Pos, pos-1)
		}
	}
	return l, true
}
