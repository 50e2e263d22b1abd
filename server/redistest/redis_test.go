package redistest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

var pool Pool

func TestMain(m *testing.M) { goleak.VerifyTestMain(pool.Closing(m)) }

var forms = []Form{FormStandalone, FormReplicated, FormSentinel, FormCluster}

// client returns a client that reaches the deployment as Carillon does.
func client(t *testing.T, r *Redis) redis.UniversalClient {
	t.Helper()
	c := redis.NewUniversalClient(r.Access().Options())
	t.Cleanup(func() { c.Close() })
	return c
}

func TestEveryForm_TakesAWriteAsSoonAsItIsReturned(t *testing.T) {
	for _, form := range forms {
		t.Run(string(form), func(t *testing.T) {
			began := time.Now()
			r := start(t, form, nil)
			t.Logf("up after %v", time.Since(began).Round(time.Millisecond))
			c := client(t, r)
			for i := range 20 {
				if err := c.Set(t.Context(), fmt.Sprint("key:", i), "alice", 0).Err(); err != nil {
					t.Fatal(err)
				}
			}
			primaries, err := r.Primaries(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			keys := int64(0)
			for _, n := range primaries {
				keys += n.Client().DBSize(t.Context()).Val()
			}
			if keys != 20 {
				t.Errorf("the primaries hold %d keys, want 20", keys)
			}
		})
	}
}

func TestEveryForm_LeavesNoProcessAndNoFileBehind(t *testing.T) {
	for _, form := range forms {
		t.Run(string(form), func(t *testing.T) {
			r, err := Start(t.Context(), form)
			if err != nil {
				t.Fatal(err)
			}
			var pids []int
			for _, n := range r.Nodes() {
				pids = append(pids, n.PID())
				if !runs(n) {
					t.Errorf("%s: no process %d with its directory", n.Name(), n.PID())
				}
			}
			nodes := r.Nodes()
			dir := r.dir
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			for i, n := range nodes {
				if _, err := os.Stat(fmt.Sprintf("/proc/%d", pids[i])); err == nil {
					t.Errorf("%s: process %d is still there", n.Name(), pids[i])
				}
			}
			if _, err := os.Stat(dir); err == nil {
				t.Errorf("%s is still there", dir)
			}
		})
	}
}

// runs reports whether the node's process is one that was started with the node's configuration.
func runs(n *Node) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", n.PID()))
	return err == nil && strings.Contains(string(b), ":"+n.port.String())
}

func TestRestart_KeepsPortAndWhatWasWritten(t *testing.T) {
	r := Standalone(t)
	n := r.Servers()[0]
	if err := n.Client().Set(t.Context(), "alice", "here", 0).Err(); err != nil {
		t.Fatal(err)
	}
	addr, pid := n.Addr(), n.PID()
	n.Kill()
	if n.PID() != 0 {
		t.Error("it runs after Kill")
	}
	if err := n.Client().Ping(t.Context()).Err(); err == nil {
		t.Error("it answers after Kill")
	}
	if err := n.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n.Addr() != addr || n.PID() == pid || n.PID() == 0 {
		t.Errorf("it was %d at %s and is %d at %s", pid, addr, n.PID(), n.Addr())
	}
	if got := n.Client().Get(t.Context(), "alice").Val(); got != "here" {
		t.Errorf("it holds %q of what was written before kill -9", got)
	}
}

func TestNoAppendOnly_LosesAllAtAKill(t *testing.T) {
	r := Standalone(t, NoAppendOnly())
	n := r.Servers()[0]
	if err := n.Client().Set(t.Context(), "alice", "here", 0).Err(); err != nil {
		t.Fatal(err)
	}
	n.Kill()
	if err := n.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := n.Client().Exists(t.Context(), "alice").Val(); got != 0 {
		t.Error("what was never written to disk is there after kill -9")
	}
}

func TestRestart_OfWhatRunsIsAnError(t *testing.T) {
	n := pool.Standalone(t).Servers()[0]
	if err := n.Restart(t.Context()); err == nil {
		t.Error("a second process was started")
	}
}

