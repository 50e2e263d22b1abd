package torture

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"carillon/server/fleet"
	"carillon/server/history"
	"carillon/server/redistest"
)

// fault is a kind of fault. Its do breaks something and heals it again; it returns early when ctx is done, and heals all the same.
type fault struct {
	name   string
	weight int
	do     func(w *world, ctx context.Context, rng *rand.Rand) error
}

// patience is how long a healing may take. Then the run cannot go on.
const patience = 2 * time.Minute

// healing returns a context for healing, which goes on when the run is over.
func healing(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), patience)
}

// nodeFaults are what befalls nodes, one at a time.
func (w *world) nodeFaults() []fault {
	kill := func(r fleet.Role) func(*world, context.Context, *rand.Rand) error {
		return func(w *world, ctx context.Context, rng *rand.Rand) error { return w.kill(ctx, rng, w.pick(r, rng)) }
	}
	freeze := func(r fleet.Role) func(*world, context.Context, *rand.Rand) error {
		return func(w *world, ctx context.Context, rng *rand.Rand) error { return w.freeze(ctx, rng, w.pick(r, rng)) }
	}
	restart := func(r fleet.Role) func(*world, context.Context, *rand.Rand) error {
		return func(w *world, ctx context.Context, rng *rand.Rand) error { return w.restart(ctx, w.pick(r, rng)) }
	}
	if w.cfg.Form == Embedded {
		return []fault{
			{"kill -9 of the node", 4, kill(fleet.Room)}, {"SIGSTOP of the node", 2, freeze(fleet.Room)},
			{"restart of the node", 1, restart(fleet.Room)},
		}
	}
	return []fault{
		{"kill -9 of a room", 4, kill(fleet.Room)}, {"kill -9 of a center", 3, kill(fleet.Center)},
		{"SIGSTOP of a room", 4, freeze(fleet.Room)}, {"SIGSTOP of a center", 2, freeze(fleet.Center)},
		{"restart of a room", 2, restart(fleet.Room)}, {"restart of a center", 1, restart(fleet.Center)},
		{"all notifications dropped", 1, (*world).deafen},
	}
}

// storeFaults are what befalls the store, one at a time, at the same time as the others.
func (w *world) storeFaults() []fault {
	switch w.cfg.Form {
	case Standalone:
		return []fault{{"kill -9 of Redis", 3, (*world).killRedis}, {"SIGSTOP of Redis", 1, (*world).freezeRedis}}
	case Sentinel, Cluster:
		return []fault{
			{"kill -9 of a primary, failover", 3, (*world).crashRedis}, {"SIGSTOP of a primary, failover", 2, (*world).freezePrimary},
			{"failover in peace", 1, (*world).failover},
		}
	}
	return nil
}

// inject breaks one thing after the other until ctx is done.
func (w *world) inject(ctx context.Context, rng *rand.Rand, faults []fault, pause time.Duration, into *[]spell) {
	if len(faults) == 0 {
		return
	}
	next := sequence(rng, faults)
	for sleep(ctx, between(rng, pause/4, pause)) {
		f := next()
		since := w.now()
		if err := f.do(w, ctx, rng); err != nil {
			w.breach("recovery", "%s: %v", f.name, err)
			return
		}
		w.faults.add(f.name)
		if into != nil {
			w.mu.Lock()
			*into = append(*into, spell{f.name, since, w.now()})
			w.mu.Unlock()
		}
	}
}

// sequence returns what gives one fault after the other: each kind once, so that a short run meets all of them, and then by weight.
func sequence(rng *rand.Rand, faults []fault) func() fault {
	first := rng.Perm(len(faults))
	return func() (f fault) {
		if len(first) == 0 {
			return draw(rng, faults)
		}
		f, first = faults[first[0]], first[1:]
		return f
	}
}

// draw draws a fault by weight.
func draw(rng *rand.Rand, faults []fault) fault {
	sum := 0
	for _, f := range faults {
		sum += f.weight
	}
	n := rng.IntN(sum)
	for _, f := range faults {
		if n -= f.weight; n < 0 {
			return f
		}
	}
	panic("unreachable")
}

func (w *world) pick(r fleet.Role, rng *rand.Rand) *fleet.Node {
	all := w.fleet.Of(r)
	return all[rng.IntN(len(all))]
}

// noticed is within what time the clients of a room that was killed know that their connection broke.
const noticed = 300 * time.Millisecond

// kill ends a node at once, and starts it again after a while.
func (w *world) kill(ctx context.Context, rng *rand.Rand, n *fleet.Node) error {
	w.missing(n)
	w.say("%s: kill -9", n.Name())
	if n.Role() != fleet.Center {
		w.mu.Lock()
		w.kills = append(w.kills, spell{n.Name(), w.now(), w.now() + noticed})
		w.mu.Unlock()
	}
	n.Kill()
	sleep(ctx, between(rng, 0, 4*time.Second))
	return w.start(ctx, n)
}

func (w *world) start(ctx context.Context, n *fleet.Node) error {
	ctx, cancel := healing(ctx)
	defer cancel()
	for {
		err := n.Start(ctx)
		if err == nil || !sleep(ctx, time.Second) {
			return err
		}
		w.say("%v", err) // the store may refuse it at that moment, though not for being away: then a node waits
	}
}

// longestFreeze is how long a node is frozen at most.
const longestFreeze = 20 * time.Second

