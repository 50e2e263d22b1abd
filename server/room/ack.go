package room

import (
	"context"
	"sync"
	"time"

	"carillon/server/failpoint"
	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/wire"
)

// ackLocked takes an acknowledgement. It moves this session's idea of what was acknowledged, never beyond what it was sent;
// the store hears of it with the next batch. A cursor that is another's or unreadable is passed over and counted.
func (s *session) ackLocked(f *wire.Ack) {
	owner, c, err := push.ParseCursor(f.Cursor)
	if err != nil || owner != s.owner || s.state < open {
		s.room.m.refused("foreign_cursor")
		return
	}
	for k, p := range c {
		at := &s.slots[k].at
		if p.IsZero() || p.Epoch != at.Epoch {
			continue
		}
		if p.Lineage == at.Lineage {
			p.Pos = min(p.Pos, at.Pos)
		} // otherwise the store lowers it to what that lineage still says
		old := s.acked[k]
		if s.slots[k].told && old.Epoch == p.Epoch && old.Lineage == p.Lineage && old.Pos >= p.Pos {
			continue
		}
		s.acked[k], s.slots[k].unwritten, s.slots[k].told = p, true, true
		s.room.acks.note(s, push.SlotKind(k))
	}
}

// ackBook holds the sessions whose acknowledgements are not written yet, by slot: the own slot is written soon, since it
// frees memory, the common one seldom, since everybody's moves with every broadcast. Lists and a mark in the session stand in
// place of maps, which would keep the memory of the largest broadcast for ever.
type ackBook struct {
	mu    sync.Mutex
	dirty [2][]*session // each session that is noted, once
}

func (b *ackBook) note(s *session, k push.SlotKind) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !s.noted[k] {
		s.noted[k] = true
		b.dirty[k] = append(b.dirty[k], s)
	}
}

// collect takes the sessions to be written now. Those of the own slot have their common place written along, so of a session
// that is in both lists nothing may be left when its turn comes in the second.
func (b *ackBook) collect(common bool) []*session {
	b.mu.Lock()
	defer b.mu.Unlock()
	ss := b.takeLocked(push.Own)
	if common {
		ss = append(ss, b.takeLocked(push.Common)...)
	}
	return ss
}

func (b *ackBook) takeLocked(k push.SlotKind) []*session {
	ss := b.dirty[k]
	b.dirty[k] = nil
	for _, s := range ss {
		s.noted[k] = false
	}
	return ss
}

// leaving is a session that ended.
type leaving struct {
	s     *session
	again bool // all but the register was told before
}

const maxAcks = 512 // acknowledgements in one call

// ackLoop writes acknowledgements, and lets ended sessions leave the register and the store. It runs until leavings is
// closed and empty, which is after everything else has stopped.
func (r *Room) ackLoop(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	own := r.cfg.Clock.NewTicker(r.cfg.AckOwnEvery)
	defer own.Stop()
	common := r.cfg.Clock.NewTicker(r.cfg.AckCommonEvery)
	defer common.Stop()
	gone := make([]leaving, 0, maxAcks)
	for {
		// Of several that are ready a select takes any. So it only waits, and what is done does not depend on which it took: a
		// run that is played again has to do the same.
		var ownDue, commonDue bool
		select {
		case <-own.C:
			ownDue = true
		case <-common.C:
			commonDue = true
		case <-r.leavings.ready:
		}
		ownDue = took(own.C) || ownDue
		commonDue = took(common.C) || commonDue
		r.leaveAll(ctx, gone)
		if ownDue {
			r.removeStrays(ctx)
		}
		if ownDue || commonDue {
			r.writeAcks(ctx, r.acks.collect(commonDue))
			r.writeLooseAcks(ctx)
		}
		if r.leavings.isClosed() {
			r.writeLooseAcks(ctx)
			return
		}
	}
}

func took(tick <-chan time.Time) bool {
	select {
	case <-tick:
		return true
	default:
		return false
	}
}

// leaveAll lets everybody leave who ended. gone is scratch.
func (r *Room) leaveAll(ctx context.Context, gone []leaving) {
	for {
		if gone = r.leavings.poll(gone); len(gone) == 0 {
			return
		}
		r.leave(ctx, gone)
	}
}

