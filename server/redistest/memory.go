package redistest

import (
	"context"
	"fmt"
	"strconv"
)

// Fill bounds the memory of every server so that what it holds now is so many percent of it: from a little over 100 on it refuses
// whatever may need more. A server that holds next to nothing is up and down by some percent with every connection.
func (r *Redis) Fill(ctx context.Context, percent int) error {
	return r.boundMemory(ctx, func(used int64) int64 { return max(1, used*100/int64(percent)) })
}

// Unfill gives servers the bound again that they were started with.
func (r *Redis) Unfill(ctx context.Context) error {
	return r.boundMemory(ctx, func(int64) int64 { return r.config.maxMemory })
}

func (r *Redis) boundMemory(ctx context.Context, bound func(used int64) int64) error {
	for _, n := range r.servers {
		if !n.answers() {
			continue
		}
		info, err := n.Info(ctx, "memory")
		if err != nil {
			return err
		}
		used, err := strconv.ParseInt(info["used_memory"], 10, 64)
		if err != nil {
			return fmt.Errorf("redistest: what %s uses: %w", n.name, err)
		}
		// Buffers of replicas and of the append-only file do not count to Redis itself.
		buffers, err := strconv.ParseInt(info["mem_not_counted_for_evict"], 10, 64)
		if err != nil {
			return fmt.Errorf("redistest: what %s uses: %w", n.name, err)
		}
		if err := n.client.ConfigSet(ctx, "maxmemory", strconv.FormatInt(bound(used-buffers), 10)).Err(); err != nil {
			return fmt.Errorf("redistest: bound the memory of %s: %w", n.name, err)
		}
	}
	return nil
}
