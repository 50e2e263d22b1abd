// Package clock is the time that a node is given. Everything in the gateway that reads a clock or waits for one takes a
// [Clock], so that a whole node can run on virtual time: inside testing/synctest the system clock is already virtual,
// and [Skewed] lets nodes in one process disagree about the hour.
package clock

import "time"

// Clock tells the time and runs functions later. All methods are safe for concurrent use.
type Clock interface {
	// Now returns the moment, with a monotonic reading.
	Now() time.Time
	// AfterFunc runs f in its own goroutine once d has passed.
	AfterFunc(d time.Duration, f func()) Timer
	// NewTicker returns a ticker with that period, above zero.
	NewTicker(d time.Duration) *time.Ticker
}

// Timer is a pending AfterFunc.
type Timer interface {
	// Stop reports whether it kept f from being started.
	Stop() bool
	Reset(d time.Duration) bool
}

// System is the clock of the machine, or of the synctest bubble it is used in.
var System Clock = system{}

type system struct{}

func (system) Now() time.Time                            { return time.Now() }
func (system) AfterFunc(d time.Duration, f func()) Timer { return time.AfterFunc(d, f) }
func (system) NewTicker(d time.Duration) *time.Ticker    { return time.NewTicker(d) }

// Skewed returns a clock that tells c's time moved by d. Durations pass at the same speed.
func Skewed(c Clock, d time.Duration) Clock { return skewed{c, d} }

type skewed struct {
	Clock
	by time.Duration
}

func (s skewed) Now() time.Time { return s.Clock.Now().Add(s.by) }
