package redis

import (
	"hash/maphash"
	"time"

	"carillon/server/push"
	"carillon/server/register"
)

// book is what a register knows of the rooms that joined through it. The register's mu guards all of it, and is never held while the store
// is asked.
type book struct {
	rooms  map[push.RoomID]*tenure
	shards map[shardRef]*shard
}

func newBook() book {
	return book{rooms: make(map[push.RoomID]*tenure), shards: make(map[shardRef]*shard)}
}

type shardRef struct {
	product push.ProductID
	shard   push.Shard
}

// tenure is one life of a room of this node.
type tenure struct {
	// Static.
	at   place
	boot push.BootID
	tags toldTags // and what is in it, by its turn

	// Guarded by the register's mu.
	shaken  bool // sessions may be gone that were there: the room has to put them back
	orders  []register.Order
	seen    seen
	numbers map[push.ProductID]int // of its sessions
	told    map[push.ProductID]int // what the store was told of them, since all of it was
	untold  int                    // renewals since then
	round   []shardRef             // the shards that it holds sessions in, in the order of the sweep
	next    int                    // where the sweep goes on in round

	clearing map[shardRef]string // shards in which dead rooms left something, and where looking for it goes on
	found    []leftover          // what is to be looked at with the next renewal

	// Owned by whoever renews.
	missing []life // that a sweep met and the table did not have
}

// shard is what is known of a shard in which rooms of this node hold sessions.
type shard struct {
	held    map[*tenure]*holding
	under   int    // writes under way
	changes uint64 // how often a number changed, or may have
}

// holding is what a tenure has in a shard.
type holding struct {
	n       int          // sessions, by the answers of our own writes and the orders of others
	lineage push.Lineage // of the last answer since the room joined; 0: there was none
	unsure  bool         // n may be wrong: the outcome of a write is unknown, or the store fell back
}

// seen are orders that were passed on, so that the copy in the shard and that in the mail are one. It forgets those that are older than
// one or two of its spans; then they come again, which does no harm.
type seen struct {
	now, before map[uint64]struct{}
	since       time.Time
}

const (
	seenSpan = 10 * time.Minute
	seenMost = 1 << 16
)

// add notes an order, and reports whether it is new.
func (s *seen) add(h uint64, now time.Time) bool {
	if s.now == nil || len(s.now) >= seenMost || now.Sub(s.since) > seenSpan {
		s.before, s.now, s.since = s.now, make(map[uint64]struct{}), now
	}
	_, a := s.now[h]
	_, b := s.before[h]
	s.now[h] = struct{}{}
	return !a && !b
}

// begin makes a tenure of a room that just joined, in place of its last one.
func (r *Register) begin(at place, boot push.BootID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.book.rooms[at.room]; old != nil {
		r.endLocked(old)
	}
	r.book.rooms[at.room] = &tenure{
		at: at, boot: boot, tags: toldTags{turn: newTurn()}, numbers: make(map[push.ProductID]int), told: make(map[push.ProductID]int),
		clearing: make(map[shardRef]string),
	}
}

// end forgets a tenure.
func (r *Register) end(t *tenure) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.endLocked(t)
}

func (r *Register) endLocked(t *tenure) {
	if r.book.rooms[t.at.room] == t {
		delete(r.book.rooms, t.at.room)
	}
	for _, ref := range t.round {
		if s := r.book.shards[ref]; s != nil {
			s.dropLocked(&r.book, ref, t)
		}
	}
	t.round = nil
}

// dropLocked takes a tenure out of a shard, and the shard out of the book if that was the last.
func (s *shard) dropLocked(b *book, ref shardRef, t *tenure) {
	delete(s.held, t)
	if len(s.held) == 0 && s.under == 0 {
		delete(b.shards, ref)
	}
}

// tenure returns the room's tenure under that boot, nil if it did not join through this register.
func (r *Register) tenure(room push.RoomID, boot push.BootID) *tenure {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.book.rooms[room]; t != nil && t.boot == boot {
		return t
	}
	return nil
}

// ours returns the tenure of that life, nil if it is of another node.
func (b *book) oursLocked(at place) *tenure {
	if t := b.rooms[at.room]; t != nil && t.at.life == at.life {
		return t
	}
	return nil
}

// keep notes that the lease of a tenure was taken again: what was shaken is being put back from here on.
func (r *Register) keep(t *tenure) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t.shaken = false
	clear(t.told)
	for _, ref := range t.round {
		if s := r.book.shards[ref]; s != nil && s.held[t] != nil {
			s.held[t].lineage = 0 // whatever it is now, the sessions are looked at again after this
		}
	}
}

// isShaken reports whether sessions of the tenure may be gone.
func (r *Register) isShaken(t *tenure) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return t.shaken
}

// writing notes that a write of ours to the shard is under way, and returns what to call when it is over.
func (r *Register) writing(ref shardRef) (over func(known bool)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.book.shardLocked(ref)
	s.under++
	return func(known bool) {
		r.mu.Lock()
		defer r.mu.Unlock()
		s.under--
		s.changes++
		for _, h := range s.held {
			h.unsure = h.unsure || !known
		}
		if len(s.held) == 0 && s.under == 0 {
			delete(r.book.shards, ref)
		}
	}
}

func (b *book) shardLocked(ref shardRef) *shard {
	s := b.shards[ref]
	if s == nil {
		s = &shard{held: make(map[*tenure]*holding)}
		b.shards[ref] = s
	}
	return s
}

// addLocked changes how many sessions a tenure has in the shard.
func (b *book) addLocked(ref shardRef, t *tenure, n int) {
	s := b.shardLocked(ref)
	h := s.held[t]
	if h == nil {
		h = &holding{}
		s.held[t] = h
		t.round = append(t.round, ref)
	}
	h.n += n
	s.changes++
	t.numbers[ref.product] += n
}

// noteLineageLocked notes under which lineage the shard answered. If that is another one than before, the shard may have lost sessions of every
// room that holds some there.
func (b *book) noteLineageLocked(ref shardRef, l push.Lineage) {
	s := b.shards[ref]
	if s == nil {
		return
	}
	for t, h := range s.held {
		if h.lineage != 0 && h.lineage != l {
			t.shaken, h.unsure = true, true
		}
		h.lineage = l
	}
}

// passLocked passes an order on to the tenure unless it was already.
func (r *Register) passLocked(t *tenure, o register.Order, value string) (isNew bool) {
	if !t.seen.add(maphash.String(r.seed, value), r.clock.Now()) {
		return false
	}
	t.orders = append(t.orders, o)
	return true
}

// obeyLocked passes on an order that was found in the store. The session that it ends is counted out here if a room of another node gave it; if one of
// ours did, its write counts.
func (r *Register) obeyLocked(t *tenure, ref shardRef, o register.Order, value string) {
	if !r.passLocked(t, o, value) {
		return
	}
	if by := r.book.rooms[o.By.Room]; by == nil || by.boot != o.By.Boot {
		r.book.addLocked(ref, t, -1)
	}
}
