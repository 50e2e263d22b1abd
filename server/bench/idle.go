package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"carillon/server/bench/sample"
	"carillon/server/bench/swarm"
)

// Idle measures what sessions cost that do nothing but live: memory of each, as the slope between two levels, so that what the
// process takes anyway is left out; and processor time of their heartbeats, beside what the kernel alone takes for as many pings.
type Idle struct {
	Transport string        // one of swarm.Transports
	Low, High int           // levels, in clients
	Window    time.Duration // over which processor time is measured
	Heartbeat time.Duration // that the server asks of its clients
	Settle    time.Duration // between the last connect and a sample of memory
}

// Name implements Scenario.
func (*Idle) Name() string { return "idle" }

func (s *Idle) settings() map[string]any {
	return map[string]any{
		"low": s.Low, "high": s.High, "window_s": s.Window.Seconds(), "heartbeat_s": s.Heartbeat.Seconds(), "settle_s": s.Settle.Seconds(),
	}
}

func (s *Idle) check() error {
	switch {
	case s.Low < 1 || s.High <= s.Low:
		return usagef("--low is at least 1, and --clients is above it: a slope needs two levels")
	case s.Window < time.Second || s.Window > time.Hour:
		return usagef("--window lies between 1s and 1h")
	case s.Heartbeat < time.Second || s.Heartbeat > time.Hour:
		return usagef("--heartbeat lies between 1s and 1h")
	case s.Settle < 0 || s.Settle > time.Hour:
		return usagef("--settle lies between 0s and 1h")
	}
	return nil
}

func (s *Idle) clients() int             { return s.High }
func (s *Idle) heartbeat() time.Duration { return s.Heartbeat }
func (s *Idle) transport() string        { return s.Transport }

// level is the memory at one level.
type level struct {
	asIs, collected sample.Memory
	kernel          sample.Kernel
	held            held
	bench           int64 // resident memory of the client processes
}

func (s *Idle) run(ctx context.Context, w *world) error {
	before, err := w.level(ctx)
	if err != nil {
		return err
	}
	empty, err := w.window(ctx, s.Window, "the empty server")
	if err != nil {
		return err
	}
	var levels [2]level
	for i, upTo := range []int{s.Low, s.High} {
		from := 0
		if i == 1 {
			from = s.Low
		}
		if _, err := w.connect(ctx, from, upTo-from, atOnce); err != nil {
			return err
		}
		if err := w.wait(ctx, s.Settle, fmt.Sprintf("%d sessions settle", upTo)); err != nil {
			return err
		}
		st, err := w.server.ready(ctx)
		if err != nil {
			return err
		}
		if st.Clients < upTo {
			return fmt.Errorf("the server counts %d clients, and %d were connected", st.Clients, upTo)
		}
		if levels[i], err = w.level(ctx); err != nil {
			return err
		}
	}
	if err := w.begin(ctx, swarm.CountAll); err != nil {
		return err
	}
	busy, err := w.window(ctx, s.Window, fmt.Sprintf("heartbeats of %d sessions", s.High))
	if err != nil {
		return err
	}
	r, err := w.fleet.Report(ctx, true)
	if err != nil {
		return err
	}
	if err := lost(r); err != nil {
		return err
	}
	s.figures(w, before, levels, empty, busy, r)
	if r.Pings == 0 || s.Transport == "sse" { // over which the server beats, and nobody answers
		return nil
	}
	return s.alone(ctx, w, busy.wall/time.Duration(r.Pings))
}

// isMarked reports whether the heartbeats are those for which their mark was set, as far as the transport does not tell.
func (s *Idle) isMarked(w *world) bool {
	return s.High == heartbeatsSessions && s.Heartbeat == heartbeatsInterval && !w.facts.Running &&
		!w.cfg.gives("--heartbeat-interval") && !w.cfg.gives("--heartbeat-intervals")
}

// aloneTime is how long the kernel alone is measured, at most.
const aloneTime = 5 * time.Second

