package embedded

import (
	"bytes"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// Batch is a set of writes that take effect together, later ones over earlier ones. It belongs to one goroutine, and to
// the database once it was given to Commit, which reuses its memory.
type Batch struct {
	buf []byte // keys and values
	ops []op
}

// op is one write. Its bytes lie in the buffer of its batch.
type op struct {
	kind     opKind
	key, end int // of the key: buf[key:end]
	valueEnd int // of the value, or of the end of a range: buf[end:valueEnd]
}

type opKind uint8

const (
	opSet opKind = iota
	opDelete
	opDeleteRange
)

// batchKept is the largest buffer that is kept for reuse.
const batchKept = 256 << 10

// NewBatch returns an empty batch. One that is not committed is given back with [DB.Discard].
func (db *DB) NewBatch() *Batch { return db.batches.Get().(*Batch) }

// Discard gives back a batch that will not be committed.
func (db *DB) Discard(b *Batch) {
	if cap(b.buf) > batchKept {
		b.buf = nil
	}
	b.buf, b.ops = b.buf[:0], b.ops[:0]
	db.batches.Put(b)
}

func (b *Batch) add(k opKind, key, value []byte) {
	at := len(b.buf)
	b.buf = append(append(b.buf, key...), value...)
	b.ops = append(b.ops, op{k, at, at + len(key), len(b.buf)})
}

// Set stores value under key. Neither slice is kept.
func (b *Batch) Set(key, value []byte) { b.add(opSet, key, value) }

// Delete removes key.
func (b *Batch) Delete(key []byte) { b.add(opDelete, key, nil) }

// DeleteRange removes every key from start on and below end. It is cheap however many there are.
func (b *Batch) DeleteRange(start, end []byte) { b.add(opDeleteRange, start, end) }

// Empty reports whether nothing was put into the batch.
func (b *Batch) Empty() bool { return len(b.ops) == 0 }

// opBytes is about what an operation takes in the log beside key and value.
const opBytes = 5

// Len returns about how many bytes the batch will take in the log.
func (b *Batch) Len() int { return len(b.buf) + opBytes*len(b.ops) }

// merger puts batches into one of Pebble's, sorted by key: the write buffer finds the place of a key quickly if it is
// near that of the last one, and searching it is the greatest part of a write. Of several writes to one key only the
// last is made. It belongs to the committer, which reuses its memory.
type merger struct{ ops []mergedOp }

type mergedOp struct {
	kind       opKind
	key, value []byte
}

// merge writes batches into m, in their order.
func (g *merger) merge(m *pebble.Batch, batches []*Batch) error {
	g.ops = g.ops[:0]
	sortable := true
	for _, b := range batches {
		for _, o := range b.ops {
			g.ops = append(g.ops, mergedOp{o.kind, b.buf[o.key:o.end], b.buf[o.end:o.valueEnd]})
			sortable = sortable && o.kind != opDeleteRange // which must stay where it is among the others
		}
	}
	if sortable {
		slices.SortStableFunc(g.ops, func(a, b mergedOp) int { return bytes.Compare(a.key, b.key) })
	}
	for i := range g.ops {
		o := &g.ops[i]
		if sortable && i+1 < len(g.ops) && bytes.Equal(o.key, g.ops[i+1].key) {
			continue
		}
		var err error
		switch o.kind {
		case opSet:
			err = m.Set(o.key, o.value, nil)
		case opDelete:
			err = m.Delete(o.key, nil)
		case opDeleteRange:
			err = m.DeleteRange(o.key, o.value, nil)
		}
		if err != nil {
			return err
		}
	}
	clear(g.ops) // they point into batches that others will use
	return nil
}
