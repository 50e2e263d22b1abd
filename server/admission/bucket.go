package admission

import (
	"sync/atomic"
	"time"
)

// moment is a time as the gate keeps it: nanoseconds since it was made, by the monotonic clock.
type moment int64

// bucket is a token bucket. What is in it is kept as the moment at which it is full again (the generic cell rate algorithm,
// ITU-T I.371): taking a token moves that by the time in which one comes, and is refused if it would be further away than
// a whole bucket takes to fill.
type bucket struct {
	full atomic.Int64 // a moment
}

// pace is the rate and the size of a bucket.
type pace struct {
	every time.Duration // one token comes in that time
	whole time.Duration // an empty bucket is full after that time
}

func paceOf(rate, burst int) pace {
	every := time.Second / time.Duration(rate)
	return pace{every: every, whole: every * time.Duration(burst)}
}

// take takes a token if there is one; otherwise it returns in what time there is.
func (b *bucket) take(p pace, now moment) (wait time.Duration, ok bool) {
	for {
		old := b.full.Load()
		full := max(moment(old), now) + moment(p.every)
		if over := full - now - moment(p.whole); over > 0 {
			return time.Duration(over), false
		}
		if b.full.CompareAndSwap(old, int64(full)) {
			return 0, true
		}
	}
}

// isEmpty reports whether take would refuse.
func (b *bucket) isEmpty(p pace, now moment) bool {
	return max(moment(b.full.Load()), now)+moment(p.every) > now+moment(p.whole)
}

// The bounds of what a client that is refused is told to wait.
const (
	minAfter = time.Second
	maxAfter = time.Minute
)

// queue gives those who were refused moments to come back at, one behind the other at the pace of the bucket.
type queue struct {
	last atomic.Int64 // the latest moment given out
}

// after returns in what time to come back; spread is a random number in [0, 1), for those beyond what the queue reaches.
func (q *queue) after(p pace, now moment, spread float64) time.Duration {
	for {
		old := q.last.Load()
		at := max(moment(old), now+moment(minAfter)) + moment(p.every)
		if at > now+moment(maxAfter) {
			return maxAfter/2 + time.Duration(spread*float64(maxAfter/2))
		}
		if q.last.CompareAndSwap(old, int64(at)) {
			return time.Duration(at - now)
		}
	}
}
