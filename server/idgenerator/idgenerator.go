// Package idgenerator gives message ids: positive int64 numbers, unique across the cluster and for ever.
//
// # Place in the flow
//
// Center takes one id for each message before it publishes it. A [Generator] works in blocks of ids, each reserved
// durably in the store ([Blocks]) before the first id of it is used; what a process had left when it ended is skipped.
// Implementations of Blocks are memory, pebble and (on several nodes) redis, behind the suite idgeneratortest.
//
// # Invariants
//
//   - A block is on the disk before Reserve returns, so no restart gives it again.
//   - A block begins at the clock's milliseconds << [TimeShift] or above, so that a store that was set back, to a
//     backup or to a replica that had seen less, goes on above what was given since.
//   - The first block under a new lineage of the store begins a minute above the clock, since the clock of whoever gave
//     the last ids may have been ahead. The minute counts from the clock, not from the last block: so ids are never
//     further than that ahead of it, however often a process restarts, and a store that is set back behind many
//     restarts still goes on above them all.
//   - The clock may go back as far as it likes: blocks never do, while the store keeps what it holds. Only a store set
//     back together with a clock set back could give an id twice.
//
// Ids name messages. They never order them, and the moment in their high bits is no one's creation time: a quiet node
// gives out a block for hours.
package idgenerator

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"

	"carillon/server/push"
)

// TimeShift is how many low bits of an id lie below the milliseconds since 1970.
const TimeShift = 12

// LineageSkip is how far above the clock the first block under a new lineage begins: a minute's worth of ids.
const LineageSkip = 60_000 << TimeShift

// Blocks reserves blocks of ids in a store. It is safe for concurrent use.
type Blocks interface {
	// Reserve returns the first of size ids that nobody else gets, ever. They are reserved durably when it returns. An
	// error reserves nothing that will be used; KindUnavailable: try again later. size is above 0.
	Reserve(ctx context.Context, size int64) (first push.MsgID, err error)
}

// First returns where a block begins: next is the id after the last one ever reserved (0: none was), fresh says that
// nothing was reserved under the store's present lineage yet. The store keeps first + size as its next. KindInternal,
// code "ids_exhausted", if there are no ids above: which takes three hundred thousand years, or a clock that far ahead.
func First(next push.MsgID, size int64, now push.MilliTime, fresh bool) (push.MsgID, error) {
	if size <= 0 {
		return 0, push.Errorf(push.KindInternal, "invalid_block", "a block has at least one id")
	}
	if now > math.MaxInt64>>(TimeShift+1) || next > math.MaxInt64/2 || size > math.MaxInt64/4 {
		return 0, push.Errorf(push.KindInternal, "ids_exhausted", "no message ids are left")
	}
	base := push.MsgID(max(now, 0)) << TimeShift
	if fresh {
		base += LineageSkip
	}
	return max(next, base, 1), nil
}

// DefaultBlock is how many ids a generator reserves at once: more than half a second's worth at the highest rate of one
// node.
const DefaultBlock = 1 << 16

// Config of a Generator. The zero value is useful.
type Config struct {
	Block int64 // ids in a block; 0: DefaultBlock
}

// Generator gives ids out of reserved blocks. It is safe for concurrent use and has no goroutine of its own: whoever
// takes the id in the middle of a block reserves the next one before returning, while the others go on with the rest.
type Generator struct {
	// Static after New.
	blocks Blocks
	size   int64

	current atomic.Pointer[block]

	// turn is a mutex that can be waited for with a context; whoever has put a token in owns the fields below.
	turn  chan struct{}
	spare *block
	above push.MsgID // every block so far lies below
}

// block is a range of ids. Those who come too late push next past end, which harms nothing.
type block struct {
	next atomic.Int64
	low  int64 // whoever gets this one reserves the next block
	end  int64
}

// New returns a generator. It reserves nothing before the first Next.
func New(b Blocks, c Config) (*Generator, error) {
	if c.Block == 0 {
		c.Block = DefaultBlock
	}
	if b == nil || c.Block < 1 {
		return nil, push.Errorf(push.KindInvalid, "invalid_config", "ids come in blocks of at least one")
	}
	return &Generator{blocks: b, size: c.Block, turn: make(chan struct{}, 1)}, nil
}

// Next returns an id that was never returned before, by whatever process. It costs an atomic addition, but where a
// block has to be reserved, which is a flush of the store, and which ctx bounds.
func (g *Generator) Next(ctx context.Context) (push.MsgID, error) {
	for {
		b := g.current.Load()
		if b != nil {
			if n := b.next.Add(1) - 1; n < b.end {
				if n == b.low {
					g.prepare(ctx, b)
				}
				return push.MsgID(n), nil
			}
		}
		if err := g.renew(ctx, b); err != nil {
			return 0, fmt.Errorf("idgenerator: next: %w", err)
		}
	}
}

// prepare reserves a block for when this one is used up. A failure is left to whoever then needs one.
func (g *Generator) prepare(ctx context.Context, b *block) {
	if g.lock(ctx) != nil {
		return
	}
	defer g.unlock()
	if g.current.Load() == b && g.spare == nil {
		if next, err := g.reserve(ctx); err == nil {
			g.spare = next
		}
	}
}

// renew replaces a used-up block (nil: the first) by the spare one, or a new one, unless somebody else just did.
func (g *Generator) renew(ctx context.Context, old *block) error {
	if err := g.lock(ctx); err != nil {
		return err
	}
	defer g.unlock()
	if g.current.Load() != old {
		return nil
	}
	next := g.spare
	g.spare = nil
	if next == nil {
		var err error
		if next, err = g.reserve(ctx); err != nil {
			return err
		}
	}
	g.current.Store(next)
	return nil
}

// reserve gets a block; the caller has the turn. It refuses one that overlaps an earlier one, whatever the store says.
func (g *Generator) reserve(ctx context.Context) (*block, error) {
	first, err := g.blocks.Reserve(ctx, g.size)
	if err != nil {
		return nil, err
	}
	if first <= 0 || first < g.above || int64(first) > math.MaxInt64-g.size {
		return nil, push.Errorf(push.KindInternal, "block_repeated", "the store reserved ids that were reserved before")
	}
	b := &block{low: int64(first) + g.size/2, end: int64(first) + g.size}
	b.next.Store(int64(first))
	g.above = push.MsgID(b.end)
	return b, nil
}

func (g *Generator) lock(ctx context.Context) error {
	select {
	case g.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return &push.Error{Kind: push.KindUnavailable, Code: "ids_slow", Err: ctx.Err()}
	}
}

func (g *Generator) unlock() { <-g.turn }
