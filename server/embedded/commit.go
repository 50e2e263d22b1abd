package embedded

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"

	"carillon/server/push"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// mergeBytes bounds one merged write, so that a crowd of large batches does not become one huge log record.
	mergeBytes = 2 << 20
	// roomEvery is how many bytes are written between two looks at how far flushing and compacting lag behind.
	roomEvery = 4 << 20
	// Writers wait while so many bytes of full memtables wait to be flushed, or so many layers of level 0 to be merged.
	stallMemTables = 4
	stallSublevels = 24
	// syncsUnderWay bounds the writes that wait for their flush; Pebble itself takes 511.
	syncsUnderWay = 128
)

// group is what the committer writes in one turn: the batches of all who came while it was busy.
type group struct {
	batches []*Batch
	sync    bool // somebody waits for the flush

	applied chan struct{} // closed by the committer
	synced  chan struct{} // closed by the syncer, if sync is set

	// Set before the channel beside it is closed, read after.
	applyErr error // applied
	syncErr  error // synced

	seq    uint64        // number of that write
	merged *pebble.Batch // from the committer to the syncer: the last write of the group
}

// Ticket is a committed batch on its way to the disk.
type Ticket struct {
	db *DB
	g  *group
}

// Wait returns nil when the batch is durable. Of any error the outcome is unknown: KindUnavailable, code
// "storage_failed" after a fault, "storage_slow" if ctx ended first. It may be called several times, and concurrently.
func (t Ticket) Wait(ctx context.Context) error {
	select {
	case <-t.g.synced:
		return t.g.syncErr
	case <-t.db.fault.ch:
		return t.db.fault.get()
	case <-ctx.Done():
		return &push.Error{Kind: push.KindUnavailable, Code: "storage_slow", Err: fmt.Errorf("embedded: wait: %w", ctx.Err())}
	}
}

// Applied waits until every reader sees the batch. The error is a fault, or nil; that of a zero Ticket is nil.
func (t Ticket) Applied() error {
	if t.g == nil {
		return nil
	}
	select {
	case <-t.g.applied:
		return t.g.applyErr
	case <-t.db.fault.ch:
		return t.db.fault.get()
	}
}

// Flushed waits until all that a reader may have seen before the call is durable, writes apart that nobody asked to flush. Its
// errors are those of [Ticket.Wait]: what was seen may then be lost. On a store where nothing is under way it costs a load.
func (db *DB) Flushed(ctx context.Context) error {
	g := db.latest.Load()
	if g == nil {
		return nil
	}
	select {
	case <-g.synced: // whatever failed since
		return g.syncErr
	default:
		return Ticket{db, g}.Wait(ctx)
	}
}

// Commit applies the batch and asks for its flush. When it returns without error every reader sees the batch; Wait on
// the ticket says when it is durable. Callers that hold a lock hold it over Commit and not over Wait. It takes the
// batch over, whatever it returns. It blocks while the disk lags far behind, and only then.
func (db *DB) Commit(b *Batch) (Ticket, error) {
	t, err := db.Submit(b, true)
	if err == nil {
		err = t.Applied()
	}
	return t, err
}

// CommitNoSync applies the batch and lets it be flushed with whatever comes later: a power cut may lose it, together
// with all that was applied after it and not flushed.
func (db *DB) CommitNoSync(b *Batch) error {
	t, err := db.Submit(b, false)
	if err == nil {
		err = t.Applied()
	}
	return err
}

// Sync makes durable what was committed without a flush and not flushed with anything else since. It does nothing if
// there is nothing.
func (db *DB) Sync(ctx context.Context) error {
	if !db.loose.Load() {
		return nil
	}
	return db.Write(ctx, db.NewBatch())
}

// Submit hands a batch to the committer and does not wait: batches are applied in the order of the calls, and who wants
// to see this one applied waits for [Ticket.Applied]. With flush unset nobody may Wait on the ticket. It is for callers
// that keep in memory what they wrote, so that the next writer needs no look at the store. It takes the batch over.
func (db *DB) Submit(b *Batch, flush bool) (Ticket, error) {
	db.mu.Lock()
	if db.closing {
		db.mu.Unlock()
		return Ticket{}, errClosed()
	}
	if err := db.fault.get(); err != nil {
		db.mu.Unlock()
		return Ticket{}, err
	}
	g := db.next
	if g == nil {
		g = &group{applied: make(chan struct{}), synced: make(chan struct{})}
		db.next = g
	}
	g.batches = append(g.batches, b)
	g.sync = g.sync || flush
	first := len(g.batches) == 1
	db.mu.Unlock()
	if first {
		db.wakeCommitter()
	}
	return Ticket{db, g}, nil
}

