package bench

import (
	"context"
	"errors"
	"time"

	"carillon/server/bench/swarm"
)

// quiet is the heartbeat interval where heartbeats are not what is measured.
const quiet = time.Minute

// Broadcast measures messages to everyone online, one at a time: the next is sent when all have the one before.
type Broadcast struct {
	Transport string // one of swarm.Transports
	Clients   int
	Rounds    int
	Body      int // bytes
}

// maxStalls is how often messages may fail to arrive before the rest is not tried.
const maxStalls = 3

// warmUp is how many rounds go before those that count.
const warmUp = 3

// Name implements Scenario.
func (*Broadcast) Name() string { return "broadcast" }

func (s *Broadcast) settings() map[string]any {
	return map[string]any{"clients": s.Clients, "rounds": s.Rounds, "body_bytes": s.Body}
}

func (s *Broadcast) check() error {
	if s.Clients < 1 {
		return usagef("--clients is at least 1")
	}
	if s.Rounds < 1 || s.Rounds > 100_000 {
		return usagef("--rounds lies between 1 and 100000")
	}
	return checkBody(s.Body)
}

// checkBody judges the size of a body: it has room for the mark, and the server takes it.
func checkBody(n int) error {
	if n < swarm.MinBody || n > 64<<10 {
		return usagef("--body-bytes lies between %d and %d", swarm.MinBody, 64<<10)
	}
	return nil
}

func (s *Broadcast) clients() int             { return s.Clients }
func (s *Broadcast) heartbeat() time.Duration { return quiet }
func (s *Broadcast) transport() string        { return s.Transport }

func (s *Broadcast) run(ctx context.Context, w *world) error {
	if _, err := w.connect(ctx, 0, s.Clients, atOnce); err != nil {
		return err
	}
	if _, err := w.rounds(ctx, warmUp, s.Body); err != nil {
		return err
	}
	m, err := w.rounds(ctx, s.Rounds, s.Body)
	if err != nil {
		return err
	}
	r, err := w.fleet.Report(ctx, false)
	if err != nil {
		return err
	}
	if err := lost(r); err != nil {
		return err
	}
	n := float64(r.Messages)
	w.set("cpu_us_per_delivery", micros(m.server, n))
	w.set("p50_ms", millis(r.Latency.Quantile(0.5)))
	w.set("p99_ms", millis(r.Latency.Quantile(0.99)))
	w.set("max_ms", millis(time.Duration(r.Latency.Most)))
	w.set("deliveries", n)
	w.set("deliveries_missing", float64(s.Rounds*s.Clients)-n)
	w.setOwn(m, n)
	w.set("bench_rss_bytes", float64(r.RSS))
	w.progress("what the kernel alone takes for it")
	const around = 120 // bytes of a frame beside its body, about
	f, err := measureFloor(s.Clients, s.Body+around)
	if err != nil {
		return err
	}
	w.set("kernel_us_per_write", micros(f.cpu, 1))
	w.set("kernel_round_ms", millis(f.round)*float64(s.Clients))
	return nil
}

// rounds broadcasts one message after the other, as a phase of its own.
func (w *world) rounds(ctx context.Context, rounds, size int) (meter, error) {
	var m meter
	if err := w.begin(ctx, swarm.CountAll); err != nil {
		return m, err
	}
	one := newWindow(1)
	w.news.set(one, nil)
	defer w.news.set(nil, nil)
	before, err := w.read()
	if err != nil {
		return m, err
	}
	for i := range rounds {
		w.progress("broadcast %d of %d", i+1, rounds)
		if err := one.acquire(ctx, 1); err != nil {
			return m, err
		}
		if err := w.pub.broadcast(ctx, w.phase, uint64(i), size); err != nil {
			return m, err
		}
		if _, err := one.drain(ctx); err != nil { // what did not arrive is counted at the end
			return m, err
		}
		if one.stalls() > maxStalls {
			return m, errors.New("messages do not arrive")
		}
	}
	return w.since(before)
}
