//go:build !unix

package simulation

import "time"

// wallClock is the real time, where it is known.
func wallClock() time.Duration { return 0 }
