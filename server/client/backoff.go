package client

import "time"

// Backoff says how long a client waits between attempts: a random time between 0 and a ceiling, which doubles with each
// attempt that failed ("full jitter"), so that clients that lost the same server do not come back together.
type Backoff struct {
	Base time.Duration // the first ceiling; 0: 500 ms
	Max  time.Duration // the highest ceiling; 0: 30 s
}

func (b Backoff) withDefaults() Backoff {
	if b.Base <= 0 {
		b.Base = 500 * time.Millisecond
	}
	if b.Max <= 0 {
		b.Max = 30 * time.Second
	}
	return b
}

// delay returns the wait after that many failed attempts, at least 1; random is in [0, 1).
func (b Backoff) delay(failed int, random float64) time.Duration {
	ceiling := b.Base
	for i := 1; i < failed && ceiling < b.Max; i++ {
		ceiling *= 2
	}
	return time.Duration(random * float64(min(ceiling, b.Max)))
}