func (r *Room) writeAcks(ctx context.Context, ss []*session) {
	for len(ss) > 0 {
		n := min(len(ss), maxAcks)
		acks := make([]saver.Ack, 0, n)
		from := make([]takenAck, 0, n)
		for _, s := range ss[:n] {
			if a, doubted, some := s.takeAck(); some {
				acks, from = append(acks, a), append(from, takenAck{s, doubted, a.Seen, a.Moved})
			}
		}
		if len(acks) == 0 {
			ss = ss[n:]
			continue
		}
		failpoint.Hit(failpoint.RoomAckTaken)
		unknown, err := r.ackWithin(ctx, acks)
		for _, t := range from {
			t.s.noteMoved(t.moved)
		}
		if err != nil {
			r.log.Warn("writing acknowledgements failed; trying again", "count", len(acks), "err", err)
			for _, t := range from {
				t.s.ackFailed(t)
			}
			for _, s := range ss[n:] {
				s.ackDeferred()
			}
			return
		}
		r.settle(ctx, from, unknown)
		ss = ss[n:]
	}
}

// ackTimeout is how long a call for a batch of sessions may take.
const ackTimeout = 10 * time.Second

func (r *Room) ackWithin(ctx context.Context, acks []saver.Ack) (unknown []int, err error) {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	if unknown, err = r.cfg.Saver.Ack(ctx, acks); err != nil {
		r.m.failed("ack")
	}
	return unknown, err
}

// takeAck returns what the store has not been told yet, and whether there is something. A store that is doubted is told
// everything again.
func (s *session) takeAck() (a saver.Ack, doubted, some bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a = saver.Ack{UserRef: s.userRef(), Device: s.device()}
	doubted, s.doubted = s.doubted, false
	for k := range s.acked {
		f := &s.slots[k]
		if f.unwritten = f.unwritten || doubted && f.told; f.unwritten && !s.isLookingBackLocked(push.SlotKind(k)) {
			a.Places[k], f.unwritten = s.acked[k], false
			some = true
		}
	}
	if s.isInFlightLocked() {
		a.Moved = &saver.Moved{}
		some, s.tasks.asks = some || s.tasks.asks, false
	}
	a.Seen, s.seen().due = s.seen().due, false
	return a, doubted, some || doubted || a.Seen
}

// ackFailed has everything written again.
func (s *session) ackFailed(t takenAck) {
	s.mu.Lock()
	for k := range s.slots {
		s.slots[k].unwritten = s.slots[k].told
	}
	s.doubted = s.doubted || t.doubted
	s.seen().due = s.seen().due || t.seen
	ended := s.state == closed
	s.mu.Unlock()
	if !ended { // an ended session's last words are lost, which costs a repetition
		s.room.acks.note(s, push.Own)
	}
}

// ackDeferred has it written with the next batch of each slot.
func (s *session) ackDeferred() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.slots {
		if s.slots[k].unwritten {
			s.room.acks.note(s, push.SlotKind(k))
		}
	}
	if s.doubted {
		s.room.acks.note(s, push.Own)
	}
	if s.seen().due || s.tasks != nil && s.tasks.asks {
		s.room.acks.note(s, push.Common)
	}
}

// leave takes ended sessions out of the register, by their epoch, and writes their last acknowledgements.
func (r *Room) leave(ctx context.Context, gone []leaving) {
	now := push.Milli(r.cfg.Clock.Now())
	outs := make([]stray, 0, len(gone))
	acks := make([]saver.Ack, 0, len(gone))
	ended := make([]*session, 0, len(gone))
	for _, l := range gone {
		l.s.mu.Lock()
		epoch, since := l.s.epoch, l.s.since
		l.s.mu.Unlock()
		if epoch == 0 {
			continue // not registered yet; comes again once it is
		}
		outs = append(outs, stray{l.s.key(), epoch})
		if l.again {
			continue
		}
		a, _, _ := l.s.takeAck()
		a.Seen, a.Online = true, max(0, now.Time().Sub(since.Time()))
		acks, ended = append(acks, a), append(ended, l.s)
	}
	left, err := r.removeAll(ctx, outs)
	if err != nil {
		r.log.Warn("leaving the register failed; trying again", "count", len(left), "err", err)
	}
	r.strays = append(r.strays, left...)
	if len(acks) == 0 {
		return
	}
	if _, err := r.ackWithin(ctx, acks); err != nil {
		r.log.Warn("writing last acknowledgements failed; clients will see those messages again", "count", len(acks), "err", err)
	}
	for i, s := range ended {
		s.noteMoved(acks[i].Moved)
		s.endTasks()
	}
}
