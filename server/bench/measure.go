package bench

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"carillon/server/bench/sample"
	"carillon/server/bench/swarm"
)

// meter is processor time at one moment, or between two.
type meter struct {
	wall                  time.Duration
	server, clients, self time.Duration
}

// read returns what was used so far.
func (w *world) read() (m meter, err error) {
	if m.server, err = sample.CPU(w.server.pid); err != nil {
		return m, fmt.Errorf("the server is gone: %w", err)
	}
	if w.fleet != nil {
		for _, pid := range w.fleet.PIDs() {
			cpu, err := sample.CPU(pid)
			if err != nil {
				return m, err
			}
			m.clients += cpu
		}
	}
	m.self, err = sample.CPU(os.Getpid())
	m.wall = time.Duration(sample.Monotonic())
	return m, err
}

// since returns what was used after an earlier reading.
func (w *world) since(before meter) (meter, error) {
	now, err := w.read()
	return meter{
		wall: now.wall - before.wall, server: now.server - before.server, clients: now.clients - before.clients,
		self: now.self - before.self,
	}, err
}

// percent returns a share of one core.
func (m meter) percent(cpu time.Duration) float64 { return 100 * cpu.Seconds() / m.wall.Seconds() }

// bench is what we used ourselves.
func (m meter) bench() time.Duration { return m.clients + m.self }

func micros(d time.Duration, n float64) float64 { return d.Seconds() * 1e6 / n }

func millis(d time.Duration) float64 { return d.Seconds() * 1e3 }

// setOwn notes what the bench itself cost, beside n of what was measured.
func (w *world) setOwn(m meter, n float64) {
	w.set("bench_cpu_percent", m.percent(m.bench()))
	w.set("bench_cpu_us", micros(m.bench(), n))
}

// atOnce is how many clients connect at the same time, where that is not what is measured.
const atOnce = 64

// connect connects clients, and fails unless all get in.
func (w *world) connect(ctx context.Context, from, count, atOnce int) (*swarm.Report, error) {
	if count == 0 {
		return &swarm.Report{}, nil
	}
	r, err := w.fleet.Connect(ctx, from, count, atOnce)
	if err != nil {
		return nil, err
	}
	if r.Welcomed != count || r.CaughtUp != count {
		return nil, fmt.Errorf("%d of %d clients did not get in: %s", count-r.CaughtUp, count, reasons(r.Failed))
	}
	return r, nil
}

// begin starts a phase: what arrives from now on is counted.
func (w *world) begin(ctx context.Context, how swarm.Counting) error {
	w.phase++
	return w.fleet.Begin(ctx, w.phase, how)
}

// mark returns the mark of messages whose request begins now, still without their number.
func (w *world) mark() swarm.Mark { return swarm.Mark{Phase: w.phase, Sent: sample.Monotonic()} }

// reasons writes counts by reason, the commonest first.
func reasons(counts map[string]int) string {
	why := slices.SortedFunc(maps.Keys(counts), func(a, b string) int { return counts[b] - counts[a] })
	parts := make([]string, 0, len(why))
	for i, s := range why {
		if i == 5 {
			parts = append(parts, "and others")
			break
		}
		parts = append(parts, fmt.Sprintf("%d: %s", counts[s], s))
	}
	if len(parts) == 0 {
		return "no reason was told"
	}
	return strings.Join(parts, "; ")
}

// lost fails if clients went that were not asked to.
func lost(r *swarm.Report) error {
	n := 0
	for _, k := range r.Lost {
		n += k
	}
	if n > 0 {
		return fmt.Errorf("%d clients were lost: %s", n, reasons(r.Lost))
	}
	return nil
}

// wait lets time pass, and says how much is left.
func (w *world) wait(ctx context.Context, d time.Duration, what string) error {
	until := time.Now().Add(d)
	for {
		left := time.Until(until)
		if left <= 0 {
			return nil
		}
		w.progress("%s, %v left", what, left.Round(time.Second))
		step := time.NewTimer(min(left, time.Second))
		select {
		case <-step.C:
		case <-ctx.Done():
			step.Stop()
			return context.Cause(ctx)
		}
	}
}
