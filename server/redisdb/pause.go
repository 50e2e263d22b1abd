package redisdb

import (
	"context"
	"math/rand/v2"
	"time"
)

// pauseDoublings is how often the longest pause is doubled: from one to 64 ms.
const pauseDoublings = 6

// Pause waits a moment before another try at what somebody else was faster with, the longer the more tries there were, so that those who met part. Before the first,
// try 0, it does not wait. What it returns is ctx's error.
func Pause(ctx context.Context, try int) error {
	if try <= 0 {
		return nil
	}
	t := time.NewTimer(rand.N(time.Millisecond << min(try, pauseDoublings)))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