// freeze stops a node where it is for a while.
func (w *world) freeze(ctx context.Context, rng *rand.Rand, n *fleet.Node) error {
	w.missing(n)
	d := between(rng, time.Second, longestFreeze)
	w.say("%s: SIGSTOP for %v", n.Name(), d.Round(time.Second/10))
	if err := n.Freeze(); err != nil {
		return err
	}
	w.mu.Lock()
	w.stalls = append(w.stalls, history.Record{Kind: history.Stall, Since: w.now() - time.Second, At: w.now() + 2*writeTimeout})
	w.mu.Unlock()
	sleep(ctx, d)
	return n.Thaw()
}

// restart ends a node in peace and starts it again.
func (w *world) restart(ctx context.Context, n *fleet.Node) error {
	w.missing(n)
	w.say("%s: restart", n.Name())
	if err := n.Stop(); err != nil {
		w.breach("exit", "%s: %v", n.Name(), err)
	}
	return w.start(ctx, n)
}

// deafen has every room announce an address at which nobody listens, so that no notification and no kick reaches it, for a while.
func (w *world) deafen(ctx context.Context, rng *rand.Rand) error {
	err := w.reconfigure(ctx, "CARILLON_NODE_ADVERTISE=127.0.0.1:1")
	if err == nil {
		w.say("no room hears notifications")
		sleep(ctx, between(rng, 3*time.Second, 10*time.Second))
	}
	return errors.Join(err, w.reconfigure(ctx))
}

// reconfigure restarts all rooms at once with this in their environment.
func (w *world) reconfigure(ctx context.Context, env ...string) error {
	rooms := w.fleet.Of(fleet.Room)
	errs := make([]error, len(rooms))
	var restarting sync.WaitGroup
	for i, n := range rooms {
		n.Configure(env...)
		restarting.Go(func() { errs[i] = w.restart(ctx, n) })
	}
	restarting.Wait()
	return errors.Join(errs...)
}

// missing notes that a node is gone which nobody ended.
func (w *world) missing(n *fleet.Node) {
	if !n.Running() {
		w.breach("exit", "%s ended by itself: %s", n.Name(), n.Said())
	}
}

// killRedis ends a server that is alone, and starts it again on what it had written.
func (w *world) killRedis(ctx context.Context, rng *rand.Rand) error {
	n := w.redis.Servers()[0]
	w.say("Redis: kill -9")
	n.Kill()
	sleep(ctx, between(rng, 0, 3*time.Second))
	ctx, cancel := healing(ctx)
	defer cancel()
	return n.Restart(ctx)
}

func (w *world) freezeRedis(ctx context.Context, rng *rand.Rand) error {
	n := w.redis.Servers()[0]
	d := between(rng, time.Second, 8*time.Second)
	w.say("Redis: SIGSTOP for %v", d.Round(time.Second/10))
	if err := n.Freeze(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	sleep(ctx, d)
	ctx, cancel := healing(ctx)
	defer cancel()
	return n.Thaw(ctx)
}

func (w *world) primary(ctx context.Context, rng *rand.Rand) (*redistest.Node, error) {
	all, err := w.redis.Primaries(ctx)
	if err != nil {
		return nil, err
	}
	return all[rng.IntN(len(all))], nil
}

// succeed runs a fault that makes somebody else a primary, and has the deployment whole again after it.
func (w *world) succeed(ctx context.Context, rng *rand.Rand, how string, fault func(context.Context, *redistest.Node) error,
	heal func(context.Context, *redistest.Node) error) error {
	ctx, cancel := healing(ctx)
	defer cancel()
	old, err := w.primary(ctx, rng)
	if err != nil {
		return err
	}
	w.say("%s: %s", old.Name(), how)
	began := w.now()
	err = errors.Join(fault(ctx, old), heal(ctx, old))
	if err == nil {
		err = w.redis.Await(ctx)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.losses = append(w.losses, history.Record{Kind: history.Lost, Since: max(0, began-failoverReach), At: w.now()})
	return err
}

// failoverReach is how far back a failover may take the store: replicas of a healthy deployment are in step within less.
const failoverReach = 2 * time.Second

func (w *world) crashRedis(ctx context.Context, rng *rand.Rand) error {
	return w.succeed(ctx, rng, "kill -9, failover", func(ctx context.Context, n *redistest.Node) error {
		_, err := w.redis.Crash(ctx, n)
		return err
	}, func(ctx context.Context, n *redistest.Node) error { return n.Restart(ctx) })
}

func (w *world) freezePrimary(ctx context.Context, rng *rand.Rand) error {
	return w.succeed(ctx, rng, "SIGSTOP, failover", func(ctx context.Context, n *redistest.Node) error {
		_, err := w.redis.Succession(ctx, n, func() error { return n.Freeze(ctx) })
		return err
	}, func(ctx context.Context, n *redistest.Node) error { return n.Thaw(ctx) })
}

func (w *world) failover(ctx context.Context, rng *rand.Rand) error {
	return w.succeed(ctx, rng, "failover in peace", func(ctx context.Context, n *redistest.Node) error {
		_, err := w.redis.Failover(ctx, n)
		return err
	}, func(context.Context, *redistest.Node) error { return nil })
}

// tally counts by name. It is safe for concurrent use; its zero value is empty.
type tally struct {
	mu sync.Mutex
	n  map[string]int // guarded by mu
}

func (t *tally) add(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n == nil {
		t.n = make(map[string]int)
	}
	t.n[name]++
}

func (t *tally) get() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.n)
}

// describe lists counts, the highest first.
func describe(n map[string]int) string {
	names := slices.SortedFunc(maps.Keys(n), func(a, b string) int { return cmp.Or(cmp.Compare(n[b], n[a]), cmp.Compare(a, b)) })
	parts := make([]string, len(names))
	for i, name := range names {
		parts[i] = fmt.Sprintf("%d %s", n[name], name)
	}
	return strings.Join(parts, ", ")
}
