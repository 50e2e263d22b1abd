package gateway

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"carillon/server/client"
	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/task"
	"carillon/server/transport"
)

// countKeeper adds up what rooms count of one task.
type countKeeper struct {
	mu sync.Mutex
	of map[task.Life]task.Counts
}

func (k *countKeeper) Count(_ context.Context, cs []task.Counted) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range cs {
		sum := k.of[c.Life]
		sum.Add(c.Counts)
		k.of[c.Life] = sum
	}
	return nil
}

func (k *countKeeper) sum() (lives int, all task.Counts) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.of {
		all.Add(c)
	}
	return len(k.of), all
}

func (k *countKeeper) await(t *testing.T, lives int, want task.Counts) {
	t.Helper()
	eventually(t, 10*time.Second, func() bool {
		n, got := k.sum()
		return n == lives && got == want
	}, func() string {
		n, got := k.sum()
		return fmt.Sprintf("%d lives counted %v, want %d and %v", n, got, lives, want)
	})
}

// publishTask stores a task's message for alice and tells the room of it, as who runs tasks will.
func (n *testNode) publishTask(id push.MsgID) {
	n.t.Helper()
	policy, err := n.Gateway.policy(n.t.Context(), "shop")
	if err != nil {
		n.t.Fatal(err)
	}
	p := &saver.Publication{
		Product: "shop", Shards: policy.Shards, Limits: policy.Limits.WithDefaults(), TTL: time.Hour, Own: []saver.Target{{User: "alice"}},
		Message: &push.Message{ID: id, Body: []byte(`"offer"`), Persistent: true, Task: true},
	}
	r := n.stores.saver.Publish(n.t.Context(), []*saver.Publication{p})[0]
	if r.Err != nil {
		n.t.Fatal(r.Err)
	}
	n.room.Deliver(&push.Delivery{
		Product: "shop", Message: r.Message, Lineage: r.Lineage, Own: []push.OwnPlace{{User: "alice", Place: r.Own[0].Place}},
	})
}

func TestGateway_CountsWhatBecomesOfATaskOverEveryTransport(t *testing.T) {
	fs, counts := vfs.NewMem(), &countKeeper{of: make(map[task.Life]task.Counts)}
	n := startWith(t, fs, func(c *Config) { c.Counts = counts })
	n.setUp()
	kinds := []transport.Kind{transport.WebSocket, transport.SSE, transport.LongPoll, transport.TCP}
	for _, kind := range kinds {
		w := n.watchOver(kind, n.token("alice", string(kind)), &client.Memory{})
		<-w.caught
		defer w.stop()
	}
	n.publish("alice", "no task's")
	n.publishTask(1 << 50)
	all := int64(len(kinds))
	counts.await(t, 1, task.Counts{task.Sent: all, task.Acknowledged: all})
	n.stop()
	key, sign := n.key, n.sign
	n = startWith(t, fs, func(c *Config) { c.Counts = counts })
	n.key, n.sign = key, sign
	n.publishTask(1<<50 + 1)
	w := n.watchOver(transport.WebSocket, n.token("alice", string(transport.WebSocket)), &client.Memory{})
	defer w.stop()
	counts.await(t, 2, task.Counts{task.Sent: all + 1, task.Acknowledged: all + 1})
}
