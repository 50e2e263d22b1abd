package pebble

import (
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"sync"

	"carillon/server/push"
	"carillon/server/saver"
)

// frontMost is how many of a slot's oldest entries are remembered, so that dropping them needs no walk over the
// database: slots of users who are online are short, and a full slot drops one for each that comes.
const frontMost = 32

// slot is the state of a slot, as the newest batch submitted leaves it. The lock of its stripe guards it.
type slot struct {
	saver.Slot        // a zero epoch: the slot does not exist
	prefix     string // of its keys
	st         *stripe
	kind       push.SlotKind

	// front are the kept entries at or below frontEnd, ascending; none but those is kept there.
	front    []saver.Weight
	frontEnd push.Position

	batch *slotBatch // what the batch under construction changes; nil between batches, which is nearly always
}

type slotBatch struct {
	base     push.Position                      // the head before it
	added    []saver.Weight                     // appended and kept
	gone     []push.Position                    // dropped, at or below base and above frontEnd
	collapse map[saver.CollapseID]push.Position // noted
}

var slotBatches = sync.Pool{New: func() any { return new(slotBatch) }}

// base returns the head before the batch under construction.
func (sl *slot) base() push.Position {
	if sl.batch != nil {
		return sl.batch.base
	}
	return sl.Head
}

// added returns what the batch under construction appended and keeps.
func (sl *slot) added() []saver.Weight {
	if sl.batch != nil {
		return sl.batch.added
	}
	return nil
}

// isGone reports whether the batch under construction dropped the entry at a position, at or below base and above frontEnd.
func (sl *slot) isGone(pos push.Position) bool {
	return sl.batch != nil && slices.Contains(sl.batch.gone, pos)
}

// load reads the state from the database.
func (sl *slot) load(t *tx) error {
	t.key = sub(t.key, sl.prefix, subState)
	v, found, err := t.s.db.Get(t.val[:0], t.key)
	if err != nil {
		return err
	}
	t.val = v
	if !found {
		return nil
	}
	if sl.Slot, err = saver.DecodeSlot(v); err != nil {
		return err
	}
	sl.frontEnd = sl.Freed
	if sl.Count == 0 {
		sl.frontEnd = sl.Head
	}
	return nil
}

// change notes that the batch writes the slot's state, and makes the slot if there is none.
func (sl *slot) change(t *tx) {
	if sl.Epoch == 0 {
		sl.Slot = saver.NewSlot(push.SlotEpoch(t.s.random()), t.lineage, t.now)
		sl.frontEnd = sl.Head
	}
	if sl.batch == nil {
		sl.batch = slotBatches.Get().(*slotBatch)
		sl.batch.base = sl.Head
		t.slots = append(t.slots, sl)
	}
}

// settle ends the batch: what was added will be found in the database.
func (sl *slot) settle() {
	b := sl.batch
	if sl.frontEnd >= b.base && len(sl.front)+len(b.added) <= frontMost {
		sl.front = append(sl.front, b.added...)
		sl.frontEnd = sl.Head
	}
	sl.batch = nil
	*b = slotBatch{added: b.added[:0], gone: b.gone[:0]}
	slotBatches.Put(b)
	sl.tidy()
}

// tidy moves frontEnd over what is known to be holes.
func (sl *slot) tidy() {
	switch {
	case sl.Count == 0:
		sl.front, sl.frontEnd = sl.front[:0], sl.Head
	case len(sl.front) == 0 && sl.frontEnd < sl.Freed:
		sl.frontEnd = sl.Freed
	}
}

// append adds an entry at the head, drops what it collapses and what the limits demand, and returns its place.
func (sl *slot) append(t *tx, e *saver.Stored, limits push.Limits) (push.Place, error) {
	sl.change(t)
	whole := sl.frontEnd == sl.Head // every kept entry is in front
	at := sl.Append(e.Weight(0), t.lineage, t.now, limits)
	w := e.Weight(at.Pos)
	if whole && len(sl.front) < frontMost {
		sl.front = append(sl.front, w)
		sl.frontEnd = at.Pos
	} else {
		sl.batch.added = append(sl.batch.added, w)
	}
	t.val = saver.AppendEntry(t.val[:0], e)
	t.key = entryKey(t.key, sl.prefix, at.Pos)
	t.b.Set(t.key, t.val)
	if err := sl.doCollapse(t, e, at.Pos); err != nil {
		return push.Place{}, err
	}
	var err error
	sl.drop(t, sl.Shed(sl.kind, limits, t.now, sl.kept(t, &err)))
	return at, err
}

