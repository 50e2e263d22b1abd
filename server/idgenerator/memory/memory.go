// Package memory reserves blocks of ids in the process: for tests, and for nodes whose messages do not outlive them
// either. Ids of an earlier process are avoided by the clock alone.
package memory

import (
	"context"
	"sync"

	"carillon/server/clock"
	"carillon/server/idgenerator"
	"carillon/server/push"
)

// Config of Blocks. The zero value is useful.
type Config struct {
	Clock clock.Clock // nil: clock.System
}

// Blocks implements [idgenerator.Blocks].
type Blocks struct {
	clock clock.Clock

	mu   sync.Mutex
	next push.MsgID // guarded by mu
	used bool       // guarded by mu: a block was reserved under this lineage
}

var _ idgenerator.Blocks = (*Blocks)(nil)

// New returns blocks of which none is reserved.
func New(c Config) *Blocks {
	if c.Clock == nil {
		c.Clock = clock.System
	}
	return &Blocks{clock: c.Clock}
}

// Reserve never waits.
func (b *Blocks) Reserve(_ context.Context, size int64) (push.MsgID, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	first, err := idgenerator.First(b.next, size, push.Milli(b.clock.Now()), !b.used)
	if err != nil {
		return 0, err
	}
	b.next = first + push.MsgID(size)
	b.used = true
	return first, nil
}

// Mark notes which blocks are reserved. The function that it returns forgets those reserved since, under a new lineage,
// as a store that was set back does.
func (b *Blocks) Mark() (fallBack func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := b.next
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.next, b.used = next, false
	}
}
