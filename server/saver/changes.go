package saver

// ChangeRing is the change log of one shard for one room: the newest ChangesKept appends to own slots, numbered from a
// random base, so that a point of another log (before a restart, or of a log that was given up) reads as trimmed. It is not
// safe for concurrent use. The zero value is not ready: use NewChangeRing.
type ChangeRing struct {
	changes []Change // a ring: number n lies at n % ChangesKept once that many were added
	first   uint64   // number of the first change there ever was
	next    uint64   // number that the next change takes
}

// ChangesKept is how many changes a ring keeps.
const ChangesKept = 4096

// NewChangeRing returns an empty log. Bits 2 to 62 of random number it; a store draws it for each log.
func NewChangeRing(random uint64) *ChangeRing {
	base := random>>2 | 1<<61
	return &ChangeRing{first: base, next: base}
}

// Add appends a change; the oldest goes if the ring is full.
func (r *ChangeRing) Add(c Change) {
	if len(r.changes) < ChangesKept {
		r.changes = append(r.changes, c)
	} else {
		r.changes[(r.next-r.first)%ChangesKept] = c
	}
	r.next++
}

// Since returns the changes after a query's point, oldest first, the point for the next query, and whether some of what
// was asked for is gone: the ring overflowed since that point, or the point is of another log. With After zero everything
// kept is returned; it is trimmed if the ring ever overflowed.
func (r *ChangeRing) Since(after uint64) (changes []Change, next uint64, trimmed bool) {
	oldest := r.next - uint64(len(r.changes))
	from := after
	switch {
	case after == 0:
		from, trimmed = oldest, oldest > r.first
	case after < oldest || after > r.next:
		from, trimmed = oldest, true
	}
	if n := r.next - from; n > 0 {
		changes = make([]Change, 0, n)
		for i := from; i < r.next; i++ {
			changes = append(changes, r.changes[(i-r.first)%ChangesKept])
		}
	}
	return changes, r.next, trimmed
}
