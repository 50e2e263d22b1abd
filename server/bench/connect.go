package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"carillon/server/bench/bare"
	"carillon/server/bench/swarm"
)

// Connect measures what it costs to come and to go: with nobody online, and again with many, since nothing of it may grow with
// who is there. Clients come, stay until all are there, and go, so that the cost of a goodbye is told apart. A device's
// first connect stores it; its later ones, which are nearly all there ever are, do not. Those are measured in several turns, of
// which the median counts: a collection of garbage more or less, or a neighbour on the machine, falls into one of them.
type Connect struct {
	Transport string // one of swarm.Transports
	Clients   int    // online when it is measured again
	Count     int    // connects in each measurement
	AtOnce    int    // side by side
	Turns     int    // measurements of later connects
}

// Name implements Scenario.
func (*Connect) Name() string { return "connect" }

func (s *Connect) settings() map[string]any {
	return map[string]any{"clients": s.Clients, "count": s.Count, "at_once": s.AtOnce, "turns": s.Turns}
}

func (s *Connect) check() error {
	switch {
	case s.Clients < 1:
		return usagef("--clients is at least 1")
	case s.Count < 1:
		return usagef("--count is at least 1")
	case s.AtOnce < 1 || s.AtOnce > 1000:
		return usagef("--at-once lies between 1 and 1000")
	case s.Turns < 1 || s.Turns > 100:
		return usagef("--turns lies between 1 and 100")
	}
	return nil
}

func (s *Connect) clients() int             { return s.Clients + s.Count }
func (s *Connect) heartbeat() time.Duration { return quiet }
func (s *Connect) transport() string        { return s.Transport }

// serverFlags implements limited: a limit that a machine reaches is none of what a connect takes. Connects are counted against it all the same.
func (s *Connect) serverFlags() [][2]string {
	return [][2]string{{"--limits-connects-per-second", "1000000"}, {"--limits-connect-burst", "1000000"}}
}

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
		turns := make([]visit, 0, 1+s.Turns)
		for range 1 + s.Turns {
			v, err := s.comeAndGo(ctx, w, from)
			if err != nil {
				return err
			}
			turns = append(turns, v)
			own.wall += v.come.wall
			own.clients += v.come.clients
			own.self += v.come.self
		}
		s.setFigures(w, suffix, turns[0], turns[1:])
	}
	n := float64(2 * (1 + s.Turns) * s.Count)
	w.set("connects", n)
	w.setOwn(own, n)
	r, err := w.fleet.Report(ctx, false)
	if err != nil {
		return err
	}
	w.set("bench_rss_bytes", float64(r.RSS))
	if err := lost(r); err != nil || s.Transport != "ws" {
		return err
	}
	return s.floors(ctx, w)
}

// floors measures what a connect and a goodbye take servers that do nothing with it, with clients that do the same as before.
func (s *Connect) floors(ctx context.Context, w *world) error {
	for _, kind := range []string{bare.Kernel, bare.Library} {
		w.progress("what the %s alone takes for it", kind)
		b, err := w.startBare(ctx, kind, s)
		if err != nil {
			return fmt.Errorf("the %s alone: %w", kind, err)
		}
		come, goodbye, err := s.floor(ctx, b.world)
		if err = errors.Join(err, b.stop()); err != nil {
			return fmt.Errorf("the %s alone: %w", kind, err)
		}
		w.set(kind+"_us_per_connect", come)
		w.set(kind+"_us_per_goodbye", goodbye)
		w.set("times_"+kind, w.values["again_cpu_us"]/come)
	}
	return nil
}

// floor returns the medians of as many turns as later connects had; the first one is to warm up.
func (s *Connect) floor(ctx context.Context, w *world) (come, goodbye float64, err error) {
	comes, goodbyes := make([]float64, 0, s.Turns), make([]float64, 0, s.Turns)
	for i := range 1 + s.Turns {
		v, err := s.comeAndGo(ctx, w, 0)
		if err != nil {
			return 0, 0, err
		}
		if i > 0 {
			comes = append(comes, micros(v.come.server, float64(s.Count)))
			goodbyes = append(goodbyes, micros(v.goodbye.server, float64(s.Count)))
		}
	}
	return median(comes), median(goodbyes), nil
}

// visit is what one turn took: clients that come, and go.
type visit struct {
	come, goodbye meter
	latency       *swarm.Latency
}

// comeAndGo connects clients, closes them, and returns what both took.
func (s *Connect) comeAndGo(ctx context.Context, w *world, from int) (v visit, err error) {
	before, err := w.read()
	if err != nil {
		return v, err
	}
	r, err := w.connect(ctx, from, s.Count, s.AtOnce)
	if err != nil {
		return v, err
	}
	v.latency = &r.Latency
	if v.come, err = w.since(before); err != nil {
		return v, err
	}
	if before, err = w.read(); err != nil {
		return v, err
	}
	if _, err := w.fleet.Close(ctx, from, s.Count); err != nil {
		return v, err
	}
	v.goodbye, err = w.since(before)
	return v, err
}

// setFigures sets what a first turn and the later ones gave.
func (s *Connect) setFigures(w *world, suffix string, first visit, again []visit) {
	n := float64(s.Count)
	w.set("first_cpu_us"+suffix, micros(first.come.server, n))
	of := func(figure func(*visit) float64) float64 {
		vs := make([]float64, len(again))
		for i := range again {
			vs[i] = figure(&again[i])
		}
		return median(vs)
	}
	w.set("again_cpu_us"+suffix, of(func(v *visit) float64 { return micros(v.come.server, n) }))
	if s.Transport == "poll" { // whose sessions linger: their end is a part of what a later connect takes
		w.note("polls have no goodbye: a session lingers behind its client, and a later connect of the device ends it")
	} else {
		w.set("goodbye_cpu_us"+suffix, of(func(v *visit) float64 { return micros(v.goodbye.server, n) }))
	}
	w.set("again_per_s"+suffix, of(func(v *visit) float64 { return n / v.come.wall.Seconds() }))
	w.set("again_p50_ms"+suffix, of(func(v *visit) float64 { return millis(v.latency.Quantile(0.5)) }))
	w.set("again_p99_ms"+suffix, of(func(v *visit) float64 { return millis(v.latency.Quantile(0.99)) }))
}
