package redis

import (
	"context"
	"sync"

	"carillon/server/push"
	"carillon/server/saver"
)

// claim names what must not be done twice at once by one node: the request of an idempotency key. Between nodes the record of
// the key decides, and both do the work, of which one half finds it done; within a node that can be spared.
type claim struct {
	product push.ProductID
	key     saver.IdempotencyKey
}

// claims holds those under way. Whoever holds one waits for no other: callers take what they can without waiting, finish and
// release it, and wait for somebody else's only with empty hands.
type claims struct {
	mu   sync.Mutex
	busy map[claim]chan struct{} // guarded by mu; closed on release; nil while nobody waits
}

// try takes a claim, or returns the channel that is closed when its holder is done.
func (c *claims) try(k claim) (busy <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch, ok := c.busy[k]; ok {
		if ch == nil {
			ch = make(chan struct{})
			c.busy[k] = ch
		}
		return ch
	}
	if c.busy == nil {
		c.busy = make(map[claim]chan struct{})
	}
	c.busy[k] = nil
	return nil
}

func (c *claims) release(k claim) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch := c.busy[k]; ch != nil {
		close(ch)
	}
	delete(c.busy, k)
}

// await waits for somebody else's claim to be released.
func await(ctx context.Context, busy <-chan struct{}) error {
	select {
	case <-busy:
		return nil
	case <-ctx.Done():
		return unavailable(ctx.Err())
	}
}
