package bench

import (
	"context"
	"time"
)

// Connect measures what it costs to come and to go: with nobody online, and again with many, since nothing of it may grow with
// who is there. Clients come, stay until all are there, and go, so that the cost of a goodbye is told apart. A device's
// first connect stores it; its later ones, which are nearly all there ever are, do not.
type Connect struct {
	Transport string // one of swarm.Transports
	Clients   int    // online when it is measured again
	Count     int    // connects in each measurement
	AtOnce    int    // side by side
}

// Name implements Scenario.
func (*Connect) Name() string { return "connect" }

func (s *Connect) settings() map[string]any {
	return map[string]any{"clients": s.Clients, "count": s.Count, "at_once": s.AtOnce}
}

func (s *Connect) check() error {
	switch {
	case s.Clients < 1:
		return usagef("--clients is at least 1")
	case s.Count < 1:
		return usagef("--count is at least 1")
	case s.AtOnce < 1 || s.AtOnce > 1000:
		return usagef("--at-once lies between 1 and 1000")
	}
	return nil
}

func (s *Connect) clients() int             { return s.Clients + s.Count }
func (s *Connect) heartbeat() time.Duration { return quiet }
func (s *Connect) transport() string        { return s.Transport }

func (s *Connect) run(ctx context.Context, w *world) error {
	var own meter
	// Both measurements have devices of their own, numbered behind those that are online in the second.
	for i, suffix := range []string{"_none_online", ""} {
		from := s.Clients + i*s.Count
		if suffix == "" {
			if _, err := w.connect(ctx, 0, s.Clients, atOnce); err != nil {
				return err
			}
		}
		for _, which := range []string{"first", "again"} {
			m, err := s.comeAndGo(ctx, w, which, suffix, from)
			if err != nil {
				return err
			}
			own.wall += m.wall
			own.clients += m.clients
			own.self += m.self
		}
	}
	n := float64(4 * s.Count)
	w.set("connects", n)
	w.setOwn(own, n)
	r, err := w.fleet.Report(ctx, false)
	if err != nil {
		return err
	}
	w.set("bench_rss_bytes", float64(r.RSS))
	return lost(r)
}

// comeAndGo connects clients, closes them, and returns what connecting took.
func (s *Connect) comeAndGo(ctx context.Context, w *world, which, suffix string, from int) (meter, error) {
	before, err := w.read()
	if err != nil {
		return meter{}, err
	}
	r, err := w.connect(ctx, from, s.Count, s.AtOnce)
	if err != nil {
		return meter{}, err
	}
	m, err := w.since(before)
	if err != nil {
		return m, err
	}
	n := float64(s.Count)
	w.set(which+"_cpu_us"+suffix, micros(m.server, n))
	if before, err = w.read(); err != nil {
		return m, err
	}
	if _, err := w.fleet.Close(ctx, from, s.Count); err != nil {
		return m, err
	}
	gone, err := w.since(before)
	if err != nil || which == "first" {
		return m, err
	}
	if s.Transport == "poll" { // whose sessions linger: their end is a part of what a later connect takes
		w.note("polls have no goodbye: a session lingers behind its client, and a later connect of the device ends it")
	} else {
		w.set("goodbye_cpu_us"+suffix, micros(gone.server, n))
	}
	w.set("again_per_s"+suffix, n/m.wall.Seconds())
	w.set("again_p50_ms"+suffix, millis(r.Latency.Quantile(0.5)))
	w.set("again_p99_ms"+suffix, millis(r.Latency.Quantile(0.99)))
	return m, nil
}
