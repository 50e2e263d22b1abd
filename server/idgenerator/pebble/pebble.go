// Package pebble reserves blocks of ids in the embedded database. One key holds the id after the last one reserved;
// each reservation is flushed to the disk before it is used. The lineage is that of the open database, so the first
// block after each start begins a minute above the clock.
package pebble

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"

	"carillon/server/clock"
	"carillon/server/embedded"
	"carillon/server/failpoint"
	"carillon/server/idgenerator"
	"carillon/server/planted"
	"carillon/server/push"
)

// Config of Blocks.
type Config struct {
	DB    *embedded.DB
	Clock clock.Clock // nil: clock.System
}

// Blocks implements [idgenerator.Blocks]. It has no state that needs closing; there is one for a database.
type Blocks struct {
	db    *embedded.DB
	clock clock.Clock

	mu   sync.Mutex
	next push.MsgID // guarded by mu; as stored, or about to be
	used bool       // guarded by mu: a block was reserved since the database was opened
}

var _ idgenerator.Blocks = (*Blocks)(nil)

var nextKey = append([]byte{byte(embedded.SpaceIDs)}, "next"...)

// New reads what is reserved. KindInternal, code "ids_damaged", if that makes no sense.
func New(c Config) (*Blocks, error) {
	if c.DB == nil {
		return nil, push.Errorf(push.KindInvalid, "invalid_config", "ids need a database")
	}
	if c.Clock == nil {
		c.Clock = clock.System
	}
	b := &Blocks{db: c.DB, clock: c.Clock}
	v, found, err := c.DB.Get(nil, nextKey)
	if err != nil {
		return nil, fmt.Errorf("idgenerator: open: %w", err)
	}
	if found {
		n, size := binary.Uvarint(v)
		if size != len(v) || n == 0 || n >= 1<<63 {
			return nil, push.Errorf(push.KindInternal, "ids_damaged", "the stored message id is damaged")
		}
		b.next = push.MsgID(n)
	}
	return b, nil
}

// Reserve applies under the lock, which orders the writes, and waits for the flush outside.
func (b *Blocks) Reserve(ctx context.Context, size int64) (push.MsgID, error) {
	first, ticket, err := b.write(size)
	if err == nil && !planted.Is(planted.IDsBeforeBound) {
		err = ticket.Wait(ctx)
	}
	if err != nil {
		return 0, fmt.Errorf("idgenerator: reserve: %w", err)
	}
	failpoint.Hit(failpoint.IDsReserved)
	return first, nil
}

// write moves next on. What fails after that is lost as ids, and never given again.
func (b *Blocks) write(size int64) (push.MsgID, embedded.Ticket, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	first, err := idgenerator.First(b.next, size, push.Milli(b.clock.Now()), !b.used)
	if err != nil {
		return 0, embedded.Ticket{}, err
	}
	if planted.Is(planted.IDsBeforeBound) { // and the clock, which guards ids a second time, is not asked
		first = max(b.next, 1)
	}
	b.next = first + push.MsgID(size)
	b.used = true
	batch := b.db.NewBatch()
	batch.Set(nextKey, binary.AppendUvarint(nil, uint64(b.next)))
	ticket, err := b.db.Commit(batch)
	return first, ticket, err
}
