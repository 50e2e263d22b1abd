package redistest

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// nowhere is a port on which nobody listens.
const nowhere = "1"

// ReadOnly makes a server refuse writes, as one does that was demoted and finds its new primary gone. Sentinels take one that was
// the primary for down; a cluster's server cannot be made so.
func (n *Node) ReadOnly(ctx context.Context) error {
	if err := n.client.ReplicaOf(ctx, n.host, nowhere).Err(); err != nil {
		return fmt.Errorf("redistest: make %s read-only: %w", n.name, err)
	}
	return nil
}

// Writable undoes ReadOnly. The server is a primary of a new lineage then.
func (n *Node) Writable(ctx context.Context) error {
	if err := n.client.ReplicaOf(ctx, "NO", "ONE").Err(); err != nil {
		return fmt.Errorf("redistest: make %s writable: %w", n.name, err)
	}
	return nil
}

// Sleep keeps a server busy for so long with one command, and returns when it is over.
func (n *Node) Sleep(ctx context.Context, d time.Duration) error {
	c := n.client.WithTimeout(d + patience)
	if err := c.Process(ctx, redis.NewStatusCmd(ctx, "DEBUG", "SLEEP", fmt.Sprintf("%.3f", d.Seconds()))); err != nil {
		return fmt.Errorf("redistest: keep %s busy: %w", n.name, err)
	}
	return nil
}
