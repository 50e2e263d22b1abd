package room

import (
	"slices"

	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/task"
	"carillon/server/wire"
)

// What becomes of the message of a task (push.Message.Task) is counted device by device, where it happens, and added up in the
// room's tally:
//
//   - Sent when it enters a session's queue. The session then holds it in flight: it keeps its slot, position and id.
//   - Acknowledged by whoever moves the device's stored cursor over it. The store says from where to where an acknowledgement moved it
//     (saver.Moved), and no two move it over the same position. So a device counts once, whichever rooms it is acknowledged through.
//   - Returned when the session ends, is told of its recall, or learns that somebody else has moved the stored cursor over it.
//
// A client that handled a message and came back before it could say so presents a place ahead of the stored one. The acknowledgement of
// that place moves the cursor over entries that this session never sent. So the session looks back: it reads what lies between the two
// places, which is still there as long as nobody moved the cursor, takes what it finds as sent, and holds back its own acknowledgements
// until then. Where the two places are the same, as nearly always, nothing is read.
//
// An acknowledgement that may or may not have been written counts nothing, and when it is repeated nothing moves. So a device may
// end up as returned though it acknowledged: what is counted is never too much.
//
// A message that is not persistent has no place. It counts as Sent, and Dropped where it is given up, and nothing else.

// maxFlight is how many messages of tasks a session holds in flight, 24 bytes each. Of more it returns the oldest.
const maxFlight = 1024

// maxReported is how many displayed, and how many clicked, messages a session remembers. Of more it forgets the oldest.
const maxReported = 32

// sessionTasks is what a session knows of messages of tasks: 72 bytes with one in flight. Guarded by session.mu.
type sessionTasks struct {
	flight   []inFlight
	reported *[2][]push.MsgID // displayed, clicked; nil: none
	looking  [2]bool          // back, in that slot
	asks     bool             // with the next acknowledgements of common slots, whether the client has acknowledged in another room
}

// inFlight is a message that was queued for the client, or looked back at, and not acknowledged.
type inFlight struct {
	pos  push.Position
	id   push.MsgID
	slot push.SlotKind
}

func (s *session) keepTasksLocked() *sessionTasks {
	if s.tasks == nil {
		s.tasks = &sessionTasks{}
	}
	return s.tasks
}

// dropTasksLocked gives the memory back where nothing is left in it.
func (s *session) dropTasksLocked() {
	t := s.tasks
	if len(t.flight) > 0 {
		return
	}
	if t.flight = nil; t.looking == [2]bool{} && t.reported == nil {
		s.tasks = nil
	}
}

func (s *session) isInFlightLocked() bool { return s.tasks != nil && len(s.tasks.flight) > 0 }

func (s *session) isLookingBackLocked(k push.SlotKind) bool {
	return s.tasks != nil && s.tasks.looking[k]
}

// noteSentLocked counts what was queued for the client, if it is a task's.
func (s *session) noteSentLocked(o *wire.Out) {
	if o.Shared == nil {
		return
	}
	if m := o.Shared.Message(); m.Task && s.room.tally != nil {
		s.noteFlightLocked(o.Slot, o.Pos, m)
	}
}

func (s *session) noteFlightLocked(k push.SlotKind, pos push.Position, m *push.Message) {
	ref := taskRef{s.shard.ref.Product, m.ID}
	if !m.Persistent {
		s.room.tally.add(ref, task.Sent, 1)
		return
	}
	t := s.keepTasksLocked()
	if i := slices.IndexFunc(t.flight, func(f inFlight) bool { return f.id == m.ID }); i >= 0 {
		t.flight[i].slot, t.flight[i].pos = k, pos // it lies there twice; the client drops the second
		return
	}
	if len(t.flight) == maxFlight {
		s.room.tally.add(taskRef{ref.product, t.flight[0].id}, task.Returned, 1)
		t.flight = slices.Delete(t.flight, 0, 1)
	}
	t.flight = append(t.flight, inFlight{pos, m.ID, k})
	if s.manner == oneWay && !t.asks {
		t.asks = true
		s.room.acks.note(s, push.Common)
	}
	s.room.tally.add(ref, task.Sent, 1)
}

