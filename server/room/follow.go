package room

import (
	"slices"

	"carillon/server/clock"
	"carillon/server/planted"
	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/transport"
	"carillon/server/wire"
)

// mode says what a session does about one of its slots.
type mode uint8

const (
	idle     mode = iota // not open yet
	live                 // everything known of is queued; notifications extend it
	reading_             // a read is asked for or under way
	waiting              // there is more to read, once the client has taken what is queued
)

// follow is how a session follows one slot. Guarded by session.mu.
type follow struct {
	at     push.Place    // everything up to it was queued or passed over
	wanted push.Position // the highest position heard of
	passed uint16        // entries passed over since the client could last tell its position
	mode   mode
	again  bool // something of another epoch or lineage came since the last read: judge once more

	told      bool // session.acked is what the client acknowledged on this session, and not where it began
	unwritten bool // the store has not been told of it
	seen      seen // of the device; that of the common slot counts, see seen.go
}

// hold is what a slot waits with for an entry that is missing.
type hold struct {
	held  []heldOut // out of turn, by position
	timer clock.Timer
}

type heldOut struct {
	pos    push.Position
	out    wire.Out
	filter *push.Filter
}

// maxHeld is how many messages out of turn are kept before the slot is read at once.
const maxHeld = 32

// maxPassed is how many entries may be passed over before the client is told where it stands.
const maxPassed = 1000

// holds are those of a session's two slots. It is dropped with the last of them.
type holds [2]*hold

func (s *session) holdLocked(k push.SlotKind) *hold {
	if s.holds == nil {
		return nil
	}
	return s.holds[k]
}

func (s *session) setHoldLocked(k push.SlotKind, h *hold) {
	if s.holds == nil {
		s.holds = &holds{}
	}
	if s.holds[k] = h; *s.holds == (holds{}) {
		s.holds = nil
	}
}

func (s *session) dropHeldLocked(k push.SlotKind) {
	if h := s.holdLocked(k); h != nil {
		h.timer.Stop()
		s.setHoldLocked(k, nil)
	}
}

// noticeLocked tells the session of a new entry in one of its slots. It is what both notifications and out-of-turn arrivals
// come down to.
func (s *session) noticeLocked(k push.SlotKind, place push.Place, o wire.Out, filter *push.Filter) {
	f := &s.slots[k]
	if s.state != open {
		f.wanted = max(f.wanted, place.Pos) // the opener reads up to it
		return
	}
	if place.Epoch != f.at.Epoch || place.Lineage != f.at.Lineage {
		f.again = true
		f.wanted = max(f.wanted, place.Pos)
		s.requestReadLocked(k)
		return
	}
	if place.Pos <= f.at.Pos {
		return
	}
	f.wanted = max(f.wanted, place.Pos)
	switch {
	case f.mode != live:
		// The read under way, or the next, finds it.
	case place.Pos == f.at.Pos+1:
		if s.extendLocked(k, place.Pos, o, filter) {
			s.releaseHeldLocked(k)
		}
	default:
		s.keepLocked(k, heldOut{place.Pos, o, filter})
	}
}

// noticeBehind tells the session that a slot has an entry at a place, without the entry: the change log says so.
func (s *session) noticeBehind(k push.SlotKind, place push.Place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noticeBehindLocked(k, place)
}

// noticeBehindLocked reports whether the session did not have the entry.
func (s *session) noticeBehindLocked(k push.SlotKind, place push.Place) bool {
	f := &s.slots[k]
	if place.IsZero() || s.state == open && place.Epoch == f.at.Epoch && place.Lineage == f.at.Lineage && place.Pos <= f.at.Pos {
		return false
	}
	// The log tells it once: whatever this session is busy with, it has to remember.
	f.wanted = max(f.wanted, place.Pos)
	switch {
	case s.state != open: // the opener reads up to it
	case place.Epoch != f.at.Epoch || place.Lineage != f.at.Lineage:
		// The slot may be one that a stale log speaks of; reading judges that, and costs one read.
		f.again = true
		s.requestReadLocked(k)
	case f.mode == live:
		s.room.m.swept()
		s.startHoldLocked(k)
	}
	return true
}

// isBare reports whether the room was told of an entry without what it says (push.Delivery.IsBare).
func isBare(o *wire.Out) bool { return o.Shared == nil && o.Frame == nil }

