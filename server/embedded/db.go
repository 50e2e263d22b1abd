// Package embedded is the one database of a node that needs no other service: a Pebble store that the saver, the
// catalog and the id blocks share, each in a key space of its own (see keys.go).
//
// # Place in the flow
//
// The gateway opens one [DB] and hands it to saver/pebble, catalog/pebble and idgenerator/pebble, which are the only
// other packages that know it. They build a [Batch], call [DB.Commit] under whatever lock orders their writes, let go
// of the lock, and wait on the [Ticket] for the flush to disk.
//
// # Invariants
//
//   - A batch is applied whole or not at all, also over a crash.
//   - Commit returns when the batch is visible to readers, in the order of the calls. It is durable only when
//     [Ticket.Wait] has returned nil: what readers see may still be lost by a power cut, and the node's [DB.Lineage]
//     changes at each open to tell them so.
//   - Durable batches are a prefix of the visible ones: if one survived a crash, so did all that were applied before
//     it.
//   - After one failed write or sync nothing is durable any more: every later Commit and every Wait still under way
//     fail with the same error, for the life of this process, and nothing on the disk is changed any more (see
//     failstop.go).
//   - Reading goes on after such a failure.
//
// # Group commit
//
// One goroutine, the committer, merges the batches of all callers that came while it was busy into one and applies it;
// another, the syncer, waits for the flushes in order and wakes the callers. Callers therefore never stand inside
// Pebble: where a broken disk makes it panic or stall, they are let go with an error.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"

	"carillon/server/push"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Config says where a database lies and what it may use.
type Config struct {
	Dir        string       // made if it does not exist, for this user only
	FS         vfs.FS       // nil: the machine's
	Rand       io.Reader    // source of lineages; nil: crypto/rand
	Log        *slog.Logger // nil: discards. Pebble's own news come at debug level, trouble at error level
	CacheBytes int64        // for blocks read from disk; 0: 64 MiB
}

// DB is an open database. All methods are safe for concurrent use.
type DB struct {
	// Static after Open.
	pdb     *pebble.DB
	fs      *failStop
	lock    *pebble.Lock
	log     *slog.Logger
	dir     string
	lineage push.Lineage
	fault   *fault
	cache   *pebble.Cache
	mark    *mark
	batches sync.Pool // of *Batch

	wake     chan struct{} // capacity 1; tells the committer that there is something in next. Never closed
	progress chan struct{} // capacity 1; tells the committer that a flush or compaction ended. Never closed
	syncs    chan *group   // from the committer, which closes it, to the syncer
	workers  sync.WaitGroup

	latest atomic.Pointer[group] // the last group with a flush that was, or is being, applied; nil before the first

	// Guarded by mu.
	mu      sync.Mutex
	next    *group // what the committer takes next; nil if there is nothing to do
	closing bool

	// Owned by the committer.
	seq    uint64 // number of the last flushed write
	merger merger

	loose atomic.Bool // something was applied that nothing flushes

	uses use // reads under way
}

// Lineage names this opening of the database: another one after each restart and restore, below 2^63, never 0.
func (db *DB) Lineage() push.Lineage { return db.lineage }

// Health returns nil while writes are accepted, and otherwise the error they get.
func (db *DB) Health() error {
	if err := db.fault.get(); err != nil {
		return err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.closing {
		return errClosed()
	}
	return nil
}

// Failed is closed once the first write or sync has failed.
func (db *DB) Failed() <-chan struct{} { return db.fault.ch }

// Close finishes what was committed, waits for reads under way and closes the files. Callers end their iterators first,
// or Close waits for them. It returns the fault if there was one. Calling it again returns nil.
func (db *DB) Close() error {
	db.mu.Lock()
	if db.closing {
		db.mu.Unlock()
		return nil
	}
	db.closing = true
	db.mu.Unlock()

	db.wakeCommitter()
	db.workers.Wait()
	db.uses.closeAndWait()
	db.fs.release()
	err := db.closePebble()
	if ferr := db.fault.get(); ferr != nil {
		return ferr // the cause, and what Pebble says while closing is only its consequence
	}
	if err != nil {
		return fmt.Errorf("embedded: close: %w", err)
	}
	return nil
}

// closePebble closes the store. On a broken disk Pebble may panic over its own state; nothing is left to protect then.
func (db *DB) closePebble() (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("closing panicked: %v", r)
		}
	}()
	err = db.pdb.Close()
	db.cache.Unref()
	return errors.Join(err, db.mark.file.Close(), db.lock.Close())
}

func errClosed() *push.Error {
	return push.Errorf(push.KindClosed, "storage_closed", "the store is closed")
}

// use counts the readers inside Pebble, so that Close does not pull the files away from under them.
type use struct {
	n      atomic.Int64
	closed atomic.Bool
	idle   chan struct{} // capacity 1; signalled by the last reader after closed is set. Never closed
}

func (u *use) acquire() error {
	u.n.Add(1)
	if u.closed.Load() {
		u.release()
		return errClosed()
	}
	return nil
}

func (u *use) release() {
	if u.n.Add(-1) == 0 && u.closed.Load() {
		select {
		case u.idle <- struct{}{}:
		default:
		}
	}
}

func (u *use) closeAndWait() {
	u.closed.Store(true)
	for u.n.Load() > 0 {
		<-u.idle
	}
}

// Write commits the batch and waits until it is durable.
func (db *DB) Write(ctx context.Context, b *Batch) error {
	t, err := db.Commit(b)
	if err != nil {
		return err
	}
	return t.Wait(ctx)
}