// noteDropped counts a message that is not persistent and was given up.
func (s *session) noteDropped(m *push.Message) {
	if m.Task {
		s.room.tally.add(taskRef{s.shard.ref.Product, m.ID}, task.Dropped, 1)
	}
}

// noteRecallLocked is told of the recall of a message where the session passes it, whether the client is told or not.
func (s *session) noteRecallLocked(id push.MsgID) {
	s.settleLocked(func(f inFlight) (task.Kind, bool) { return task.Returned, f.id == id })
}

// noteFellBackLocked is told that a slot is followed from another place than before, since the store fell back or lost it. What was sent from
// beyond it comes again.
func (s *session) noteFellBackLocked(k push.SlotKind, known bool) {
	s.settleLocked(func(f inFlight) (task.Kind, bool) {
		return task.Returned, f.slot == k && (!known || f.pos > s.slots[k].at.Pos)
	})
}

// noteMoved is told what an acknowledgement did; nil: nobody asked.
func (s *session) noteMoved(m *saver.Moved) {
	if m == nil || !m.Done {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noteMovedLocked(m.From, m.To)
}

// noteMovedLocked is told that the device's stored cursors stand at to. It was this session that moved them there, from from; whoever
// moved them to that has counted what lies before it.
func (s *session) noteMovedLocked(from, to push.Cursor) {
	s.settleLocked(func(f inFlight) (task.Kind, bool) {
		switch to := to[f.slot]; {
		case to.Epoch != s.slots[f.slot].at.Epoch || f.pos > to.Pos:
			return 0, false
		case from[f.slot].Epoch == to.Epoch && f.pos <= from[f.slot].Pos:
			return task.Returned, true
		}
		return task.Acknowledged, true
	})
}

// endTasks returns whatever an ended session still holds. What it acknowledged of a slot in which it still looked back is not written: the
// client presents it when it comes back, and the next session looks back.
func (s *session) endTasks() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.slots {
		if s.isLookingBackLocked(push.SlotKind(k)) {
			s.slots[k].unwritten = false
		}
	}
	s.settleLocked(func(inFlight) (task.Kind, bool) { return task.Returned, true })
	s.tasks = nil
}

// settleLocked counts what is in flight no longer, and as what.
func (s *session) settleLocked(what func(inFlight) (kind task.Kind, over bool)) {
	if !s.isInFlightLocked() {
		return
	}
	s.tasks.flight = slices.DeleteFunc(s.tasks.flight, func(f inFlight) bool {
		kind, over := what(f)
		if over {
			s.room.tally.add(taskRef{s.shard.ref.Product, f.id}, kind, 1)
		}
		return over
	})
	s.dropTasksLocked()
}

// noteEventLocked counts an event of a message that the room knows to be a task's, once a session.
func (s *session) noteEventLocked(f *wire.Event) {
	ref, kind := taskRef{s.shard.ref.Product, f.ID}, kindOf(f)
	if s.state == closed || !s.room.tally.knows(ref) {
		return
	}
	t := s.keepTasksLocked()
	if t.reported == nil {
		t.reported = new([2][]push.MsgID)
	}
	ids := &t.reported[kind-task.Displayed]
	if slices.Contains(*ids, f.ID) {
		return
	}
	if len(*ids) == maxReported {
		*ids = slices.Delete(*ids, 0, 1)
	}
	*ids = append(*ids, f.ID)
	s.room.tally.add(ref, kind, 1)
}

func kindOf(f *wire.Event) task.Kind {
	if f.Event == wire.Clicked {
		return task.Clicked
	}
	return task.Displayed
}

