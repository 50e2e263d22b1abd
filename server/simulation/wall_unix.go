//go:build unix

package simulation

import (
	"time"

	"golang.org/x/sys/unix"
)

// wallClock is the real time, which package time does not tell in a bubble.
func wallClock() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
