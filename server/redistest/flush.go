package redistest

import (
	"context"
	"fmt"
)

// FlushAll empties the deployment, functions and scripts included, as an operator would by mistake.
func (r *Redis) FlushAll(ctx context.Context) error {
	primaries, err := r.Primaries(ctx)
	if err != nil {
		return err
	}
	for _, n := range primaries {
		pipe := n.client.Pipeline()
		pipe.FlushAll(ctx)
		pipe.FunctionFlush(ctx)
		pipe.ScriptFlush(ctx)
		if _, err := pipe.Exec(ctx); err != nil {
			return fmt.Errorf("redistest: flush %s: %w", n.name, err)
		}
	}
	return nil
}