// doCollapse drops the entry that this one collapses, and notes this one as the newest of its identity.
func (sl *slot) doCollapse(t *tx, e *saver.Stored, pos push.Position) error {
	id, ok := saver.CollapseOf(e.CollapseKey, e.Filter)
	if !ok {
		return nil
	}
	old, ok := sl.batch.collapse[id]
	if !ok {
		var err error
		if old, err = sl.lookupCollapse(t, &id); err != nil {
			return err
		}
	}
	if old != 0 {
		if _, err := sl.remove(t, old, 0); err != nil {
			return err
		}
	}
	if sl.batch.collapse == nil {
		sl.batch.collapse = make(map[saver.CollapseID]push.Position)
	}
	sl.batch.collapse[id] = pos
	t.key = collapseKey(t.key, sl.prefix, &id)
	t.val = binary.AppendUvarint(binary.AppendUvarint(t.val[:0], uint64(sl.Epoch)), uint64(pos))
	t.b.Set(t.key, t.val)
	return nil
}

// lookupCollapse returns the position of the newest entry of an identity that is stored, 0 if there is none. That entry
// may be a hole by now: the index is swept, not kept up.
func (sl *slot) lookupCollapse(t *tx, id *saver.CollapseID) (push.Position, error) {
	if sl.Count <= 1 {
		return 0, nil // only the new entry is kept
	}
	if err := sl.st.applied(); err != nil {
		return 0, err
	}
	t.key = collapseKey(t.key, sl.prefix, id)
	v, found, err := t.s.db.Get(t.val[:0], t.key)
	if err != nil || !found {
		return 0, err
	}
	t.val = v
	epoch, pos, err := decodeCollapse(v)
	if err != nil || epoch != sl.Epoch {
		return 0, err
	}
	return pos, nil
}

func decodeCollapse(v []byte) (push.SlotEpoch, push.Position, error) {
	epoch, n := binary.Uvarint(v)
	if n > 0 {
		if pos, m := binary.Uvarint(v[n:]); m > 0 && n+m == len(v) {
			return push.SlotEpoch(epoch), push.Position(pos), nil
		}
	}
	return 0, 0, push.Errorf(push.KindInternal, "corrupt_value", "a collapse index entry")
}

// remove makes a hole of the entry at a position and reports whether there was one. With an id it does so only if the
// entry is of that message.
func (sl *slot) remove(t *tx, pos push.Position, id push.MsgID) (bool, error) {
	w, ok, err := sl.find(t, pos, id)
	if err != nil || !ok {
		return false, err
	}
	sl.change(t)
	sl.Removed(w)
	sl.drop(t, []saver.Weight{w})
	return true, nil
}

// find returns the weight of the kept entry at a position. Where front or the batch tell, and no id is asked for, it
// does without the database.
func (sl *slot) find(t *tx, pos push.Position, id push.MsgID) (saver.Weight, bool, error) {
	switch {
	case pos <= sl.Freed || pos > sl.Head || sl.isGone(pos):
		return saver.Weight{}, false, nil
	case pos <= sl.frontEnd:
		i, ok := findWeight(sl.front, pos)
		if !ok {
			return saver.Weight{}, false, nil
		}
		if id == 0 {
			return sl.front[i], true, nil
		}
	}
	if i, ok := findWeight(sl.added(), pos); ok && id == 0 {
		return sl.added()[i], true, nil
	}
	if pos > sl.base() { // in this batch only: a message is never recalled in the batch that publishes it
		return saver.Weight{}, false, nil
	}
	if err := sl.st.applied(); err != nil {
		return saver.Weight{}, false, err
	}
	t.key = entryKey(t.key, sl.prefix, pos)
	v, found, err := t.s.db.Get(t.val[:0], t.key)
	if err != nil || !found {
		return saver.Weight{}, false, err
	}
	t.val = v
	e, err := saver.PeekEntry(v)
	if err != nil || id != 0 && e.ID != id {
		return saver.Weight{}, false, err
	}
	return e.Weight(pos), true, nil
}

