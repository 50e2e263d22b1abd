package simulation

import (
	"sync"
	"time"

	"carillon/server/clock"
)

// hands is the clock.Clock of one component: its timers are events of its lane, so that two timers of one moment never
// run out at once. It goes with the component: after stop nothing that was asked of it happens.
type hands struct {
	lane *lane
	skew time.Duration // what the component's idea of the time differs by
	// oneTicker says that a new ticker takes the place of the last, which nobody can tell this clock was stopped: a
	// time.Ticker made by hand does not say so.
	oneTicker bool

	mu      sync.Mutex
	stopped bool               // guarded by mu
	timers  map[*hand]struct{} // guarded by mu; those running
	ticker  *hand              // guarded by mu; with oneTicker
}

// hand is a timer or a ticker.
type hand struct {
	of *hands
	f  func() // runs on the driver's goroutine
	e  *event // guarded by of.mu; nil: not running
}

var _ clock.Clock = (*hands)(nil)

func newHands(l *lane) *hands { return &hands{lane: l, timers: make(map[*hand]struct{})} }

// Now returns the virtual moment.
func (c *hands) Now() time.Time { return time.Now().Add(c.skew) }

// AfterFunc runs f in its own goroutine once d has passed.
func (c *hands) AfterFunc(d time.Duration, f func()) clock.Timer {
	h := &hand{of: c}
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
	h := &hand{of: c}
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
	h.e = h.of.lane.after(d, h.f)
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
