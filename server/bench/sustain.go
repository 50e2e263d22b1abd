package bench

import (
	"context"
	"time"

	"carillon/server/bench/swarm"
)

// Sustain measures broadcasts that follow each other as fast as the clients take them. What is under way is bounded, so that no
// queue of the server runs over; where messages wait for a client, they share a write. Meanwhile a few clients more look how
// long a ping and a message to one user take.
type Sustain struct {
	Transport string // one of swarm.Transports
	Clients   int
	Window    int           // broadcasts that some client does not have yet, at most
	Senders   int           // requests side by side
	Duration  time.Duration // of sending
	Body      int           // bytes
}

// Name implements Scenario.
func (*Sustain) Name() string { return "sustain" }

func (s *Sustain) settings() map[string]any {
	return map[string]any{
		"clients": s.Clients, "window": s.Window, "connections": s.Senders, "duration_s": s.Duration.Seconds(), "body_bytes": s.Body,
	}
}

func (s *Sustain) check() error {
	switch {
	case s.Clients < 1:
		return usagef("--clients is at least 1")
	case s.Window < 1 || s.Window > swarm.MaxUnderWay:
		return usagef("--window lies between 1 and %d", swarm.MaxUnderWay)
	}
	return checkLoad(s.Senders, s.Duration, s.Body)
}

// checkLoad judges what loads have in common.
func checkLoad(senders int, d time.Duration, body int) error {
	switch {
	case senders < 1 || senders > 1000:
		return usagef("--connections lies between 1 and 1000")
	case d < 100*time.Millisecond || d > time.Hour:
		return usagef("--duration lies between 100ms and 1h")
	}
	return checkBody(body)
}

func (s *Sustain) clients() int             { return s.Clients }
func (s *Sustain) heartbeat() time.Duration { return quiet }
func (s *Sustain) transport() string        { return s.Transport }

func (s *Sustain) run(ctx context.Context, w *world) error {
	if _, err := w.connect(ctx, 0, s.Clients, atOnce); err != nil {
		return err
	}
	if _, err := w.rounds(ctx, warmUp, s.Body); err != nil {
		return err
	}
	if err := w.begin(ctx, swarm.CountAll); err != nil {
		return err
	}
	probes, err := w.probe(ctx, s.Clients)
	if err != nil {
		return err
	}
	defer probes.end()
	win := newWindow(s.Window)
	w.news.set(win, nil)
	defer w.news.set(nil, nil)
	got, err := w.loaded(ctx, "broadcasts, one behind the other", load{
		senders: s.Senders, duration: s.Duration, window: win, each: 1,
		send: func(ctx context.Context, seq uint64) error { return w.pub.broadcast(ctx, w.phase, seq, s.Body) },
	})
	if err != nil {
		return err
	}
	pings, unicasts, err := probes.end()
	if err != nil {
		return err
	}
	r, err := w.fleet.Report(ctx, false)
	if err != nil {
		return err
	}
	gone := 0
	for _, n := range r.Lost {
		gone += n
	}
	if gone > 0 {
		w.note("clients were cut: %s", reasons(r.Lost))
	}
	n := float64(r.Messages)
	w.set("deliveries_per_s", n/got.wall.Seconds())
	w.set("broadcasts_per_s", n/got.wall.Seconds()/float64(s.Clients))
	w.set("cpu_us_per_delivery", micros(got.server, n))
	w.set("p50_ms", millis(r.Latency.Quantile(0.5)))
	w.set("p99_ms", millis(r.Latency.Quantile(0.99)))
	w.set("deliveries", n)
	w.set("deliveries_missing", float64(got.requests)*float64(s.Clients)-n)
	w.set("clients_lost", float64(gone))
	w.set("probe_ping_p50_ms", millis(pings.Quantile(0.5)))
	w.set("probe_ping_p99_ms", millis(pings.Quantile(0.99)))
	w.set("probe_unicast_p50_ms", millis(unicasts.Quantile(0.5)))
	w.set("probe_unicast_p99_ms", millis(unicasts.Quantile(0.99)))
	w.setOwn(got.meter, n)
	w.set("bench_rss_bytes", float64(r.RSS))
	return nil
}
