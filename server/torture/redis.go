package torture

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"carillon/server/history"
	"carillon/server/redistest"
)

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
	// While it lasts two servers may take writes, and nobody outside knows which of what they say counts for nothing.
	w.losses = append(w.losses, history.Record{Kind: history.Lost, Since: max(0, began-failoverReach), At: w.now(), Throughout: true})
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

// stunPrimary freezes a primary for less than it takes to be taken for dead. On a busy machine somebody may take its place all the same.
func (w *world) stunPrimary(ctx context.Context, rng *rand.Rand) error {
	return w.succeed(ctx, rng, "SIGSTOP, and back", func(ctx context.Context, n *redistest.Node) error {
		if err := n.Freeze(ctx); err != nil {
			return err
		}
		sleep(ctx, between(rng, 200*time.Millisecond, 1200*time.Millisecond))
		return nil
	}, func(ctx context.Context, n *redistest.Node) error { return n.Thaw(ctx) })
}

// disturb has Redis be broken for a while, in a way that makes nobody else a primary. Meanwhile and a little longer clients may get what
// they should not get any more, as no room learns of it.
func (w *world) disturb(ctx context.Context, rng *rand.Rand, how string, longest time.Duration, brk, heal func(context.Context) error) error {
	d := between(rng, longest/8, longest)
	w.say("Redis: %s for %v", how, d.Round(time.Second/10))
	since := w.now()
	defer func() { w.stalled(since) }()
	healed, cancel := healing(ctx)
	defer cancel()
	err := brk(healed)
	if err == nil {
		sleep(ctx, d)
	}
	return errors.Join(err, heal(healed))
}

// settles is how long after a fault rooms may take to learn what they missed.
const settles = 5 * time.Second

// stalled notes that rooms may have been out of touch since then.
func (w *world) stalled(since time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stalls = append(w.stalls, history.Record{Kind: history.Stall, Since: since - time.Second, At: w.now() + settles})
}

// slowRedis delays each reply of every server.
func (w *world) slowRedis(ctx context.Context, rng *rand.Rand) error {
	most := between(rng, 100*time.Millisecond, 3*time.Second)
	delay := func(min, max time.Duration) func(context.Context) error {
		return func(context.Context) error {
			for _, n := range w.redis.Servers() {
				n.Delay(min, max)
			}
			return nil
		}
	}
	return w.disturb(ctx, rng, fmt.Sprintf("up to %v late", most.Round(time.Second/10)), 8*time.Second, delay(100*time.Millisecond, most), delay(0, 0))
}

// loseReplies has one primary execute what it is asked for and tell nobody.
func (w *world) loseReplies(ctx context.Context, rng *rand.Rand) error {
	n, err := w.primary(ctx, rng)
	if err != nil {
		return err
	}
	lose := func(yes bool) func(context.Context) error {
		return func(context.Context) error { n.LoseReplies(yes); return nil }
	}
	return w.disturb(ctx, rng, "replies lost", 4*time.Second, lose(true), lose(false))
}

// fillRedis takes the memory away from every server.
func (w *world) fillRedis(ctx context.Context, rng *rand.Rand) error {
	return w.disturb(ctx, rng, "full", 6*time.Second, func(ctx context.Context) error { return w.redis.Fill(ctx, 105) }, w.redis.Unfill)
}

// demoteRedis makes a server that is alone a replica of nobody. What it holds is of another lineage when it takes writes again.
func (w *world) demoteRedis(ctx context.Context, rng *rand.Rand) error {
	n := w.redis.Servers()[0]
	return w.disturb(ctx, rng, "read-only", 6*time.Second, n.ReadOnly, n.Writable)
}

// moveSlot gives a slot that holds something to another master, some keys at a time.
func (w *world) moveSlot(ctx context.Context, rng *rand.Rand) error {
	from, err := w.primary(ctx, rng)
	if err != nil {
		return err
	}
	healed, cancel := healing(ctx)
	defer cancel()
	key, err := from.Client().RandomKey(healed).Result()
	if err != nil {
		return nil // it holds nothing
	}
	slot, err := from.Client().ClusterKeySlot(healed, key).Result()
	if err != nil {
		return err
	}
	all, err := w.redis.Masters(healed)
	if err != nil {
		return err
	}
	to := all[rng.IntN(len(all))]
	for to == from {
		to = all[rng.IntN(len(all))]
	}
	w.say("Redis: slot %d moves from %s to %s", slot, from.Name(), to.Name())
	m, err := w.redis.BeginMove(healed, int(slot), to)
	for n := 1; err == nil && n > 0 && ctx.Err() == nil; sleep(ctx, between(rng, 0, 200*time.Millisecond)) {
		n, err = m.Keys(healed, 3)
	}
	if err == nil {
		err = m.Finish(healed)
	}
	return err
}

// wipeRegister takes out all that says who is online where.
func (w *world) wipeRegister(ctx context.Context, _ *rand.Rand) error {
	w.say("Redis: the register is wiped")
	ctx, cancel := healing(ctx)
	defer cancel()
	since := w.now()
	defer func() { w.stalled(since) }()
	all, err := w.redis.Primaries(ctx)
	if err != nil {
		return err
	}
	wiped := 0
	for _, n := range all {
		keys := n.Client().Scan(ctx, 0, "c:*", 1000).Iterator()
		for keys.Next(ctx) {
			if !ofRegister(keys.Val()) {
				continue
			}
			if err := n.Client().Del(ctx, keys.Val()).Err(); err != nil {
				return fmt.Errorf("wipe the register: %w", err)
			}
			wiped++
		}
		if err := keys.Err(); err != nil {
			return fmt.Errorf("wipe the register: %w", err)
		}
	}
	w.wiped.Add(int64(wiped))
	return nil
}

// ofRegister reports whether a key is one of the register's, as the comment of its package lists them.
func ofRegister(key string) bool {
	rest, ok := strings.CutPrefix(key, "c:{")
	tag, rest, ok2 := strings.Cut(rest, "}:")
	kind, _, ok3 := strings.Cut(rest, ":")
	switch {
	case !ok || !ok2 || !ok3:
		return false
	case tag == "rooms":
		return true
	case strings.HasPrefix(tag, "@"):
		return kind == "m"
	}
	return strings.Contains(tag, ":") && (kind == "s" || kind == "p" || kind == "o") // of a shard
}
