package swarm

import (
	"math/bits"
	"time"
)

// Latency counts times in classes that are at most a thirty-second wide, so that millions of them take a few kilobytes and those of
// several processes can be added. The zero value is empty.
type Latency struct {
	Counts []uint64 `json:"counts,omitempty"` // by class, up to the last that is not empty
	N      uint64   `json:"n"`
	Most   int64    `json:"most_ns"` // the longest
}

// A class is named by the highest bit of the time in microseconds' sixteenths, and the five bits behind it.
const (
	latencyUnit = 64 // nanoseconds: shorter differences are not told apart
	subBits     = 5
	sub         = 1 << subBits
)

func classOf(d int64) int {
	u := uint64(max(d, 0)) / latencyUnit
	if u < sub {
		return int(u)
	}
	shift := bits.Len64(u) - 1 - subBits
	return (shift+1)*sub + int(u>>shift)&(sub-1)
}

// upper returns the end of a class, in nanoseconds.
func upper(class int) int64 {
	if class < sub {
		return int64(class+1) * latencyUnit
	}
	shift := class/sub - 1
	return (int64(sub+class%sub) + 1) << shift * latencyUnit
}

// Add counts one time.
func (l *Latency) Add(d time.Duration) { l.add(int64(d)) }

func (l *Latency) add(d int64) {
	c := classOf(d)
	if c >= len(l.Counts) {
		l.Counts = append(l.Counts, make([]uint64, c+1-len(l.Counts))...)
	}
	l.Counts[c]++
	l.N++
	l.Most = max(l.Most, d)
}

// Merge adds what another counted.
func (l *Latency) Merge(o Latency) {
	if n := len(o.Counts) - len(l.Counts); n > 0 {
		l.Counts = append(l.Counts, make([]uint64, n)...)
	}
	for i, n := range o.Counts {
		l.Counts[i] += n
	}
	l.N += o.N
	l.Most = max(l.Most, o.Most)
}

// Quantile returns the time within which the share q of all lay, rounded up to the end of its class; 0 if there is none.
func (l *Latency) Quantile(q float64) time.Duration {
	if l.N == 0 {
		return 0
	}
	rank := uint64(q*float64(l.N-1)) + 1
	for class, n := range l.Counts {
		if n >= rank {
			return time.Duration(min(upper(class), l.Most))
		}
		rank -= n
	}
	return time.Duration(l.Most)
}
