package admission

import (
	"context"
	"runtime/metrics"
	"time"
)

// liveHeap is what the last collection found reachable.
func liveHeap() int64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64())
}

// lookEvery is how often the heap is looked at, at most: what is live changes with a collection only.
const lookEvery = moment(time.Second)

// isHeavy reports whether more is live than the budget allows. One of those who ask looks, the others take its word.
func (g *Gate) isHeavy(now moment) bool {
	last := g.looked.Load()
	if now-moment(last) >= lookEvery && g.looked.CompareAndSwap(last, int64(now)) {
		if g.look() {
			select {
			case g.shut <- struct{}{}:
			default: // Run knows
			}
		}
	}
	return g.heavy.Load()
}

func (g *Gate) look() (heavy bool) {
	heavy = g.cfg.Live() > g.cfg.HeapBytes
	g.heavy.Store(heavy)
	return heavy
}

// How often a node that is shut for its memory collects: the next collection begins collectEvery after the one before, or after
// nineteen times as long as that one took, so that they take a twentieth of the time at most. What one costs the processor while
// it runs is the runtime's rule, a quarter of the cores.
const (
	collectEvery = 5 * time.Second
	collectRest  = 19
)

// Run has the heap collected while the gate is shut for it and somebody asks, until ctx ends. A collection comes by itself when the
// heap has grown, and that of a node which takes nobody does not grow: it would learn after two minutes only that its sessions
// have gone. It is called once, and a gate without a budget needs no Run.
func (g *Gate) Run(ctx context.Context) error {
	rest := collectEvery
	for {
		select {
		case <-g.shut:
		case <-ctx.Done():
			return ctx.Err()
		}
		if !g.wait(ctx, rest) {
			return ctx.Err()
		}
		if g.cfg.Live() > g.cfg.HeapBytes { // otherwise a collection came by itself meanwhile
			began := g.cfg.Clock.Now()
			g.cfg.Collect()
			g.cfg.Metrics.collections.Inc()
			rest = max(collectEvery, collectRest*g.cfg.Clock.Now().Sub(began))
		}
		g.look()
	}
}

// wait reports false once ctx has ended.
func (g *Gate) wait(ctx context.Context, d time.Duration) bool {
	t := g.cfg.Clock.NewTicker(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
