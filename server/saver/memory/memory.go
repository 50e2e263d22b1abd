// Package memory keeps slots, cursors and records in the process. It is a whole [saver.Store], with the same limits, expiry
// and freeing as the stores on disk; only its durability is none: tests, examples and gateways that may forget use it.
//
// # Place in the flow
//
// It stands where pebble or redis would stand. It keeps no register and asks a [saver.Locator] who is online, never
// under a lock of its own.
//
// # Invariants
//
//   - Everything of a shard's users lies under that shard's lock. What touches several shards takes all their locks, in
//     order of shard, before it changes the first: nobody sees a publication in one slot and not yet in another.
//   - Locks are taken in this order: world for reading, one stripe of keys, the map of fences, one record or fence, shards in order, then one of those
//     that guard a map only (stripe of records, map of shards, change logs). world for writing is taken alone.
//   - An entry holds its message by reference, so a body for many users is in memory once and is freed with the last entry.
//   - Nothing that a call returns shares memory with what is kept, except messages, which are immutable.
//
// Memory is bounded by the limits of products and by Sweep, which frees what expired; whoever runs the store calls it every
// some minutes.
package memory

import (
	"context"
	crand "crypto/rand"
	"fmt"
	"hash/maphash"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"carillon/server/clock"
	"carillon/server/push"
	"carillon/server/saver"
)

// Config is what a store is made of. The zero value is useful.
type Config struct {
	Clock   clock.Clock                      // nil: clock.System
	Rand    io.Reader                        // source of epochs and lineages, read once, 32 bytes; nil: crypto/rand
	Locator saver.Locator                    // nil: nobody is ever online
	Limits  func(push.ProductID) push.Limits // of products, for Sweep; nil: the defaults
}

const stripes = 64

// Store is a saver.Store in memory.
type Store struct {
	// Static after construction.
	clock   clock.Clock
	locator saver.Locator
	limits  func(push.ProductID) push.Limits
	seed    maphash.Seed

	calls sync.WaitGroup // calls under way; added to under world for reading, while not closed

	// world is held for reading by every call while it looks at or changes what is kept, and for writing by what replaces
	// all of it. It guards the fields up to the next comment.
	world   sync.RWMutex
	closed  bool
	lineage push.Lineage
	shards  map[saver.ShardRef]*shard // the map itself: guarded by mapMu while world is held for reading
	keys    [stripes]keyStripe
	records [stripes]recordStripe

	mapMu sync.RWMutex

	fencesMu sync.Mutex
	fences   map[recordRef]*fence // guarded by fencesMu, while world is held for reading

	randMu sync.Mutex
	rand   *rand.Rand // guarded by randMu
}

type keyRef struct {
	product push.ProductID
	key     saver.IdempotencyKey
}

type keyStripe struct {
	mu   sync.Mutex
	keys map[keyRef]saver.KeyRecord // guarded by mu
}

type recordRef struct {
	product push.ProductID
	id      push.MsgID
}

type recordStripe struct {
	mu      sync.Mutex
	records map[recordRef]*record // guarded by mu
}

// record is what is known of a message. Its mutex is held for the whole of a recall, so that there is one.
type record struct {
	mu sync.Mutex
	r  saver.StoredRecord // guarded by mu; replaced as a whole, what it points at is immutable
}

// shard holds everything of a shard's users.
type shard struct {
	ref saver.ShardRef

	mu      sync.Mutex
	users   map[push.UserID]*user // guarded by mu
	common  *slot                 // guarded by mu; nil: there is none
	devices int                   // guarded by mu; of all users

	logMu sync.Mutex
	logs  map[push.RoomID]*roomLog // guarded by logMu
}

type user struct {
	own     *slot           // nil: there is none
	devices []saver.Device  // sorted by id
	tags    *saver.UserTags // nil: none; replaced as a whole, what it points at is immutable
}

type roomLog struct {
	ring *saver.ChangeRing
	used push.MilliTime // when the room asked last, or the log was made
}

var _ saver.Store = (*Store)(nil)

// New returns an empty store under a fresh lineage. It fails only if Config.Rand does.
func New(c Config) (*Store, error) {
	if c.Clock == nil {
		c.Clock = clock.System
	}
	if c.Rand == nil {
		c.Rand = crand.Reader
	}
	if c.Locator == nil {
		c.Locator = nobody{}
	}
	if c.Limits == nil {
		c.Limits = func(push.ProductID) push.Limits { return push.Limits{} }
	}
	var seed [32]byte
	if _, err := io.ReadFull(c.Rand, seed[:]); err != nil {
		return nil, fmt.Errorf("saver: new memory store: %w", err)
	}
	s := &Store{
		clock: c.Clock, locator: c.Locator, limits: c.Limits,
		seed: maphash.MakeSeed(),
		rand: rand.New(rand.NewChaCha8(seed)),
	}
	s.lineage = push.Lineage(s.random())
	s.clear()
	return s, nil
}

