package gateway

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"carillon/server/client"
	"carillon/server/push"
	"carillon/server/task"
	"carillon/server/transport"
)

// countsOf returns what the store has counted of a task.
func (n *testNode) countsOf(id string) map[task.Life]task.Counts {
	n.t.Helper()
	msg, err := push.ParseMsgID(id)
	if err != nil {
		n.t.Fatal(err)
	}
	all, err := n.stores.tasks.Counts(n.t.Context(), "shop", msg)
	if err != nil {
		n.t.Fatal(err)
	}
	return all
}

func TestTasks_AreCountedOverEveryTransportAndUnderAnotherLifeAfterARestart(t *testing.T) {
	fs := vfs.NewMem()
	n := start(t, fs)
	n.setUp()
	kinds := []transport.Kind{transport.WebSocket, transport.SSE, transport.LongPoll, transport.TCP}
	stores := make([]*client.Memory, len(kinds))
	watch := func(i int) *watcher {
		w := n.watchOver(kinds[i], n.token("alice", string(kinds[i])), stores[i])
		<-w.caught
		return w
	}
	for i := range kinds {
		stores[i] = &client.Memory{}
		defer watch(i).stop()
	}
	id := n.task(map[string]any{"to": map[string]any{"list": n.upload("text/csv", "user\nalice\n")}, "message": map[string]any{"body": "offer"}})
	n.awaitTask(id, "acknowledged by all", n.funnel(map[string]float64{"audience": 4, "stored": 4, "online": 4, "sent": 4, "acknowledged": 4}))
	n.publish("alice", "no task's")
	n.stop()

	key, sign := n.key, n.sign
	n = start(t, fs)
	n.key, n.sign = key, sign
	next := n.task(map[string]any{"to": map[string]any{"list": n.upload("text/csv", "user\nalice\n")}, "message": map[string]any{"body": "offer"}})
	for i := range kinds {
		defer watch(i).stop()
	}
	n.awaitTask(next, "acknowledged by all", func(a map[string]any) bool { return a["funnel"].(map[string]any)["acknowledged"] == 4.0 })
	lives := make(map[task.Life]bool)
	for _, task := range []string{id, next} {
		all := n.countsOf(task)
		if len(all) != 1 {
			t.Errorf("a task was counted in %d lives, want one: %v", len(all), all)
		}
		for life := range all {
			lives[life] = true
		}
	}
	if len(lives) != 2 {
		t.Errorf("both lives of the room are %v", lives)
	}
}
