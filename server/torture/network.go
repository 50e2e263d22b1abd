package torture

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"time"

	"carillon/server/fleet"
	"carillon/server/proxytest"
)

// apart has nodes be out of touch for a while.
func (w *world) apart(ctx context.Context, rng *rand.Rand, longest time.Duration, brk, heal func() error) error {
	since := w.now()
	defer func() { w.stalled(since) }()
	err := brk()
	if err == nil {
		sleep(ctx, between(rng, longest/8, longest))
	}
	return errors.Join(err, heal())
}

// lose loses what is said to some rooms, what they answer, or both, for a while.
func (w *world) lose(ctx context.Context, rng *rand.Rand, d proxytest.Direction, rooms ...*fleet.Node) error {
	set := func(d proxytest.Direction) func() error {
		return func() error {
			for _, n := range rooms {
				n.Lose(d)
			}
			return nil
		}
	}
	return w.apart(ctx, rng, 10*time.Second, set(d), set(0))
}

// deafen has no room hear a notification or a kick.
func (w *world) deafen(ctx context.Context, rng *rand.Rand) error {
	w.say("no room hears notifications")
	return w.lose(ctx, rng, proxytest.Up, w.fleet.Of(fleet.Room)...)
}

// loseNotifications has one room hear nothing from other nodes.
func (w *world) loseNotifications(ctx context.Context, rng *rand.Rand) error {
	n := w.pick(fleet.Room, rng)
	w.say("%s hears no other node", n.Name())
	return w.lose(ctx, rng, proxytest.Up, n)
}

// loseAnswers has one room hear the others, and be heard by nobody.
func (w *world) loseAnswers(ctx context.Context, rng *rand.Rand) error {
	n := w.pick(fleet.Room, rng)
	w.say("%s is not heard by other nodes", n.Name())
	return w.lose(ctx, rng, proxytest.Down, n)
}

func (w *world) cutRoom(ctx context.Context, rng *rand.Rand) error {
	return w.cut(ctx, rng, w.pick(fleet.Room, rng))
}

func (w *world) cutCenter(ctx context.Context, rng *rand.Rand) error {
	return w.cut(ctx, rng, w.pick(fleet.Center, rng))
}

// cut cuts a node off from Redis, and from nobody else.
func (w *world) cut(ctx context.Context, rng *rand.Rand, n *fleet.Node) error {
	w.say("%s is cut off from Redis", n.Name())
	return w.apart(ctx, rng, 20*time.Second, func() error {
		for _, s := range w.redis.Servers() {
			to, err := net.ResolveTCPAddr("tcp", s.Public())
			if err != nil {
				return err
			}
			s.CutOff(func(from net.Addr) bool { return holds(n.PID(), from, to) })
		}
		return nil
	}, func() error {
		for _, s := range w.redis.Servers() {
			s.CutOff(nil)
		}
		return nil
	})
}

// halfOpen has the connections of a device go dead: neither side is told.
func (w *world) halfOpen(_ context.Context, rng *rand.Rand) error {
	d := w.devices[rng.IntN(len(w.devices))]
	d.lines.kill()
	return nil
}

// changeAddress does the same, and has the device come back from elsewhere at once, before the server can know.
func (w *world) changeAddress(_ context.Context, rng *rand.Rand) error {
	d := w.devices[rng.IntN(len(w.devices))]
	d.lines.kill()
	if end := d.end.Load(); end != nil {
		(*end)()
	}
	return nil
}
