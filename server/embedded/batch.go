package embedded

import (
	"github.com/cockroachdb/pebble/v2"
)

// Batch is a set of writes that take effect together, later ones over earlier ones. It belongs to one goroutine, and to
// the database once it was given to Commit, which reuses its memory.
type Batch struct {
	b   pebble.Batch // bound to no database: only a buffer, which the committer merges
	err error        // the first failure while building; Commit returns it
}

// NewBatch returns an empty batch. One that is not committed is given back with [DB.Discard].
func (db *DB) NewBatch() *Batch { return db.batches.Get().(*Batch) }

// Discard gives back a batch that will not be committed.
func (db *DB) Discard(b *Batch) {
	b.b.Reset()
	b.err = nil
	db.batches.Put(b)
}

// Set stores value under key. Neither slice is kept.
func (b *Batch) Set(key, value []byte) { b.note(b.b.Set(key, value, nil)) }

// Delete removes key.
func (b *Batch) Delete(key []byte) { b.note(b.b.Delete(key, nil)) }

// DeleteRange removes every key from start on and below end. It is cheap however many there are.
func (b *Batch) DeleteRange(start, end []byte) { b.note(b.b.DeleteRange(start, end, nil)) }

// Empty reports whether nothing was put into the batch.
func (b *Batch) Empty() bool { return b.b.Empty() }

// Len returns the bytes that the batch will take in the log.
func (b *Batch) Len() int { return b.b.Len() }

func (b *Batch) note(err error) {
	if err != nil && b.err == nil {
		b.err = err
	}
}
