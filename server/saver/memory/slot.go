package memory

import (
	"iter"
	"maps"
	"slices"

	"carillon/server/planted"
	"carillon/server/push"
	"carillon/server/saver"
)

// slot is one ordered log. The shard's lock guards it.
type slot struct {
	saver.Slot
	kind     push.SlotKind
	entries  []entry                            // by position; those that are holes go when they are many
	holes    int                                // among entries
	collapse map[saver.CollapseID]push.Position // the newest entry of each identity; nil until there is one
}

// entry is a kept entry; Message is set for every message, whether others share it or not.
type entry struct {
	saver.Stored
	pos  push.Position
	hole bool // the rest is zero then, but for pos
	lost bool // the body was lost: Message is nil though it is a message
}

// append adds an entry at the head, makes a hole of what it collapses and of what the limits demand, and returns its place.
func (s *slot) append(e saver.Stored, l push.Lineage, now push.MilliTime, limits push.Limits) push.Place {
	at := s.Append(e.Weight(0), l, now, limits)
	s.entries = append(s.entries, entry{Stored: e, pos: at.Pos})
	if id, ok := saver.CollapseOf(e.CollapseKey, e.Filter); ok {
		if old, ok := s.collapse[id]; ok {
			s.remove(old)
		}
		if s.collapse == nil {
			s.collapse = make(map[saver.CollapseID]push.Position)
		}
		s.collapse[id] = at.Pos
	}
	s.drop(s.Shed(s.kind, limits, now, s.kept()))
	return at
}

// find returns the kept entry at a position, nil if there is a hole.
func (s *slot) find(pos push.Position) *entry {
	i, ok := slices.BinarySearchFunc(s.entries, pos, comparePos)
	if !ok || s.entries[i].hole {
		return nil
	}
	return &s.entries[i]
}

func comparePos(e entry, pos push.Position) int {
	switch {
	case e.pos < pos:
		return -1
	case e.pos > pos:
		return 1
	}
	return 0
}

// remove makes a hole of the entry at a position and takes it out of the counts. It does nothing if there is a hole.
func (s *slot) remove(pos push.Position) {
	if e := s.find(pos); e != nil {
		s.Removed(e.Weight(pos))
		s.blank(e)
		s.compact()
	}
}

// drop makes holes of entries that are out of the counts already.
func (s *slot) drop(ws []saver.Weight) {
	for _, w := range ws {
		if e := s.find(w.Pos); e != nil {
			s.blank(e)
		}
	}
	if len(ws) > 0 {
		s.compact()
	}
}

func (s *slot) blank(e *entry) {
	if id, ok := saver.CollapseOf(e.CollapseKey, e.Filter); ok && s.collapse[id] == e.pos {
		delete(s.collapse, id)
	}
	*e = entry{pos: e.pos, hole: true}
	s.holes++
}

// compact gives back the memory of holes: those in front at once, others when they are half of all.
func (s *slot) compact() {
	n := 0
	for n < len(s.entries) && s.entries[n].hole {
		n++
	}
	s.entries = s.entries[n:]
	s.holes -= n
	switch {
	case len(s.entries) == 0:
		s.entries = nil
	case s.holes > len(s.entries)/2:
		kept := make([]entry, 0, len(s.entries)-s.holes)
		for _, e := range s.entries {
			if !e.hole {
				kept = append(kept, e)
			}
		}
		s.entries, s.holes = kept, 0
	}
	if len(s.collapse) == 0 {
		s.collapse = nil
	}
}

// kept walks the kept entries in order.
func (s *slot) kept() iter.Seq[saver.Weight] {
	return func(yield func(saver.Weight) bool) {
		for i := range s.entries {
			if e := &s.entries[i]; !e.hole && !yield(e.Weight(e.pos)) {
				return
			}
		}
	}
}

// read fills a tail with what comes after a place.
func (s *slot) read(r *saver.Read, now push.MilliTime, t *saver.Tail) {
	t.State = saver.CloneState(s.SlotState)
	t.Start, t.Known = s.Resolve(r.From)
	t.Through = s.Head
	from, found := slices.BinarySearchFunc(s.entries, t.Start.Pos, comparePos)
	var above push.MsgID
	if found {
		if planted.Is(planted.CursorByMessageID) {
			above = s.entries[from].ID
		}
		from++
	}
	bytes := 0
	for i := from; i < len(s.entries); i++ {
		e := &s.entries[i]
		if e.hole || saver.Expired(e.Expires, now) || e.ID < above {
			continue
		}
		if len(t.Entries) > 0 && (len(t.Entries) >= r.MaxEntries || bytes >= r.MaxBytes) {
			t.Through = e.pos - 1
			return
		}
		bytes += e.Size
		t.Entries = append(t.Entries, saver.Entry{
			Pos: e.pos, Kind: e.Kind, ID: e.ID, Expires: e.Expires,
			Filter: saver.CloneFilter(e.Filter), Message: e.Message, Lost: e.lost,
		})
	}
}

// clone returns a copy that shares only what is immutable.
func (s *slot) clone() *slot {
	if s == nil {
		return nil
	}
	c := *s
	c.Notes = slices.Clone(s.Notes)
	c.entries = slices.Clone(s.entries)
	c.collapse = maps.Clone(s.collapse)
	return &c
}

// state returns a copy of the slot's state, zero if there is no slot.
func (s *slot) state() push.SlotState {
	if s == nil {
		return push.SlotState{}
	}
	return saver.CloneState(s.SlotState)
}