func TestAwait_SaysWhatIsMissing(t *testing.T) {
	r := Replicated(t)
	r.Servers()[1].Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := r.Await(ctx)
	if err == nil || !strings.Contains(err.Error(), "server-1 does not run") {
		t.Errorf("with a replica dead: %v", err)
	}
	if err := r.Servers()[1].Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.Await(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestDeployments_DoNotMeet(t *testing.T) {
	for i := range 2 {
		for _, form := range []Form{FormSentinel, FormCluster} {
			t.Run(fmt.Sprint(form, i), func(t *testing.T) {
				t.Parallel()
				r := start(t, form, nil)
				c := client(t, r)
				if err := c.Set(t.Context(), "who", i, 0).Err(); err != nil {
					t.Fatal(err)
				}
				if err := r.Await(t.Context()); err != nil { // it counts whom every node knows
					t.Error(err)
				}
				if got, err := c.Get(t.Context(), "who").Int(); got != i {
					t.Errorf("deployment %d holds the value of %d (%v)", i, got, err)
				}
			})
		}
	}
}

func TestPool_LendsTheSameEmptyDeploymentAgain(t *testing.T) {
	for _, form := range forms {
		t.Run(string(form), func(t *testing.T) {
			var p Pool
			defer p.Close()
			var first *Redis
			t.Run("first", func(t *testing.T) {
				first = p.Take(t, form)
				c := client(t, first)
				if err := c.Set(t.Context(), "alice", 1, 0).Err(); err != nil {
					t.Fatal(err)
				}
				if other := p.Take(t, form); other == first {
					t.Error("two have the same deployment at once")
				}
			})
			t.Run("second", func(t *testing.T) {
				began := time.Now()
				a, b := p.Take(t, form), p.Take(t, form)
				t.Logf("two lent after %v", time.Since(began))
				if a != first && b != first {
					t.Error("it was started anew")
				}
				if got := client(t, first).Exists(t.Context(), "alice").Val(); got != 0 {
					t.Error("it is not empty")
				}
			})
		})
	}
}

func TestPool_ThrowsAwayWhatCameBackChanged(t *testing.T) {
	cases := []struct {
		claim  string
		change func(*testing.T, *Node)
	}{
		{"a setting", func(t *testing.T, n *Node) {
			if err := n.Client().ConfigSet(t.Context(), "maxmemory", "50mb").Err(); err != nil {
				t.Fatal(err)
			}
		}},
		{"a dead process", func(_ *testing.T, n *Node) { n.Kill() }},
	}
	for _, c := range cases {
		t.Run(c.claim, func(t *testing.T) {
			var p Pool
			defer p.Close()
			var first *Redis
			t.Run("first", func(t *testing.T) {
				first = p.Standalone(t)
				c.change(t, first.Servers()[0])
			})
			t.Run("second", func(t *testing.T) {
				if p.Standalone(t) == first {
					t.Error("it was lent again")
				}
			})
		})
	}
}

func TestStart_SaysWhichPackageIsMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	r, err := Start(t.Context(), FormStandalone)
	if err == nil {
		r.Close()
		t.Fatal("a Redis was started without the program")
	}
	if !strings.Contains(err.Error(), "Debian's package redis-server") {
		t.Errorf("told as: %v", err)
	}
}

func TestStart_OfAServerThatDoesNotBearItsSettingsSaysWhy(t *testing.T) {
	r, err := Start(t.Context(), FormStandalone, Setting("maxmemory-policy", "whatever"))
	if err == nil {
		r.Close()
		t.Fatal("it started")
	}
	if !strings.Contains(err.Error(), "maxmemory-policy") {
		t.Errorf("told as: %v", err)
	}
}

func TestDir_IsWhereTheFilesAreAndStays(t *testing.T) {
	dir := t.TempDir()
	r, err := Start(t.Context(), FormStandalone, Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "server-0", logFile)); err != nil {
		t.Error(err)
	}
}
