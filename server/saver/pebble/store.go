// Package pebble keeps slots, cursors and records in the embedded database of a node. What it accepts is flushed to the
// disk before it answers.
//
// # Place in the flow
//
// It stands where memory or redis would stand. It keeps no register and asks a [saver.Locator] who is online, under no
// lock. Change logs lie in memory: the rooms of an embedded node die with it, and a log of another life reads as
// trimmed.
//
// # Writing
//
// Everything of a shard's users lies under one of a fixed number of stripes, each a lock and the states of the slots
// written last. A writer locks the stripes of all shards it touches, in ascending order, builds one batch from those
// states and submits it: the database applies batches in that order. The lock is let go before anything is applied or
// flushed, so callers queue up for the same flush. A writer that has to look into the database under its stripe first
// waits until what the stripe submitted before is applied.
//
// A batch of a task is looked at under its fence, whose lock it holds for reading until it is submitted, and under its stripe, where its record is
// looked for. So it is written once, and none comes behind the raise of its token.
//
// A known idempotency key, and a recall under way, is claimed (see claims.go) until its batch is flushed: a repeat must
// not be answered before the first one is certain.
//
// # Reading
//
// Readers take no lock. State and entries of a slot lie side by side and are read through one iterator, which is a
// picture of one moment: a batch is in it whole or not at all.
//
// # Invariants
//
//   - What Read returns is flushed, and so is what is answered to publishers. After a failed flush neither is answered any
//     more, repeats included.
//   - An acknowledgement and what it frees are one batch; so are an entry, its bucket, its record and its key.
//   - Cached states are at most ahead of the database by what was submitted, and are dropped if a batch is given up.
//   - Old keys, records and buckets go by the hour in which they are forgotten, which is part of their own keys: never
//     by what an id might say about time.
package pebble

import (
	"context"
	crand "crypto/rand"
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"carillon/server/clock"
	"carillon/server/embedded"
	"carillon/server/push"
	"carillon/server/saver"
)

// Config is what a store is made of. Only DB has no useful zero value.
type Config struct {
	DB      *embedded.DB                     // belongs to the caller, who closes it after the store
	Clock   clock.Clock                      // nil: clock.System
	Rand    io.Reader                        // source of epochs, read once, 32 bytes; nil: crypto/rand
	Locator saver.Locator                    // nil: nobody is ever online
	Limits  func(push.ProductID) push.Limits // of products, for the sweep; nil: the defaults
	Log     *slog.Logger                     // nil: discards

	// CacheUsers is how many users' slot states are kept in memory, about a kilobyte each at most; 0: 16 384. Where several
	// products come one after the other it may be up to twice as many.
	CacheUsers int
	// SweepUsers is how many users Run looks at in a second; 0: 2 000.
	SweepUsers int
}

const (
	stripes           = 256
	defaultCacheUsers = 16 << 10
	defaultSweepUsers = 2000
)

// Store is a [saver.Store] on the embedded database.
type Store struct {
	// Static after New.
	db         *embedded.DB
	clock      clock.Clock
	locator    saver.Locator
	limits     func(push.ProductID) push.Limits
	log        *slog.Logger
	seed       maphash.Seed
	cacheUsers int
	sweepUsers int

	stripes [stripes]stripe
	cached  atomic.Int64 // users whose states all stripes keep
	claims  claims
	keyGens *generations // of idempotency keys
	msgGens *generations // of message records

	// fencing is held for reading from the look at a fence until the batches under it are submitted, and for writing while one is raised or forgotten.
	fencing sync.RWMutex

	sweepMu sync.Mutex // held by a sweep; its own progress is under it

	randMu sync.Mutex
	rand   *rand.Rand // guarded by randMu

	lifeMu sync.RWMutex
	closed bool // guarded by lifeMu
	calls  sync.WaitGroup
}

var _ saver.Store = (*Store)(nil)

// New returns the store that lies in a database, empty or as it was left.
func New(c Config) (*Store, error) {
	if c.DB == nil {
		return nil, push.Errorf(push.KindInvalid, "invalid_config", "the store needs a database")
	}
	s := &Store{
		db: c.DB, clock: c.Clock, locator: c.Locator, limits: c.Limits, log: c.Log,
		seed:       maphash.MakeSeed(),
		cacheUsers: max(c.CacheUsers, 0), sweepUsers: c.SweepUsers,
	}
	if s.clock == nil {
		s.clock = clock.System
	}
	if s.locator == nil {
		s.locator = nobody{}
	}
	if s.limits == nil {
		s.limits = func(push.ProductID) push.Limits { return push.Limits{} }
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if c.CacheUsers == 0 {
		s.cacheUsers = defaultCacheUsers
	}
	if s.sweepUsers <= 0 {
		s.sweepUsers = defaultSweepUsers
	}
	if c.Rand == nil {
		c.Rand = crand.Reader
	}
	var seed [32]byte
	if _, err := io.ReadFull(c.Rand, seed[:]); err != nil {
		return nil, fmt.Errorf("saver: open: %w", err)
	}
	s.rand = rand.New(rand.NewChaCha8(seed))
	var err error
	if s.keyGens, err = loadGenerations(s.db, spaceKey, true); err != nil {
		return nil, fmt.Errorf("saver: open: %w", err)
	}
	if s.msgGens, err = loadGenerations(s.db, spaceMessage, false); err != nil {
		return nil, fmt.Errorf("saver: open: %w", err)
	}
	buckets, err := loadGenerations(s.db, spaceBucket, false)
	if err != nil {
		return nil, fmt.Errorf("saver: open: %w", err)
	}
	for _, g := range buckets.from(0) { // those of tasks have no record of the same hour
		s.msgGens.note(g.hour)
	}
	return s, nil
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

// enter begins a call, which ends with s.calls.Done.
func (s *Store) enter(op string) error {
	s.lifeMu.RLock()
	defer s.lifeMu.RUnlock()
	if s.closed {
		return fmt.Errorf("saver: %s: %w", op, saver.ErrClosed())
	}
	s.calls.Add(1)
	return nil
}

// Lineage returns the lineage of the open database.
func (s *Store) Lineage(context.Context) (push.Lineage, error) {
	if err := s.enter("lineage"); err != nil {
		return 0, err
	}
	defer s.calls.Done()
	return s.db.Lineage(), nil
}

// Durability returns push.DurabilityDisk.
func (s *Store) Durability() push.Durability { return push.DurabilityDisk }

// Health returns nil while the database takes writes.
func (s *Store) Health(context.Context) error {
	if err := s.enter("health"); err != nil {
		return err
	}
	defer s.calls.Done()
	if err := s.db.Health(); err != nil {
		return fmt.Errorf("saver: health: %w", err)
	}
	return nil
}

// Close waits for the calls under way. The database stays open.
func (s *Store) Close() error {
	s.lifeMu.Lock()
	s.closed = true
	s.lifeMu.Unlock()
	s.calls.Wait()
	return nil
}

// nobody is the Locator of a store that was given none.
type nobody struct{}

func (nobody) RoomsOf(_ push.ProductID, users []push.UserID) [][]push.RoomID {
	return make([][]push.RoomID, len(users))
}
func (nobody) RoomsIn(push.ProductID, push.Shard) []push.RoomID          { return nil }
func (nobody) OnlineDevices(push.ProductID, push.UserID) []push.DeviceID { return nil }
