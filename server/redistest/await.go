package redistest

import (
	"context"
	"fmt"
	"time"
)

// askEvery is how often a state is asked for that Redis tells nobody by itself.
const askEvery = 10 * time.Millisecond

// patience is how long anything may take, on a machine that has other things to do: a sentinel that was kept waiting for two seconds does
// nothing for half a minute. A caller's context may have less.
const patience = 2 * time.Minute

// await asks until ok has no objection. The error of a context that ends meanwhile says what the last one was.
func await(ctx context.Context, what string, ok func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	again := time.NewTicker(askEvery)
	defer again.Stop()
	var last error
	for {
		err := ok(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil { // not that the context ended while we asked
			last = err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("redistest: waiting until %s: %w: %w", what, context.Cause(ctx), last)
		}
	}
}
