// Package clocktest is a clock for tests that only read the time.
package clocktest

import (
	"sync"
	"time"

	"carillon/server/clock"
)

// Clock is a clock that stands still until it is moved. Only Now is its own: what waits, waits by the system's clock. It may be used by
// several goroutines.
type Clock struct {
	clock.Clock
	mu  sync.Mutex
	now time.Time // guarded by mu
}

// New returns a clock at a fixed moment.
func New() *Clock { return At(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) }

// At returns a clock at that moment.
func At(now time.Time) *Clock { return &Clock{Clock: clock.System, now: now} }

// Now returns the moment that the clock stands at.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock, back if d is below zero.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}
