package torture

import (
	"cmp"
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"carillon/server/fleet"
	"carillon/server/history"
)

// fault is a kind of fault. Its do breaks something and heals it again; it returns early when ctx is done, and heals all the same.
type fault struct {
	name   string
	weight int
	do     func(w *world, ctx context.Context, rng *rand.Rand) error
}

// patience is how long a healing may take. Then the run cannot go on.
const patience = 4 * time.Minute

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
	}
}

// storeFaults are what befalls the store, one at a time, at the same time as the others.
func (w *world) storeFaults() []fault {
	all := []fault{
		{"slow Redis", 2, (*world).slowRedis}, {"replies of Redis lost", 3, (*world).loseReplies}, {"Redis full", 2, (*world).fillRedis},
		{wipes, 1, (*world).wipeRegister},
	}
	switch w.cfg.Form {
	case Embedded:
		return nil
	case Standalone:
		return append(all, fault{"kill -9 of Redis", 4, (*world).killRedis}, fault{"SIGSTOP of Redis", 2, (*world).freezeRedis},
			fault{"Redis read-only", 2, (*world).demoteRedis})
	case Cluster:
		all = append(all, fault{"slot moved under load", 2, (*world).moveSlot})
	}
	return append(all, fault{"kill -9 of a primary, failover", 4, (*world).crashRedis}, fault{"SIGSTOP of a primary, failover", 3, (*world).freezePrimary},
		fault{"failover in peace", 2, (*world).failover}, fault{"SIGSTOP of a primary, and back", 2, (*world).stunPrimary})
}

// wipes is the name of a fault.
const wipes = "register wiped"

// networkFaults are what befalls the network, one at a time, at the same time as the others.
func (w *world) networkFaults() []fault {
	all := []fault{{"connection half open", 3, (*world).halfOpen}, {"address of a client changed", 3, (*world).changeAddress}}
	if w.cfg.Form == Embedded {
		return all
	}
	all = append(all, fault{"all notifications dropped", 2, (*world).deafen}, fault{"notifications to a room lost", 2, (*world).loseNotifications},
		fault{"answers of a room to other nodes lost", 2, (*world).loseAnswers})
	if mayCut {
		all = append(all, fault{"room cut off from Redis", 3, (*world).cutRoom}, fault{"center cut off from Redis", 2, (*world).cutCenter})
	}
	return all
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

// sequence returns what gives one fault after the other: each kind once, so that a short run meets all of them, and then each as many times as its
// weight says before any comes more often.
func sequence(rng *rand.Rand, faults []fault) func() fault {
	var round []fault
	once := true
	return func() (f fault) {
		if len(round) == 0 {
			for _, f := range faults {
				n := f.weight
				if once {
					n = 1
				}
				round = append(round, slices.Repeat([]fault{f}, n)...)
			}
			rng.Shuffle(len(round), func(i, j int) { round[i], round[j] = round[j], round[i] })
			once = false
		}
		f, round = round[0], round[1:]
		return f
	}
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

// longestFreeze is how long a node is frozen at most: in a short run not for most of it.
func (c Config) longestFreeze() time.Duration {
	return min(time.Minute, max(20*time.Second, c.Length/10))
}

// freeze stops a node where it is for a while.
func (w *world) freeze(ctx context.Context, rng *rand.Rand, n *fleet.Node) error {
	w.missing(n)
	d := skewed(rng, time.Second, w.cfg.longestFreeze())
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

// missing notes that a node is gone which nobody ended.
func (w *world) missing(n *fleet.Node) {
	if !n.Running() {
		w.breach("exit", "%s ended by itself: %s", n.Name(), n.Said())
	}
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

// byCount returns names, that with the highest count first.
func byCount(n map[string]int) []string {
	return slices.SortedFunc(maps.Keys(n), func(a, b string) int { return cmp.Or(cmp.Compare(n[b], n[a]), cmp.Compare(a, b)) })
}