func (db *DB) wakeCommitter() {
	select {
	case db.wake <- struct{}{}:
	default:
	}
}

// takeGroup waits for the next group. It returns nil when the database closes and nothing is left.
func (db *DB) takeGroup() *group {
	for {
		db.mu.Lock()
		g, closing := db.next, db.closing
		db.next = nil
		db.mu.Unlock()
		if g != nil || closing {
			return g
		}
		<-db.wake
	}
}

// runCommitter applies groups in order until Close. It is the only goroutine that writes through Pebble.
func (db *DB) runCommitter() {
	defer close(db.syncs)
	unchecked := 0 // bytes since the last look at the backlog
	for g := db.takeGroup(); g != nil; g = db.takeGroup() {
		g.applyErr = db.fault.get()
		if g.applyErr == nil {
			if g.sync { // before anybody can see any of it
				db.latest.Store(g)
			}
			if unchecked >= roomEvery {
				unchecked = 0
				db.awaitRoom()
			}
			n, err := db.apply(g)
			unchecked += n
			g.applyErr = err
		}
		for _, b := range g.batches {
			db.Discard(b)
		}
		g.batches = nil
		ok := g.applyErr == nil
		db.loose.Store(!g.sync)
		close(g.applied)
		if ok && g.sync {
			db.syncs <- g
		}
	}
}

// apply writes a group, in several pieces if it is large. A panic of Pebble, which it answers a broken log with,
// becomes the fault.
func (db *DB) apply(g *group) (written int, err error) {
	defer func() {
		if r := recover(); r != nil {
			db.fault.set("commit", fmt.Errorf("panic: %v", r))
		}
		if err != nil {
			db.fault.set("commit", err)
		}
		if ferr := db.fault.get(); ferr != nil {
			err = ferr
		}
	}()
	for rest := g.batches; len(rest) > 0; {
		n, size := 1, rest[0].Len()
		for n < len(rest) && size+rest[n].Len() <= mergeBytes {
			size += rest[n].Len()
			n++
		}
		m := db.pdb.NewBatchWithSize(size)
		if err := db.merger.merge(m, rest[:n]); err != nil {
			return written, err
		}
		rest = rest[n:]
		written += size
		if len(rest) > 0 || !g.sync {
			// The log is a sequence: what the last piece's flush covers, it covers for the ones before.
			if err := db.pdb.Apply(m, pebble.NoSync); err != nil {
				return written, err
			}
			if err := m.Close(); err != nil {
				return written, err
			}
			continue
		}
		db.seq++
		g.seq = db.seq
		if err := m.Set(seqKey, binary.AppendUvarint(nil, g.seq), nil); err != nil {
			return written, err
		}
		if err := db.pdb.ApplyNoSyncWait(m, pebble.Sync); err != nil {
			return written, err
		}
		g.merged = m
	}
	return written, nil
}

// runSyncer waits for the flushes in the order of the writes, and tells the waiters.
func (db *DB) runSyncer() {
	for g := range db.syncs {
		if g.merged != nil {
			if err := g.merged.SyncWait(); err != nil {
				db.fault.set("sync", err)
			}
			if err := g.merged.Close(); err != nil {
				db.fault.set("sync", err)
			}
			g.merged = nil
		}
		if db.fault.get() == nil {
			if err := db.mark.write(g.seq); err != nil {
				db.fault.set("mark", err)
			}
		}
		// Logs hide their failure from Pebble, which therefore says yes: the fault, set before it was told anything, is
		// what counts.
		g.syncErr = db.fault.get()
		close(g.synced)
	}
}

// awaitRoom waits while flushes and compactions lag too far behind. Pebble has stalls of its own, but a writer in one
// of them could not be let go if the disk then failed.
func (db *DB) awaitRoom() {
	for {
		m := db.pdb.Metrics()
		if m.MemTable.Size < stallMemTables*memTableBytes && m.Levels[0].Sublevels < stallSublevels {
			return
		}
		select {
		case <-db.progress:
		case <-db.fault.ch:
			return
		}
	}
}

// noteProgress is called by Pebble when a flush or a compaction ended, with its locks held.
func (db *DB) noteProgress() {
	select {
	case db.progress <- struct{}{}:
	default:
	}
}

func (db *DB) start() {
	for _, f := range []func(){db.runCommitter, db.runSyncer} {
		db.workers.Add(1)
		go func(wg *sync.WaitGroup) {
			defer wg.Done()
			f()
		}(&db.workers)
	}
}