// extendLocked moves the slot's place to pos, which directly follows it, queueing the entry if it is for this device. It
// reports false if the queue is full, or what the entry says is not here; the slot then keeps it and is read.
func (s *session) extendLocked(k push.SlotKind, pos push.Position, o wire.Out, filter *push.Filter) bool {
	f := &s.slots[k]
	if r, ok := o.Frame.(*wire.Recall); ok {
		s.noteRecallLocked(r.ID)
	}
	if !s.admitsOutLocked(filter, &o) {
		f.at.Pos = pos
		s.passLocked(k, 1)
		return true
	}
	if isBare(&o) {
		if planted.Is(planted.TagsUntold) {
			f.at.Pos = pos
			return true
		}
		s.room.m.bare()
		s.requestReadLocked(k)
		return false
	}
	if !s.queue.fits(o.Size(), s.room.cfg.QueueMessages, s.room.cfg.QueueBytes) {
		s.room.m.lagged()
		s.owesCursor = true
		s.requestReadLocked(k)
		return false
	}
	o = placed(o, k, pos)
	s.queue.push(o)
	s.noteSentLocked(&o)
	f.at.Pos, f.passed = pos, 0
	return true
}

// placed returns a frame with the position that it has in a slot. A recall frame is made anew where it was not made for that
// place, since others may hold it.
func placed(o wire.Out, k push.SlotKind, pos push.Position) wire.Out {
	o.Slot, o.Pos = k, pos
	if r, ok := o.Frame.(*wire.Recall); ok && (r.Slot != k || r.Pos != pos) {
		o.Frame = &wire.Recall{Slot: k, Pos: pos, ID: r.ID}
	}
	return o
}

func (s *session) passLocked(k push.SlotKind, n int) {
	f := &s.slots[k]
	f.passed += uint16(n)
	if f.passed >= maxPassed {
		f.passed = 0
		s.pushCursorLocked(wire.CursorPassed)
	}
}

func (s *session) pushCursorLocked(why wire.CursorReason) {
	s.slots[push.Own].passed, s.slots[push.Common].passed = 0, 0
	s.queue.push(wire.Out{Frame: &wire.Cursor{Cursor: s.cursorLocked(), Reason: why}})
}

// keepLocked keeps an entry that came before the one in front of it.
func (s *session) keepLocked(k push.SlotKind, h heldOut) {
	s.startHoldLocked(k)
	w := s.holdLocked(k)
	i := len(w.held)
	for ; i > 0 && w.held[i-1].pos >= h.pos; i-- {
		if w.held[i-1].pos == h.pos {
			return
		}
	}
	if len(w.held) == maxHeld {
		s.requestReadLocked(k)
		return
	}
	w.held = slices.Insert(w.held, i, h)
}

// startHoldLocked reads the slot in HoldFor, unless what is missing has come by then.
func (s *session) startHoldLocked(k push.SlotKind) {
	if s.holdLocked(k) == nil {
		w := &hold{}
		w.timer = s.room.cfg.Clock.AfterFunc(s.room.cfg.HoldFor, func() { s.holdOver(k, w) })
		s.setHoldLocked(k, w)
	}
}

// holdOver ends a hold whose time is over. It holds nothing when it was ended by something else meanwhile.
func (s *session) holdOver(k push.SlotKind, w *hold) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holdLocked(k) != w {
		return
	}
	s.setHoldLocked(k, nil)
	f := &s.slots[k]
	if s.state == open && f.mode == live && f.wanted > f.at.Pos {
		s.room.m.outOfTurn()
		s.requestReadLocked(k)
	}
}

// releaseHeldLocked queues the held entries that have become next.
func (s *session) releaseHeldLocked(k push.SlotKind) {
	f := &s.slots[k]
	for w := s.holdLocked(k); w != nil && len(w.held) > 0; w = s.holdLocked(k) {
		h := w.held[0]
		if h.pos > f.at.Pos+1 {
			return
		}
		w.held = w.held[1:]
		if h.pos == f.at.Pos+1 && !s.extendLocked(k, h.pos, h.out, h.filter) {
			return // the slot is read instead, and holds nothing more
		}
	}
	if f.wanted <= f.at.Pos {
		s.dropHeldLocked(k)
	}
}

// requestReadLocked asks for the slot to be read as soon as there is room for what that gives.
func (s *session) requestReadLocked(k push.SlotKind) {
	f := &s.slots[k]
	s.dropHeldLocked(k)
	if f.mode == reading_ {
		return
	}
	if !s.roomyLocked() {
		f.mode = waiting
		return
	}
	f.mode = reading_
	s.room.reads.put(reading{s: s, k: k})
}