// clear empties the store; the caller holds world for writing or is alone.
func (s *Store) clear() {
	s.shards = make(map[saver.ShardRef]*shard)
	s.fences = make(map[recordRef]*fence)
	for i := range stripes {
		s.keys[i].keys = make(map[keyRef]saver.KeyRecord)
		s.records[i].records = make(map[recordRef]*record)
	}
}

// random returns 63 random bits, not all zero.
func (s *Store) random() uint64 {
	s.randMu.Lock()
	defer s.randMu.Unlock()
	for {
		if n := s.rand.Uint64() >> 1; n != 0 {
			return n
		}
	}
}

func (s *Store) now() push.MilliTime { return push.Milli(s.clock.Now()) }

// enter begins a call: it takes world for reading. The call gives that back by leave, and then ends with s.calls.Done.
func (s *Store) enter(op string) error {
	s.world.RLock()
	if s.closed {
		s.world.RUnlock()
		return fmt.Errorf("saver: %s: %w", op, saver.ErrClosed())
	}
	s.calls.Add(1)
	return nil
}

func (s *Store) leave() { s.world.RUnlock() }

// lookupShard returns the shard, nil if nothing is kept of it.
func (s *Store) lookupShard(ref saver.ShardRef) *shard {
	s.mapMu.RLock()
	defer s.mapMu.RUnlock()
	return s.shards[ref]
}

// shard returns the shard and makes it if need be.
func (s *Store) shard(ref saver.ShardRef) *shard {
	if sh := s.lookupShard(ref); sh != nil {
		return sh
	}
	s.mapMu.Lock()
	defer s.mapMu.Unlock()
	sh := s.shards[ref]
	if sh == nil {
		sh = &shard{ref: ref, users: make(map[push.UserID]*user)}
		s.shards[ref] = sh
	}
	return sh
}

func (s *Store) keyStripe(k keyRef) *keyStripe {
	return &s.keys[maphash.Comparable(s.seed, k)%stripes]
}

func (s *Store) recordStripe(k recordRef) *recordStripe {
	return &s.records[maphash.Comparable(s.seed, k)%stripes]
}

// userLocked returns the user and makes it if need be.
func (sh *shard) userLocked(id push.UserID) *user {
	u := sh.users[id]
	if u == nil {
		u = &user{}
		sh.users[id] = u
	}
	return u
}

// ownLocked returns the user's own slot and makes it if need be.
func (s *Store) ownLocked(u *user, now push.MilliTime) *slot {
	if u.own == nil {
		u.own = s.newSlot(push.Own, now)
	}
	return u.own
}

// commonLocked returns the shard's common slot and makes it if need be.
func (s *Store) commonLocked(sh *shard, now push.MilliTime) *slot {
	if sh.common == nil {
		sh.common = s.newSlot(push.Common, now)
	}
	return sh.common
}

func (s *Store) newSlot(k push.SlotKind, now push.MilliTime) *slot {
	return &slot{kind: k, Slot: saver.NewSlot(push.SlotEpoch(s.random()), s.lineage, now)}
}

// Lineage returns the lineage, a number drawn by New and by each Restore.
func (s *Store) Lineage(context.Context) (push.Lineage, error) {
	if err := s.enter("lineage"); err != nil {
		return 0, err
	}
	defer s.calls.Done()
	defer s.leave()
	return s.lineage, nil
}

// Durability returns push.DurabilityNone.
func (s *Store) Durability() push.Durability { return push.DurabilityNone }

// Health returns nil until the store is closed.
func (s *Store) Health(context.Context) error {
	if err := s.enter("health"); err != nil {
		return err
	}
	s.leave()
	s.calls.Done()
	return nil
}

// Close forgets everything once the calls under way are done.
func (s *Store) Close() error {
	s.world.Lock()
	s.closed = true
	s.world.Unlock()
	s.calls.Wait()
	s.world.Lock()
	defer s.world.Unlock()
	s.clear()
	return nil
}

// nobody is the Locator of a store that was given none.
type nobody struct{}

func (nobody) RoomsOf(_ push.ProductID, users []push.UserID) [][]push.RoomID {
	return make([][]push.RoomID, len(users))
}
func (nobody) RoomsIn(push.ProductID, push.Shard) []push.RoomID          { return nil }
func (nobody) OnlineDevices(push.ProductID, push.UserID) []push.DeviceID { return nil }

// logIdle is how long the change log of a room that does not ask is kept. A room asks every few seconds.
const logIdle = time.Hour
