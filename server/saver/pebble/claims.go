package pebble

import (
	"context"
	"sync"

	"carillon/server/push"
	"carillon/server/saver"
)

// claim names a piece of work that must not be done twice at once, nor be answered from before it is flushed: an
// idempotency key, or the recall of a message.
type claim struct {
	product push.ProductID
	key     saver.IdempotencyKey // empty for a recall
	recall  push.MsgID           // 0 for a key
}

// claims holds those under way. Whoever holds one waits for no other: callers take what they can without waiting,
// finish and release it, and wait for somebody else's only with empty hands.
type claims struct {
	shards [64]struct {
		mu   sync.Mutex
		busy map[claim]chan struct{} // guarded by mu; the channel is closed on release
	}
}

// try takes a claim, by its hash, or returns the channel that is closed when its holder is done.
func (c *claims) try(hash uint64, k claim) (busy <-chan struct{}) {
	sh := &c.shards[hash%uint64(len(c.shards))]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if ch, ok := sh.busy[k]; ok {
		if ch == nil { // the first to wait makes the channel: nearly nobody ever does
			ch = make(chan struct{})
			sh.busy[k] = ch
		}
		return ch
	}
	if sh.busy == nil {
		sh.busy = make(map[claim]chan struct{})
	}
	sh.busy[k] = nil
	return nil
}

func (c *claims) release(hash uint64, k claim) {
	sh := &c.shards[hash%uint64(len(c.shards))]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if ch := sh.busy[k]; ch != nil {
		close(ch)
	}
	delete(sh.busy, k)
}

// take waits for the claim; the caller holds none.
func (c *claims) take(ctx context.Context, hash uint64, k claim) error {
	for {
		busy := c.try(hash, k)
		if busy == nil {
			return nil
		}
		if err := await(ctx, busy); err != nil {
			return err
		}
	}
}

// await waits for somebody else's claim to be released.
func await(ctx context.Context, busy <-chan struct{}) error {
	select {
	case <-busy:
		return nil
	case <-ctx.Done():
		return &push.Error{Kind: push.KindUnavailable, Code: "storage_slow", Err: ctx.Err()}
	}
}
