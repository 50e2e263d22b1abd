package redistest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"carillon/server/proxytest"
)

var withReplicas = []Form{FormReplicated, FormSentinel, FormCluster}

// soon asks until ok has no objection.
func soon(t *testing.T, what string, ok func(context.Context) error) {
	t.Helper()
	if err := await(t.Context(), what, ok); err != nil {
		t.Fatal(err)
	}
}

// first returns a server that takes writes.
func first(t *testing.T, r *Redis) *Node {
	t.Helper()
	all, err := r.Primaries(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return all[0]
}

// keyAt returns a key that a server of a cluster serves, and its slot.
func keyAt(t *testing.T, r *Redis, n *Node) (string, int) {
	t.Helper()
	if r.Form() != FormCluster {
		return "alice", 0
	}
	for i := range 1000 {
		key := fmt.Sprintf("{%d}", i)
		slot, err := n.Client().ClusterKeySlot(t.Context(), key).Result()
		if err != nil {
			t.Fatal(err)
		}
		if m, err := r.MasterOf(t.Context(), int(slot)); err == nil && m == n {
			return key, int(slot)
		}
	}
	t.Fatalf("no key lies at %s", n.Name())
	return "", 0
}

// set writes with a client of its own: go-redis makes what it saw of a deployment last for a while.
func set(t *testing.T, r *Redis, key, value string) {
	t.Helper()
	soon(t, "a write is taken", func(ctx context.Context) error {
		c := redis.NewUniversalClient(r.Access().Options())
		defer c.Close()
		return c.Set(ctx, key, value, 0).Err()
	})
}

// replicate writes, and waits on the same connection until a replica says that it has it.
func replicate(t *testing.T, n *Node, key, value string) {
	t.Helper()
	pipe := n.Client().Pipeline()
	pipe.Set(t.Context(), key, value, 0)
	took := pipe.Do(t.Context(), "WAIT", 1, 1000)
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	if replicas, err := took.Int(); replicas < 1 {
		t.Errorf("no replica of %s has what was written (%v)", n.Name(), err)
	}
}

// changes tells a test of a change of primary what it needs to know.
func changes(t *testing.T, r *Redis, change func(old *Node) (*Node, error)) (old, now *Node) {
	t.Helper()
	old = first(t, r)
	key, _ := keyAt(t, r, old)
	replicate(t, old, key, "before")
	now, err := change(old)
	if err != nil {
		t.Fatal(err)
	}
	if now == old {
		t.Fatalf("%s took its own place", now.Name())
	}
	if got := now.Client().Get(t.Context(), key).Val(); got != "before" {
		t.Errorf("the new primary holds %q of what was in step", got)
	}
	if err := now.Client().Set(t.Context(), key, "after", 0).Err(); err != nil {
		t.Errorf("the new primary takes no write: %v", err)
	}
	return old, now
}

func TestFailover_GivesAPrimaryASuccessorThatItFollows(t *testing.T) {
	for _, form := range withReplicas {
		t.Run(string(form), func(t *testing.T) {
			t.Parallel()
			r := start(t, form, nil)
			old, now := changes(t, r, func(old *Node) (*Node, error) { return r.Failover(t.Context(), old) })
			if err := r.Await(t.Context()); err != nil {
				t.Fatal(err)
			}
			info, err := now.Info(t.Context(), "replication")
			if err != nil {
				t.Fatal(err)
			}
			if err := old.follows(t.Context(), now, info["master_replid"]); err != nil {
				t.Error(err)
			}
			if form != FormReplicated { // nobody tells clients there
				set(t, r, "bob", "here")
			}
		})
	}
}

func TestCrash_GivesAPrimaryASuccessorAndHeals(t *testing.T) {
	for _, form := range withReplicas {
		t.Run(string(form), func(t *testing.T) {
			t.Parallel()
			r := start(t, form, nil)
			old, now := changes(t, r, func(old *Node) (*Node, error) { return r.Crash(t.Context(), old) })
			if old.PID() != 0 {
				t.Error("the old primary runs")
			}
			if form != FormReplicated {
				set(t, r, "bob", "here")
			}
			if err := old.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			if form == FormReplicated { // it comes back as what it was
				if err := r.Promote(t.Context(), now); err != nil {
					t.Fatal(err)
				}
			}
			if err := r.Await(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestFreeze_KeepsAPrimaryFromAnsweringUntilThaw(t *testing.T) {
	for _, form := range withReplicas {
		t.Run(string(form), func(t *testing.T) {
			t.Parallel()
			r := start(t, form, nil)
			old, now := changes(t, r, func(old *Node) (*Node, error) {
				return r.Succession(t.Context(), old, func() error { return old.Freeze(t.Context()) })
			})
			if err := old.Client().WithTimeout(50 * time.Millisecond).Ping(t.Context()).Err(); err == nil {
				t.Error("it answers while it is frozen")
			}
			if old.PID() == 0 {
				t.Error("it is gone")
			}
			if err := old.Thaw(t.Context()); err != nil {
				t.Fatal(err)
			}
			if form == FormReplicated {
				if err := r.Promote(t.Context(), now); err != nil {
					t.Fatal(err)
				}
			}
			if err := r.Await(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestFailover_OfWhatIsNoPrimaryIsAnError(t *testing.T) {
	for _, form := range forms {
		t.Run(string(form), func(t *testing.T) {
			r := pool.Take(t, form)
			servers := r.Servers()
			last := servers[len(servers)-1]
			if _, err := r.Failover(t.Context(), last); err == nil {
				t.Error("a failover began")
			}
			if _, err := r.Crash(t.Context(), last); err == nil || last.PID() == 0 {
				t.Errorf("it was killed (%v)", err)
			}
		})
	}
}

func TestShutdown_EndsInPeaceAndComesBack(t *testing.T) {
	n := Standalone(t).Servers()[0]
	if err := n.Shutdown(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(n.Log(), "bye bye") {
		t.Errorf("it did not end by itself:\n%s", n.Log())
	}
	if err := n.Restart(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestMoveSlot_KeepsEveryKeyUnderLoad(t *testing.T) {
	for _, c := range []struct {
		claim string
		opts  []Option
	}{{"plain", nil}, {"with a password", []Option{Password("secret")}}, {"with users", []Option{User("alice", "secret")}}} {
		t.Run(c.claim, func(t *testing.T) {
			t.Parallel()
			r := Cluster(t, c.opts...)
			from := first(t, r)
			tag, slot := keyAt(t, r, from)
			all, err := r.Primaries(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			to := all[1]
			cl := client(t, r)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			wrote := make(chan int)
			go func() {
				n := 0
				defer func() { wrote <- n }()
				for ctx.Err() == nil {
					if err := cl.Set(t.Context(), fmt.Sprint(tag, n), n, 0).Err(); err != nil {
						t.Errorf("a write during the move: %v", err)
						return
					}
					n++
				}
			}()
			m, err := r.BeginMove(t.Context(), slot, to)
			if err != nil {
				t.Fatal(err)
			}
			if err := from.Client().Get(t.Context(), tag+"none").Err(); err == nil || !strings.HasPrefix(err.Error(), "ASK") {
				t.Errorf("the old master says of a key that it has not: %v", err)
			}
			if err := m.Finish(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := from.Client().Get(t.Context(), tag+"none").Err(); err == nil || !strings.HasPrefix(err.Error(), "MOVED") {
				t.Errorf("the old master says after the move: %v", err)
			}
			stop()
			n := <-wrote
			if n == 0 {
				t.Fatal("nothing was written meanwhile")
			}
			if got := to.Client().ClusterCountKeysInSlot(t.Context(), slot).Val(); got != int64(n) {
				t.Errorf("the new master has %d keys of %d", got, n)
			}
			if err := r.MoveSlot(t.Context(), slot, from); err != nil {
				t.Errorf("back again: %v", err)
			}
			if err := r.Await(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// populate gives a server some megabytes to hold, beside which it does not matter what its connections need.
func populate(t *testing.T, n *Node) {
	t.Helper()
	if err := n.Client().Do(t.Context(), "DEBUG", "POPULATE", 20000, "filler", 1000).Err(); err != nil {
		t.Fatal(err)
	}
}

func TestFill_RefusesWhatNeedsMemoryAndLetsItBeFreed(t *testing.T) {
	for _, form := range forms {
		t.Run(string(form), func(t *testing.T) {
			r := pool.Take(t, form)
			n := first(t, r)
			key, _ := keyAt(t, r, n)
			if err := n.Client().Set(t.Context(), key, "x", 0).Err(); err != nil {
				t.Fatal(err)
			}
			populate(t, n)
			if err := r.Fill(t.Context(), 120); err != nil {
				t.Fatal(err)
			}
			if err := n.Client().Append(t.Context(), key, "x").Err(); err == nil || !strings.HasPrefix(err.Error(), "OOM") {
				t.Errorf("a write to a full server: %v", err)
			}
			if err := n.Client().Del(t.Context(), key).Err(); err != nil {
				t.Errorf("freeing memory of a full server: %v", err)
			}
			if err := r.Unfill(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := n.Client().Set(t.Context(), key, "x", 0).Err(); err != nil {
				t.Errorf("a write after that: %v", err)
			}
		})
	}
}

func TestFill_BelowAHundredRefusesNothing(t *testing.T) {
	r := pool.Standalone(t)
	n := first(t, r)
	populate(t, n)
	if err := r.Fill(t.Context(), 92); err != nil {
		t.Fatal(err)
	}
	info, err := n.Info(t.Context(), "memory")
	if err != nil {
		t.Fatal(err)
	}
	var used, most float64
	fmt.Sscan(info["used_memory"]+" "+info["maxmemory"], &used, &most)
	if part := 100 * used / most; part < 90 || part > 95 {
		t.Errorf("%.1f %% are used, want about 92", part)
	}
	if err := n.Client().Set(t.Context(), "bob", "x", 0).Err(); err != nil {
		t.Error(err)
	}
	if err := r.Unfill(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestReadOnly_RefusesWritesAndChangesTheLineage(t *testing.T) {
	r := Standalone(t)
	n := first(t, r)
	lineage := func() string {
		info, err := n.Info(t.Context(), "replication")
		if err != nil {
			t.Fatal(err)
		}
		return info["master_replid"]
	}
	before := lineage()
	if err := n.Client().Set(t.Context(), "alice", "here", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := n.ReadOnly(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := n.Client().Set(t.Context(), "bob", "x", 0).Err(); err == nil || !strings.HasPrefix(err.Error(), "READONLY") {
		t.Errorf("a write to a read-only server: %v", err)
	}
	if err := n.Writable(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := n.Client().Get(t.Context(), "alice").Val(); got != "here" {
		t.Errorf("it holds %q of what it had", got)
	}
	if err := n.Client().Set(t.Context(), "bob", "x", 0).Err(); err != nil {
		t.Errorf("a write after that: %v", err)
	}
	if lineage() == before {
		t.Error("the lineage is what it was")
	}
}

func TestSleep_KeepsAServerBusy(t *testing.T) {
	n := pool.Standalone(t).Servers()[0]
	if err := n.Client().Do(t.Context(), "SLOWLOG", "RESET").Err(); err != nil {
		t.Fatal(err)
	}
	if err := n.Sleep(t.Context(), 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	slow, err := n.Client().SlowLogGet(t.Context(), 10).Result()
	if err != nil || len(slow) != 1 || strings.ToUpper(strings.Join(slow[0].Args, " ")) != "DEBUG SLEEP 0.050" {
		t.Errorf("what it found slow: %+v (%v)", slow, err)
	}
}

func TestFlushAll_EmptiesEveryPrimaryOfDataAndFunctions(t *testing.T) {
	for _, form := range forms {
		t.Run(string(form), func(t *testing.T) {
			r := pool.Take(t, form)
			all, err := r.Primaries(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			const library = "#!lua name=lib\nredis.register_function('f', function() return 1 end)"
			for _, n := range all {
				key, _ := keyAt(t, r, n)
				if err := n.Client().Set(t.Context(), key, "x", 0).Err(); err != nil {
					t.Fatal(err)
				}
				if err := n.Client().FunctionLoad(t.Context(), library).Err(); err != nil {
					t.Fatal(err)
				}
			}
			if err := r.FlushAll(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, n := range all {
				if got := n.Client().DBSize(t.Context()).Val(); got != 0 {
					t.Errorf("%s holds %d keys", n.Name(), got)
				}
				if got := n.Client().FunctionList(t.Context(), redis.FunctionListQuery{}).Val(); len(got) != 0 {
					t.Errorf("%s has functions: %v", n.Name(), got)
				}
			}
		})
	}
}

// impatient returns a client through the proxies that waits for no reply that does not come.
func impatient(t *testing.T, r *Redis) redis.UniversalClient {
	t.Helper()
	o := r.Access().Options()
	o.ReadTimeout = 300 * time.Millisecond
	o.MaxRedirects = -1
	c := redis.NewUniversalClient(o)
	t.Cleanup(func() { c.Close() })
	return c
}

// lost reports whether something that a client sent was lost.
func lost(n *Node) bool {
	for _, l := range n.Proxy().Links() {
		if l.Counts().Up.Dropped > 0 {
			return true
		}
	}
	return false
}

func TestProxied_BreaksWhatClientsSeeAndLeavesPeersAlone(t *testing.T) {
	cases := []struct {
		claim    string
		brk      func(*Node)
		heal     func(*Node)
		executed int64
	}{
		{"replies lost", func(n *Node) { n.LoseReplies(true) }, func(n *Node) { n.LoseReplies(false) }, 1},
		{"partition", func(n *Node) { n.Partition(true) }, func(n *Node) { n.Partition(false) }, 0},
		{"an hour late", func(n *Node) { n.Delay(time.Hour, time.Hour) }, func(n *Node) { n.Delay(0, 0) }, 1},
	}
	for _, form := range []Form{FormStandalone, FormSentinel, FormCluster} {
		t.Run(string(form), func(t *testing.T) {
			t.Parallel()
			r := start(t, form, []Option{Proxied()})
			n := first(t, r)
			key, _ := keyAt(t, r, n)
			for _, c := range cases {
				t.Run(c.claim, func(t *testing.T) {
					cl := impatient(t, r)
					soon(t, "a write is taken", func(ctx context.Context) error { return cl.Set(ctx, key, 0, 0).Err() })
					c.brk(n)
					if err := cl.Incr(t.Context(), key).Err(); err == nil {
						t.Error("a reply came")
					}
					if form != FormStandalone {
						replicate(t, n, key+"other", "x")
					}
					soon(t, "the network did what it was to do", func(ctx context.Context) error {
						got, err := n.Client().Get(ctx, key).Int64()
						if err != nil {
							return err
						}
						if c.executed == 0 && !lost(n) || got != c.executed {
							return fmt.Errorf("it was executed %d times", got)
						}
						return nil
					})
					c.heal(n)
					soon(t, "clients are served again", func(ctx context.Context) error { return cl.Incr(ctx, key).Err() })
				})
			}
		})
	}
}

func TestProxied_ClientsFindTheSuccessorThroughItsProxy(t *testing.T) {
	for _, form := range []Form{FormSentinel, FormCluster} {
		t.Run(string(form), func(t *testing.T) {
			t.Parallel()
			r := start(t, form, []Option{Proxied()})
			old, now := changes(t, r, func(old *Node) (*Node, error) { return r.Crash(t.Context(), old) })
			key := "bob"
			if form == FormCluster {
				key, _ = keyAt(t, r, now)
			}
			before := len(now.Proxy().Links())
			set(t, r, key, "here")
			if got := now.Client().Get(t.Context(), key).Val(); got != "here" {
				t.Errorf("the successor holds %q", got)
			}
			if len(now.Proxy().Links()) == before {
				t.Error("nothing went through its proxy")
			}
			if err := old.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := r.Await(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTLS_IsSpokenByEveryFormAndByNodesAmongEachOther(t *testing.T) {
	for _, form := range forms {
		t.Run(string(form), func(t *testing.T) {
			t.Parallel()
			r := start(t, form, []Option{TLS()})
			set(t, r, "alice", "here")
			o := r.Access().Options()
			o.TLSConfig = nil
			plain := redis.NewUniversalClient(o)
			defer plain.Close()
			if err := plain.Get(t.Context(), "alice").Err(); err == nil || errors.Is(err, redis.Nil) {
				t.Errorf("a client without TLS is served: %v", err)
			}
			if form == FormSentinel || form == FormCluster {
				if _, err := r.Failover(t.Context(), first(t, r)); err != nil {
					t.Error(err)
				}
			}
			if form == FormCluster {
				all, err := r.Primaries(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				_, slot := keyAt(t, r, all[0])
				if err := r.MoveSlot(t.Context(), slot, all[1]); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestCredentials_AreAskedForByEveryForm(t *testing.T) {
	cases := []struct {
		claim string
		opt   Option
	}{
		{"password", Password("secret")},
		{"user", User("alice", "secret")},
	}
	for _, form := range forms {
		for _, c := range cases {
			t.Run(string(form)+"/"+c.claim, func(t *testing.T) {
				t.Parallel()
				r := start(t, form, []Option{c.opt})
				set(t, r, "alice", "here")
				o := r.Access().Options()
				o.Password = "wrong"
				wrong := redis.NewUniversalClient(o)
				defer wrong.Close()
				if err := wrong.Get(t.Context(), "alice").Err(); err == nil {
					t.Error("a wrong password is good enough")
				}
				if form == FormSentinel {
					if _, err := r.Failover(t.Context(), first(t, r)); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
}

func TestUser_MayBeKeptFromSettings(t *testing.T) {
	r := Standalone(t, User("alice", "secret", "-config"))
	if err := client(t, r).ConfigGet(t.Context(), "*").Err(); err == nil || !strings.HasPrefix(err.Error(), "NOPERM") {
		t.Errorf("its settings are told: %v", err)
	}
	if err := r.Fill(t.Context(), 50); err != nil {
		t.Errorf("the kit itself: %v", err)
	}
}

func TestMinReplicas_RefusesWritesWithoutThem(t *testing.T) {
	r := Replicated(t, MinReplicas(2, 10*time.Second))
	n := first(t, r)
	if err := n.Client().Set(t.Context(), "alice", "here", 0).Err(); err != nil {
		t.Fatal(err)
	}
	r.Servers()[2].Kill()
	soon(t, "a write is refused", func(ctx context.Context) error {
		if err := n.Client().Set(ctx, "alice", "here", 0).Err(); err == nil || !strings.HasPrefix(err.Error(), "NOREPLICAS") {
			return fmt.Errorf("it says %v", err)
		}
		return nil
	})
}

func TestSettings_AreWhatTheOptionsSay(t *testing.T) {
	cases := []struct {
		opts []Option
		want map[string]string
	}{
		{nil, map[string]string{
			"appendonly": "yes", "appendfsync": "everysec", "save": "", "maxmemory": "0", "maxmemory-policy": "noeviction",
		}},
		{[]Option{AppendFsync("always"), MaxMemory(64 << 20), MaxMemoryPolicy("allkeys-lru")}, map[string]string{
			"appendonly": "yes", "appendfsync": "always", "maxmemory": "67108864", "maxmemory-policy": "allkeys-lru",
		}},
		{[]Option{NoAppendOnly(), Setting("appendonly", "yes"), Setting("hz", "20")}, map[string]string{"appendonly": "yes", "hz": "20"}},
	}
	for _, c := range cases {
		n := Standalone(t, c.opts...).Servers()[0]
		for name, want := range c.want {
			got, err := n.Client().ConfigGet(t.Context(), name).Result()
			if err != nil || got[name] != want {
				t.Errorf("%s is %q, want %q (%v)", name, got[name], want, err)
			}
		}
	}
}

func TestStarve_ReplicasStayConnectedAndFallBehind(t *testing.T) {
	t.Parallel()
	r := start(t, FormReplicated, []Option{Proxied()})
	primary := first(t, r)
	have := func(key string) func(context.Context) error {
		return func(ctx context.Context) error {
			for _, n := range r.Servers()[1:] {
				if err := n.Client().Get(ctx, key).Err(); err != nil {
					return fmt.Errorf("%s: %w", n.Name(), err)
				}
			}
			return nil
		}
	}
	put := func(key string) {
		t.Helper()
		if err := primary.Client().Set(t.Context(), key, 1, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	put("before")
	soon(t, "replicas have it", have("before"))
	primary.Starve(true)
	put("meanwhile")
	soon(t, "it is lost on its way to both", func(context.Context) error {
		for _, l := range primary.links(false) {
			if l.Counts().Down.Dropped == 0 {
				return errors.New("it is not sent yet")
			}
		}
		return nil
	})
	info, err := primary.Info(t.Context(), "replication")
	if err != nil || info["connected_slaves"] != "2" {
		t.Errorf("the primary has %s replicas (%v), want both", info["connected_slaves"], err)
	}
	for _, n := range r.Servers()[1:] {
		if err := n.Client().Get(t.Context(), "meanwhile").Err(); !errors.Is(err, redis.Nil) {
			t.Errorf("%s has what it was not told: %v", n.Name(), err)
		}
	}
	primary.Starve(false)
	soon(t, "replicas catch up", have("meanwhile"))
}

func TestCutOff_TakesOneClientAndLeavesTheOthers(t *testing.T) {
	t.Parallel()
	r := start(t, FormStandalone, []Option{Proxied()})
	n := first(t, r)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	dial := func() net.Conn {
		nc, err := net.Dial("tcp", n.Public())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		if err := nc.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		return nc
	}
	ask := func(nc net.Conn) error {
		if _, err := nc.Write([]byte("PING\r\n")); err != nil {
			return err
		}
		_, err := io.ReadFull(nc, make([]byte, len("+PONG\r\n")))
		return err
	}
	alice, bob := dial(), dial()
	for _, nc := range []net.Conn{alice, bob} {
		if err := ask(nc); err != nil {
			t.Fatal(err)
		}
	}
	n.CutOff(func(from net.Addr) bool { return from.String() == alice.LocalAddr().String() })
	if _, err := alice.Write([]byte("PING\r\n")); err != nil {
		t.Fatal(err)
	}
	link, err := n.Proxy().Link(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := link.Await(ctx, func(c proxytest.Counts) bool { return c.Up.Dropped > 0 }); err != nil {
		t.Errorf("what was cut off is heard: %v", err)
	}
	if err := ask(bob); err != nil {
		t.Errorf("who was not cut off gets %v", err)
	}
	n.CutOff(nil)
	if _, err := io.ReadFull(alice, make([]byte, 1)); err == nil {
		t.Error("a connection that lost something goes on")
	}
	if err := ask(bob); err != nil {
		t.Errorf("who was not cut off gets %v", err)
	}
}