// lookBack is what a session has to look at of what its client had before: (from, to].
type lookBack struct {
	from push.Place
	to   push.Position // 0: nothing

	cached bool // entries says it all
	// entries are those of tasks that were found without asking the store.
	entries []tailEntry
}

// lookBacks returns what a session has to look at that begins like that.
func (r *Room) lookBacks(ref saver.ShardRef, o *saver.Opened) (backs [2]lookBack) {
	if r.tally == nil {
		return backs
	}
	for k := range o.Starts {
		st, b := &o.Starts[k], &backs[k]
		if st.Stored.Epoch != st.At.Epoch || st.Stored.Pos >= st.At.Pos {
			continue
		}
		b.from, b.to = st.Stored, st.At.Pos
		if k == int(push.Common) {
			b.entries, b.cached = r.tails.tasksIn(ref, b.from, b.to)
		}
	}
	return backs
}

// beginLookBackLocked takes what was found already, or has it read.
func (s *session) beginLookBackLocked(k push.SlotKind, b *lookBack) {
	switch {
	case b.to == 0:
	case b.cached:
		for i := range b.entries {
			s.noteLookedBackLocked(k, &b.entries[i])
		}
	default:
		s.keepTasksLocked().looking[k] = true
		s.room.reads.put(reading{s: s, k: k, back: &lookBack{from: b.from, to: b.to}})
	}
}

// lookBackRequest returns what to read for a look back; false: nothing, since the session has ended, or others had the same read meanwhile.
func (r *Room) lookBackRequest(rd reading) (saver.Read, bool) {
	if rd.k == push.Common {
		if found, ok := r.tails.tasksIn(rd.s.shard.ref, rd.back.from, rd.back.to); ok {
			rd.s.lookedBack(rd, &tailRead{Tail: saver.Tail{Start: rd.back.from, Through: rd.back.to}, entries: found})
			return saver.Read{}, false
		}
	}
	s := rd.s
	s.mu.Lock()
	defer s.mu.Unlock()
	return saver.Read{
		ShardRef: s.shard.ref, Slot: rd.k, User: s.user(), From: rd.back.from, MaxEntries: maxRead, MaxBytes: maxReadBytes,
	}, s.state < closed
}

// lookedBack takes a part of what a session looks back at, and asks for the next.
func (s *session) lookedBack(rd reading, t *tailRead) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == closed {
		return
	}
	if t.Start == rd.back.from { // otherwise the store fell back, and what lies there now is something else
		for i := range t.entries {
			if e := &t.entries[i]; e.Pos <= rd.back.to && e.Message != nil && e.Message.Task {
				s.noteLookedBackLocked(rd.k, e)
			}
		}
		if t.Through < rd.back.to && t.More() {
			next := &lookBack{from: t.Start, to: rd.back.to}
			next.from.Pos = t.Through
			s.room.reads.put(reading{s: s, k: rd.k, back: next})
			return
		}
	}
	s.tasks.looking[rd.k] = false
	s.dropTasksLocked()
	if s.slots[rd.k].unwritten {
		s.room.acks.note(s, rd.k)
	}
}

func (s *session) noteLookedBackLocked(k push.SlotKind, e *tailEntry) {
	if s.admitsEntryLocked(e) {
		s.noteFlightLocked(k, e.Pos, e.Message)
	}
}

// tasksIn returns the entries of tasks in (from, to]; false: the tail does not hold all of that.
func (ts *tails) tasksIn(ref saver.ShardRef, from push.Place, to push.Position) (found []tailEntry, ok bool) {
	t := ts.shard(ref)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.high == 0 || from.Epoch != t.state.Epoch || !t.isOfLocked(from.Lineage) || from.Pos < t.low || to > t.high {
		return nil, false
	}
	for _, e := range t.entries {
		if e.Pos > from.Pos && e.Pos <= to && e.Message != nil && e.Message.Task {
			found = append(found, e)
		}
	}
	return found, true
}
