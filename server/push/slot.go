package push

// SlotKind says which of a device's two slots is meant. Its numbers are on the wire.
type SlotKind uint8

// The slots of a device, and NoSlot for what lies in none (non-persistent messages).
const (
	Own    SlotKind = 0 // the own slot of the device's user
	Common SlotKind = 1 // the common slot of the user's shard
	NoSlot SlotKind = 255
)

// String returns "own", "common" or "none".
func (k SlotKind) String() string {
	switch k {
	case Own:
		return "own"
	case Common:
		return "common"
	}
	return "none"
}

// Position is a place in a slot. A slot that is new, or whose state was lost, begins at unix seconds << 20, so
// positions do not repeat after a slot expired; each append takes the next one. Positions stay below 2^53.
type Position uint64

// FirstPosition returns the head that a slot created at that moment begins with; its first entry takes the next one.
func FirstPosition(now MilliTime) Position { return Position(now/1000) << 20 }

// SlotEpoch tells apart a slot from another that had its name before: its state was lost, or expired. Below 2^63, never 0.
type SlotEpoch uint64

// Lineage names one state of a store. It changes wherever acknowledged positions may have been lost: on Redis with the
// primary's replication id, embedded at each open. Zero is none.
type Lineage uint64

// Place is one slot's half of a cursor: everything up to and including Pos has been handled, under that epoch and
// lineage. The lineage is that of the slot (the last one it noted), not that of the store.
//
// The zero Place means "no cursor".
type Place struct {
	Epoch   SlotEpoch
	Lineage Lineage
	Pos     Position
}

// IsZero reports whether there is no place.
func (p Place) IsZero() bool { return p.Epoch == 0 }

// Cursor says how far one device has come in both of its slots, indexed by [Own] and [Common].
type Cursor [2]Place

// Note is what a slot remembers of a lineage: its first append under it came right after Start.
type Note struct {
	Lineage Lineage
	Start   Position
	At      MilliTime // when it was noted, by the store's clock
}

// SlotState is the small state that outlives a slot's entries.
type SlotState struct {
	Epoch  SlotEpoch
	Head   Position // position of the newest entry there ever was; the origin while there was none
	Origin Position // the head the slot began with
	Floor  Position // the highest position that a limit dropped; 0 if none was
	Notes  []Note   // oldest first, at least one; kept as long as cursors are
}

// Lineage returns the lineage of the slot: the last one noted.
func (s *SlotState) Lineage() Lineage {
	if len(s.Notes) == 0 {
		return 0
	}
	return s.Notes[len(s.Notes)-1].Lineage
}

// Resolve judges a cursor against the slot. A place of the slot's epoch and of a lineage that it noted is lowered to
// the smallest start that was noted later, and never stands above the head: a position is where, not what, and after a
// lost write another message may lie at it. Of any other place nothing is known: known is false, and the place is the
// slot's origin, so that everything retained is sent again.
func (s *SlotState) Resolve(p Place) (at Place, known bool) {
	at = Place{Epoch: s.Epoch, Lineage: s.Lineage(), Pos: s.Origin}
	if p.Epoch != s.Epoch {
		return at, false
	}
	i := len(s.Notes) - 1
	for ; i >= 0 && s.Notes[i].Lineage != p.Lineage; i-- {
	}
	if i < 0 {
		return at, false
	}
	at.Pos = min(p.Pos, s.Head)
	for _, n := range s.Notes[i+1:] {
		at.Pos = min(at.Pos, n.Start)
	}
	return at, true
}