func findWeight(ws []saver.Weight, pos push.Position) (int, bool) {
	return slices.BinarySearchFunc(ws, pos, func(w saver.Weight, pos push.Position) int {
		switch {
		case w.Pos < pos:
			return -1
		case w.Pos > pos:
			return 1
		}
		return 0
	})
}

// drop deletes entries that are out of the counts already.
func (sl *slot) drop(t *tx, ws []saver.Weight) {
	if len(ws) == 0 {
		return
	}
	sl.change(t)
	for _, w := range ws {
		t.key = entryKey(t.key, sl.prefix, w.Pos)
		t.b.Delete(t.key)
		if w.Pos > sl.frontEnd && w.Pos <= sl.batch.base {
			sl.batch.gone = append(sl.batch.gone, w.Pos)
		}
	}
	sl.front = without(sl.front, ws)
	sl.batch.added = without(sl.batch.added, ws)
	sl.tidy()
}

// without returns the weights that are not among gone, in the same memory.
func without(ws, gone []saver.Weight) []saver.Weight {
	if len(ws) == 0 {
		return ws
	}
	return slices.DeleteFunc(ws, func(w saver.Weight) bool {
		return slices.ContainsFunc(gone, func(g saver.Weight) bool { return g.Pos == w.Pos })
	})
}

// kept walks the kept entries in order: front, then what the database holds above it, then the batch's own. What
// stopped the walk is left in err.
func (sl *slot) kept(t *tx, err *error) iter.Seq[saver.Weight] {
	return func(yield func(saver.Weight) bool) {
		for _, w := range sl.front {
			if !yield(w) {
				return
			}
		}
		if sl.frontEnd < sl.base() {
			more, werr := sl.walk(t, yield)
			if werr != nil {
				*err = werr
			}
			if !more || werr != nil {
				return
			}
		}
		for _, w := range sl.added() {
			if !yield(w) {
				return
			}
		}
	}
}

// walk yields the entries above frontEnd that the database holds, and reports whether it came to their end. If front is
// empty it is filled on the way.
func (sl *slot) walk(t *tx, yield func(saver.Weight) bool) (more bool, err error) {
	if err := sl.st.applied(); err != nil {
		return false, err
	}
	from := max(sl.frontEnd, sl.Freed) + 1
	it, err := t.s.db.Scan(entryKey(nil, sl.prefix, from), entryKey(nil, sl.prefix, sl.base()+1))
	if err != nil {
		return false, err
	}
	defer it.Close()
	var ahead []saver.Weight
	fill := len(sl.front) == 0
	more = true
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.Value()
		if err != nil {
			return false, err
		}
		e, err := saver.PeekEntry(v)
		if err != nil {
			return false, fmt.Errorf("entry: %w", err)
		}
		w := e.Weight(entryPos(it.Key()))
		if sl.isGone(w.Pos) {
			continue
		}
		if fill && len(ahead) < frontMost {
			ahead = append(ahead, w)
		}
		if more {
			more = yield(w)
		}
		if !more && (!fill || len(ahead) == frontMost) {
			break
		}
	}
	if err := it.Err(); err != nil {
		return false, err
	}
	if fill {
		sl.refill(ahead)
	}
	return more, nil
}

// refill takes over what a walk saw. If that was all the database holds, front reaches to the batch's own entries.
func (sl *slot) refill(ahead []saver.Weight) {
	sl.front = append(sl.front[:0], ahead...)
	if len(ahead) < frontMost {
		sl.frontEnd = sl.base()
	} else {
		sl.frontEnd = ahead[len(ahead)-1].Pos
	}
	if b := sl.batch; b != nil {
		b.gone = slices.DeleteFunc(b.gone, func(p push.Position) bool { return p <= sl.frontEnd })
	}
}