// readRequest returns what to read for a slot, and whether the session still wants it. judge says that something of another
// lineage was heard of: then only the store can tell what the place is worth.
func (s *session) readRequest(k push.SlotKind) (rq saver.Read, wanted push.Position, judge, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &s.slots[k]
	if s.state != open {
		return saver.Read{}, 0, false, false
	}
	judge, f.again = f.again, false
	cfg := &s.room.cfg
	return saver.Read{
		ShardRef:   s.shard.ref,
		Slot:       k,
		User:       s.user(),
		From:       f.at,
		MaxEntries: max(1, min(maxRead, cfg.QueueMessages-s.queue.len())),
		MaxBytes:   max(1, min(maxReadBytes, cfg.QueueBytes-s.queue.bytes())),
	}, f.wanted, judge, true
}

// apply queues what a read found.
func (s *session) apply(k push.SlotKind, rq saver.Read, t *tailRead) {
	now := s.room.now()
	s.mu.Lock()
	f := &s.slots[k]
	if s.state != open {
		s.mu.Unlock()
		return
	}
	if t.Start != rq.From {
		s.rejudgeLocked(k, rq.From, t)
	}
	if t.State.Floor > f.at.Pos {
		s.gapLocked(k, f.at.Pos, t.State.Floor, wire.GapLimit)
	}
	full := false
	for i := range t.entries {
		if e := &t.entries[i]; e.Pos > f.at.Pos && !s.applyEntryLocked(k, e) {
			full = true
			break
		}
	}
	if !full && t.Through > f.at.Pos {
		f.at.Pos = t.Through
	}
	if t.fromStore && f.wanted == t.wanted && !f.again {
		// What we had heard of was stored before we were told, so a read that began later sees it, if it is there at all.
		f.wanted = min(f.wanted, t.State.Head)
	}
	switch {
	case full:
		f.mode = waiting
	case f.again || f.at.Pos < max(f.wanted, t.State.Head):
		f.mode = live // so that the request is taken
		s.requestReadLocked(k)
	default:
		f.mode = live
		s.caughtUpLocked()
	}
	s.wakeAndUnlock(now, transport.Direct)
}

// rejudgeLocked follows the store's judgement of the place we read from: another lineage, a lowered position, or a slot of
// which that place says nothing.
func (s *session) rejudgeLocked(k push.SlotKind, from push.Place, t *tailRead) {
	f := &s.slots[k]
	f.at = t.Start
	f.wanted = t.State.Head
	s.noteFellBackLocked(k, t.Known)
	s.owesCursor = true
	if !t.Known && !from.IsZero() {
		s.room.m.gap(wire.GapReset)
		s.queue.push(wire.Out{Frame: &wire.Gap{Slot: k, From: 0, To: t.Start.Pos, Reason: wire.GapReset}})
	}
	s.pushCursorLocked(wire.CursorLineage)
}

// gapLocked tells the client that a range is gone, and goes on behind it.
func (s *session) gapLocked(k push.SlotKind, from, to push.Position, why wire.GapReason) {
	s.room.m.gap(why)
	s.queue.push(wire.Out{Frame: &wire.Gap{Slot: k, From: from, To: to, Reason: why}})
	f := &s.slots[k]
	f.at.Pos, f.passed = to, 0
}

// applyEntryLocked queues one entry that was read; false: the queue is full.
func (s *session) applyEntryLocked(k push.SlotKind, e *tailEntry) bool {
	f := &s.slots[k]
	admits := s.admitsEntryLocked(e)
	if e.Kind == saver.EntryRecall {
		s.noteRecallLocked(e.ID)
	}
	if n := e.Pos - f.at.Pos - 1; n > 0 && admits {
		f.at.Pos = e.Pos - 1 // holes
	}
	switch {
	case !admits:
		f.at.Pos = e.Pos
		s.passLocked(k, 1)
		return true
	case e.Lost:
		s.room.m.lost()
		s.room.log.Error("an entry has lost its body", "product", string(s.shard.ref.Product), "slot", k.String(), "id", e.ID.String())
		s.gapLocked(k, e.Pos-1, e.Pos, wire.GapLost)
		return true
	}
	o := e.out()
	if !s.queue.fits(o.Size(), s.room.cfg.QueueMessages, s.room.cfg.QueueBytes) {
		return false
	}
	o = placed(o, k, e.Pos)
	s.queue.push(o)
	s.noteSentLocked(&o)
	f.at.Pos, f.passed = e.Pos, 0
	return true
}

// caughtUpLocked ends a catch-up once both slots are.
func (s *session) caughtUpLocked() {
	if s.owesCursor && s.slots[push.Own].mode == live && s.slots[push.Common].mode == live {
		s.owesCursor = false
		s.pushCursorLocked(wire.CursorCaughtUp)
	}
}