// alone measures what the kernel alone takes for pings that come as often as the heartbeats did.
func (s *Idle) alone(ctx context.Context, w *world, every time.Duration) error {
	w.progress("disconnecting")
	w.fleet.Stop() // no heartbeat comes between
	if err := w.wait(ctx, s.Settle, "the server forgets its sessions"); err != nil {
		return err
	}
	d := min(s.Window, aloneTime)
	var cpu time.Duration
	var measured error
	var measuring sync.WaitGroup
	measuring.Go(func() { cpu, measured = measureEcho(ctx, s.High, every, d) })
	err := w.wait(ctx, d, "what the kernel alone takes for a ping")
	measuring.Wait()
	if err = errors.Join(err, measured); err != nil {
		return err
	}
	if cpu > 0 {
		w.set("kernel_us_per_ping", micros(cpu, 1))
	}
	return nil
}

// level samples memory as it is, and then after collections.
func (w *world) level(ctx context.Context) (l level, err error) {
	w.progress("sampling memory")
	if l.kernel, err = sample.KernelMemory(); err != nil {
		return l, err
	}
	if l.asIs, err = sample.Resident(w.server.pid); err != nil {
		return l, err
	}
	if l.held, err = w.server.free(ctx); err != nil {
		return l, err
	}
	if l.collected, err = sample.Resident(w.server.pid); err != nil {
		return l, err
	}
	r, err := w.fleet.Report(ctx, true)
	if err != nil {
		return l, err
	}
	l.bench = r.RSS
	return l, nil
}

// window measures processor time while time passes.
func (w *world) window(ctx context.Context, d time.Duration, what string) (meter, error) {
	m, err := w.read()
	if err != nil {
		return m, err
	}
	if err := w.wait(ctx, d, what); err != nil {
		return m, err
	}
	return w.since(m)
}

func (s *Idle) figures(w *world, before level, levels [2]level, empty, busy meter, r *swarm.Report) {
	low, high := &levels[0], &levels[1]
	slope := func(low, high int64) float64 { return float64(high-low) / float64(s.High-s.Low) }
	w.set("rss_bytes_per_session", slope(low.asIs.RSS, high.asIs.RSS))
	w.set("rss_bytes_per_session_collected", slope(low.collected.RSS, high.collected.RSS))
	w.set("heap_bytes_per_session", slope(low.held.HeapAlloc, high.held.HeapAlloc))
	w.set("heap_inuse_bytes_per_session", slope(low.held.HeapInuse, high.held.HeapInuse))
	w.set("stack_bytes_per_session", slope(low.held.StackInuse, high.held.StackInuse))
	w.set("goroutines_per_session", slope(int64(low.held.Goroutines), int64(high.held.Goroutines)))
	w.set("kernel_bytes_per_session_both_ends", slope(low.kernel.Slab+low.kernel.TCP, high.kernel.Slab+high.kernel.TCP))
	w.set("empty_rss_bytes", float64(before.collected.RSS))
	w.set("low_rss_bytes", float64(low.collected.RSS))
	w.set("high_rss_bytes", float64(high.collected.RSS))
	w.set("sessions", float64(s.High))

	w.set("empty_core_percent", empty.percent(empty.server))
	w.set(heartbeatsFigure, busy.percent(busy.server)-empty.percent(empty.server))
	if !s.isMarked(w) {
		w.unmarked = append(w.unmarked, heartbeatsFigure)
	}
	w.set("heartbeats", float64(r.Pings))
	if r.Pings > 0 {
		own := busy.server - time.Duration(float64(empty.server)*busy.wall.Seconds()/empty.wall.Seconds())
		w.set("heartbeat_cpu_us", micros(own, float64(r.Pings)))
		w.setOwn(busy, float64(r.Pings))
	}
	w.set("bench_rss_bytes", float64(high.bench))
	w.set("bench_bytes_per_client", float64(high.bench-before.bench)/float64(s.High))
	if w.facts.Running {
		w.note("the server was running before: its own heartbeat interval applies, and not the one asked for")
	}
	w.note("resident memory is from /proc/PID/%s; \"as it is\" is sampled before the collections of its level", high.asIs.Source)
	w.note("kernel memory is the machine's (Slab of /proc/meminfo, TCP of /proc/net/sockstat): both sockets of a session are in it")
}
