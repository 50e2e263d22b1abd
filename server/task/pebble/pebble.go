// Package pebble is the store of tasks of an embedded node: it lies in the node's one database, beside all else, under the space
// embedded.SpaceTasks.
//
// # Keys
//
// After the space comes one byte for the sort of record, then names, each escaped and ended so that no name reaches into another's range, and
// numbers, big endian:
//
//	t product id:8              a task
//	w wake:8 id:8 product       a task's place among those that somebody has to look at; no value
//	k product key               an idempotency key
//	o product                   a product's switch
//	l product id:8              a list
//	u product id:8              until when what is stored of a list is kept, created or not; 8 bytes
//	x product id:8 shard:2 number:4   a chunk
//	n product id:8 room boot:8  what one life of a room counted of a task: a version, and each kind, 8 bytes
//	e until:8 sort rest         when something has outlived its time: rest is what stands behind the sort (t, k or u) in its key; no value
//
// # Invariants
//
//   - Whatever reads, decides and writes holds the lock until what it wrote is visible, and waits for the flush to disk after that. No function of a caller
//     runs under it: Update reads, has the caller decide, and takes the lock to see whether the task is still what was read.
//   - Whoever is told "it is so already" is told so once all that is visible is flushed.
//   - A record and its places among others are one batch.
//   - Counts are flushed with whatever comes next: a power loss takes back what the last moments counted.
package pebble

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"

	"carillon/server/clock"
	"carillon/server/embedded"
	"carillon/server/failpoint"
	"carillon/server/push"
	"carillon/server/task"
)

// Config says how a store is made.
type Config struct {
	DB    *embedded.DB // stays open when the store is closed
	Clock clock.Clock  // clock.System if nil
}

// Store is a task.Store. All methods are safe for concurrent use.
type Store struct {
	// Static after construction.
	db    *embedded.DB
	clock clock.Clock

	closed atomic.Bool

	writing sync.Mutex // one writer at a time, without its flush
}

var _ task.Store = (*Store)(nil)

// New returns the store that lies in a database.
func New(c Config) (*Store, error) {
	if c.DB == nil {
		return nil, errors.New("task: pebble needs a database")
	}
	if c.Clock == nil {
		c.Clock = clock.System
	}
	return &Store{db: c.DB, clock: c.Clock}, nil
}

// Close makes every later call fail. The database stays open.
func (s *Store) Close() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.closed.Store(true)
	return nil
}

// The sorts of records.
const (
	sortTask   = 't'
	sortWake   = 'w'
	sortKey    = 'k'
	sortSwitch = 'o'
	sortList   = 'l'
	sortUntil  = 'u'
	sortChunk  = 'x'
	sortCount  = 'n'
	sortEnd    = 'e'
)

func keyOf(sort byte) []byte { return append(make([]byte, 0, 96), byte(embedded.SpaceTasks), sort) }

// ofProduct returns the key of a sort and a product, or the range of what a product has of a sort.
func ofProduct(sort byte, p push.ProductID) []byte { return embedded.AppendKeyString(keyOf(sort), p) }

// ofID returns the key of a task or a list, or the range of what it has of a sort.
func ofID(sort byte, p push.ProductID, id push.MsgID) []byte {
	return embedded.AppendKeyUint64(ofProduct(sort, p), uint64(id))
}

func wakeKey(t *task.Task) []byte {
	k := embedded.AppendKeyUint64(embedded.AppendKeyUint64(keyOf(sortWake), uint64(t.Wake)), uint64(t.ID))
	return embedded.AppendKeyString(k, t.Product)
}

// endKey returns the place among the ends of what lies under a key.
func endKey(until push.MilliTime, key []byte) []byte {
	return append(embedded.AppendKeyUint64(keyOf(sortEnd), uint64(until)), key[1:]...)
}

// usable returns why a call cannot take place, nil if it can.
func (s *Store) usable(ctx context.Context) error {
	if s.closed.Load() {
		return task.ErrClosed()
	}
	if err := ctx.Err(); err != nil {
		return task.ErrUnavailable(err)
	}
	return nil
}

