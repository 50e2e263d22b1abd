//go:build unix

package redis

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"carillon/server/failpoint"
	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/saver"
	"carillon/server/saver/savertest"
)

// redisVariable tells a test that it is the node that is to die, and where Redis is; caseVariable what it does.
const (
	redisVariable = "SAVER_REDIS_OF_CHILD"
	caseVariable  = "SAVER_CASE_OF_CHILD"
)

// childCases are what a node does until it dies.
var childCases = map[string]func(ctx context.Context, s *Store) error{
	"publish": func(ctx context.Context, s *Store) error {
		c := faultCases[2]
		return s.Publish(ctx, []*saver.Publication{c.publication(100, "k")})[0].Err
	},
	"recall": func(ctx context.Context, s *Store) error {
		c := faultCases[2]
		if r := s.Publish(ctx, []*saver.Publication{c.publication(100, "k")})[0]; r.Err != nil {
			return r.Err
		}
		_, err := s.Recall(ctx, saver.Recall{Product: shop, Shards: savertest.Shards, ID: 100})
		return err
	},
	"task": func(ctx context.Context, s *Store) error {
		k := taskOfChild()
		if err := s.Fence(ctx, k.fence(1)); err != nil {
			return err
		}
		return s.Batches(ctx, k.batches(1))[0].Err
	},
}

// taskOfChild is the task that the node runs which is to die, and then another one. It goes by the clocks of both.
func taskOfChild() *taskOf {
	m := &push.Message{ID: 100, Persistent: true, Created: 1, Body: []byte(strings.Repeat("x", 1000))}
	m.Expires = push.Milli(time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC))
	return &taskOf{size: 3, m: m}
}

// TestChild is the node that dies. By itself it does nothing.
func TestChild(t *testing.T) {
	address := os.Getenv(redisVariable)
	if address == "" {
		return
	}
	ctx := context.Background()
	db, err := redisdb.Open(ctx, redisdb.Config{Addrs: []string{address}})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s, err := New(Config{DB: db, Shards: func(push.ProductID) int { return savertest.Shards }})
	if err != nil {
		t.Fatal(err)
	}
	if err := childCases[os.Getenv(caseVariable)](ctx, s); err != nil {
		t.Fatal(err)
	}
}

// killPoints says what a node does when it is killed at each point, and what lies in each slot once others have finished it, and
// once the request came again.
var killPoints = map[failpoint.Name]struct{ does, finished, again string }{
	failpoint.SaverKeyClaimed:     {"publish", "", "100 "},
	failpoint.SaverBodyStored:     {"publish", "", "100 "},
	failpoint.SaverIntentStored:   {"publish", "100 ", "100 "},
	failpoint.SaverPublishApplied: {"publish", "100 ", "100 "},
	failpoint.SaverPublishSynced:  {"publish", "100 ", "100 "},
	failpoint.SaverRecallStored:   {"recall", "-100 ", "-100 "},
	failpoint.SaverRecallApplied:  {"recall", "-100 ", "-100 "},
}

// taskKillPoints are those of a running task.
var taskKillPoints = []failpoint.Name{failpoint.SaverFenceApplied, failpoint.SaverBatchApplied}

// TestKilled_AtEachFailpointOthersFinish kills a process of ours, as a crash does, at each point.
func TestKilled_AtEachFailpointOthersFinish(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "child.test")
	if out, err := exec.Command("go", "test", "-c", "-tags", "failpoints", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range failpoint.OnRedis() {
		if _, ok := killPoints[name]; !ok {
			t.Errorf("failpoint %s has no case", name)
		}
	}
	kill := func(t *testing.T, f *fixture, does string, at failpoint.Name) {
		child := exec.Command(binary, "-test.run", "^TestChild$")
		child.Env = append(os.Environ(), redisVariable+"="+f.redis.Access().Addrs[0], caseVariable+"="+does,
			fmt.Sprintf("CARILLON_FAILPOINT=%s=kill", at))
		out, err := child.CombinedOutput()
		if err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("the node was not killed: %v\n%s", err, out)
		}
	}
	for i, name := range taskKillPoints {
		t.Run(string(name), func(t *testing.T) {
			f := newFixture(t, pool.Standalone(t), 1, Config{})
			kill(t, f, "task", name)
			s, k := f.nodes[0].store, taskOfChild()
			mustFence(t, s, k.fence(2))
			for _, r := range s.Batches(t.Context(), k.batches(1)) {
				if !isFenced(r.Err) {
					t.Fatalf("a batch of the node that died: %+v", r)
				}
			}
			for range 2 {
				for _, r := range mustBatch(t, s, k.batches(2)) {
					if i > 0 && !r.Found {
						t.Fatal("a batch that was written before the kill is not found")
					}
				}
				k.wantEach(t, s, "100 ")
			}
		})
	}
	c := faultCases[2]
	for name, k := range killPoints {
		t.Run(string(name), func(t *testing.T) {
			f := newFixture(t, pool.Standalone(t), 1, Config{})
			kill(t, f, k.does, name)
			// The child went by the server's clock.
			f.clock.Advance(time.Since(f.clock.Now()) + leaseFor + time.Second)
			s := f.nodes[0].store
			for range 2 {
				if err := s.Finish(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			c.wantEach(t, s, k.finished, false)
			if n := f.pending(t); n > 0 {
				t.Fatalf("%d publications are not finished", n)
			}
			r := s.Publish(t.Context(), []*saver.Publication{c.publication(200, "k")})[0]
			if r.Err != nil || !r.Repeated || r.Message.ID != 100 {
				t.Fatalf("the repeat: %+v", r)
			}
			c.wantEach(t, s, k.again, false)
		})
	}
}
