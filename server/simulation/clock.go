package simulation

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"carillon/server/clock"
)

// hands is the clock.Clock of one component: its timers are events, so that two timers of one moment never run out at once.
// It goes with the component: after stop nothing that was asked of it happens.
//
// Goroutines of a component that run in one step ask for their timers in any order. So the lane of a timer is named by the
// functions that lead to it and by its period, and which of two that run out at one moment comes first does not depend on
// which goroutine asked first.
type hands struct {
	lane *lane
	skew time.Duration // what the component's idea of the time differs by
	// oneTicker says that a new ticker takes the place of the last, which nobody can tell this clock was stopped: a
	// time.Ticker made by hand does not say so.
	oneTicker bool

	mu      sync.Mutex
	stopped bool               // guarded by mu
	timers  map[*hand]struct{} // guarded by mu; those running
	lanes   map[asker]*lane    // guarded by mu
	ticker  *hand              // guarded by mu; with oneTicker
}

// asker is who asks for a timer.
type asker struct {
	callers [4]uintptr // enough to tell the goroutines of a component apart
	period  time.Duration
}

// hand is a timer or a ticker.
type hand struct {
	of   *hands
	lane *lane
	f    func() // runs on the driver's goroutine
	e    *event // guarded by of.mu; nil: not running
}

var _ clock.Clock = (*hands)(nil)

func newHands(l *lane) *hands {
	return &hands{lane: l, timers: make(map[*hand]struct{}), lanes: make(map[asker]*lane)}
}

// laneFor returns the lane of a timer that the caller's caller asks for.
func (c *hands) laneFor(d time.Duration) *lane {
	who := asker{period: d}
	n := runtime.Callers(3, who.callers[:])
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.lanes[who]
	if l == nil {
		l = c.lane.sub(who.name(n))
		c.lanes[who] = l
	}
	return l
}

// name is the same in every run of one binary.
func (a *asker) name(n int) string {
	var b strings.Builder
	fmt.Fprint(&b, a.period)
	frames := runtime.CallersFrames(a.callers[:n])
	for more := n > 0; more; {
		var f runtime.Frame
		f, more = frames.Next()
		fmt.Fprintf(&b, "/%s:%d", f.Function, f.Line)
	}
	return b.String()
}

// Now returns the virtual moment.
func (c *hands) Now() time.Time { return time.Now().Add(c.skew) }

// AfterFunc runs f in its own goroutine once d has passed.
func (c *hands) AfterFunc(d time.Duration, f func()) clock.Timer {
	h := &hand{of: c, lane: c.laneFor(d)}
	h.f = func() {
		if h.expire() {
			go f()
		}
	}
	h.start(d)
	return h
}

// NewTicker returns a ticker that, as one of package time, drops ticks that nobody takes.
func (c *hands) NewTicker(d time.Duration) *time.Ticker {
	ch := make(chan time.Time, 1)
	h := &hand{of: c, lane: c.laneFor(d)}
	due := c.lane.s.now() + d
	h.f = func() {
		if !h.expire() {
			return
		}
		select {
		case ch <- c.Now():
		default:
		}
		now := c.lane.s.now()
		due += d * (1 + (now-due)/d)
		h.start(due - now)
	}
	if c.oneTicker {
		c.mu.Lock()
		old := c.ticker
		c.ticker = h
		c.mu.Unlock()
		if old != nil {
			old.Stop()
		}
	}
	h.start(d)
	return &time.Ticker{C: ch}
}

func (h *hand) start(d time.Duration) {
	h.of.mu.Lock()
	defer h.of.mu.Unlock()
	if h.of.stopped {
		return
	}
	h.e = h.lane.after(d, h.f)
	h.of.timers[h] = struct{}{}
}

// expire reports whether the hand was still running, and ends that.
func (h *hand) expire() bool {
	h.of.mu.Lock()
	defer h.of.mu.Unlock()
	if h.e == nil {
		return false
	}
	h.e = nil
	delete(h.of.timers, h)
	return true
}

// Stop reports whether it kept the function from running.
func (h *hand) Stop() bool {
	h.of.mu.Lock()
	defer h.of.mu.Unlock()
	if h.e == nil {
		return false
	}
	h.e.cancel()
	h.e = nil
	delete(h.of.timers, h)
	return true
}

// Reset starts the hand anew and reports whether it was running.
func (h *hand) Reset(d time.Duration) bool {
	was := h.Stop()
	h.start(d)
	return was
}

// stop ends every timer for good.
func (c *hands) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
	for h := range c.timers {
		h.e.cancel()
		h.e = nil
	}
	clear(c.timers)
}