func (s *Store) now() push.MilliTime { return push.Milli(s.clock.Now()) }

// get reads one record; nil if there is none.
func (s *Store) get(key []byte) ([]byte, error) {
	b, found, err := s.db.Get(nil, key)
	if err != nil || !found {
		return nil, failed(err)
	}
	if b == nil {
		b = []byte{}
	}
	return b, nil
}

// write lets f fill a batch under the lock, and returns when that is on disk; if f leaves it empty, when all that f may have seen is. If f fails nothing is written.
func (s *Store) write(ctx context.Context, f func(b *embedded.Batch, now push.MilliTime) error) error {
	return s.flushed(ctx)(s.apply(ctx, f))
}

// writeTask is write of the record of a task.
func (s *Store) writeTask(ctx context.Context, f func(b *embedded.Batch, now push.MilliTime) error) error {
	ticket, written, err := s.apply(ctx, f)
	if written {
		failpoint.Hit(failpoint.TaskWritten)
	}
	return s.flushed(ctx)(ticket, written, err)
}

// flushed returns a function that waits for the flush of what apply did.
func (s *Store) flushed(ctx context.Context) func(ticket embedded.Ticket, written bool, err error) error {
	return func(ticket embedded.Ticket, written bool, err error) error {
		switch {
		case err != nil:
			return err
		case written:
			err = ticket.Wait(ctx)
		default:
			err = s.db.Flushed(ctx)
		}
		return failed(err)
	}
}

// apply lets f fill a batch under the lock, and returns when that is visible, and whether there was anything in it.
func (s *Store) apply(ctx context.Context, f func(b *embedded.Batch, now push.MilliTime) error) (ticket embedded.Ticket, written bool, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.usable(ctx); err != nil {
		return ticket, false, err
	}
	b := s.db.NewBatch()
	if err := f(b, s.now()); err != nil {
		s.db.Discard(b)
		return ticket, false, err
	}
	if b.Empty() {
		s.db.Discard(b)
		return ticket, false, nil
	}
	ticket, err = s.db.Commit(b)
	return ticket, err == nil, failed(err)
}

// failed returns an error of the database as one of the store: as it is if it has a kind, otherwise as internal.
func failed(err error) error {
	var e *push.Error
	switch {
	case err == nil:
		return nil
	case push.KindOf(err) == push.KindClosed:
		return task.ErrClosed()
	case errors.As(err, &e):
		return err
	}
	return damaged(err)
}

func damaged(err error) error {
	return &push.Error{Kind: push.KindInternal, Code: "tasks_damaged", Detail: "the store of tasks cannot be read", Err: err}
}

// walk calls f for the keys from one on and below another, downwards if it is said so, until f says no more. Key and value are valid until it returns.
func (s *Store) walk(from, to []byte, down bool, f func(key, value []byte) (more bool, err error)) (err error) {
	it, err := s.db.Scan(from, to)
	if err != nil {
		return failed(err)
	}
	defer func() {
		if e := it.Close(); e != nil && err == nil {
			err = failed(e)
		}
	}()
	first, next := it.First, it.Next
	if down {
		first, next = it.Last, it.Prev
	}
	for ok := first(); ok; ok = next() {
		value, err := it.Value()
		if err != nil {
			return failed(err)
		}
		if more, err := f(it.Key(), value); err != nil || !more {
			return err
		}
	}
	return failed(it.Err())
}

// cutID returns the id at the end of a key.
func cutID(key []byte) (push.MsgID, error) {
	if len(key) < 8 {
		return 0, damaged(errors.New("a key is cut short"))
	}
	return push.MsgID(binary.BigEndian.Uint64(key[len(key)-8:])), nil
}

// below returns where a walk over what a product has of a sort ends that shows ids below one; 0: all.
func below(sort byte, p push.ProductID, before push.MsgID) []byte {
	if before == 0 {
		return embedded.PrefixEnd(ofProduct(sort, p))
	}
	return ofID(sort, p, before)
}
