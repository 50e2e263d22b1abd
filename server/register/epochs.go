package register

import (
	"sync/atomic"
	"time"

	"carillon/server/push"
)

// EpochShift is how many low bits of an epoch lie below the milliseconds since 1970 at which it was given, unless a clock was set back.
const EpochShift = 20

// Epochs gives epochs. Its zero value is ready; it is safe for concurrent use.
type Epochs struct{ last atomic.Uint64 }

// Next returns an epoch above all that were given or seen, and above that of the session that the newcomer's client names (0: none). It follows the
// store's clock, so that epochs rise across nodes and restarts, and does not follow it backwards: where the clock fell behind what was
// given before, what clients name is how that becomes known. What lies more than a day ahead of the clock nobody can have had.
func (e *Epochs) Next(named push.SessionEpoch, now push.MilliTime) push.SessionEpoch {
	floor := epochAt(now)
	if n := uint64(named); n >= floor && n < epochAt(now+push.MilliTime(24*time.Hour/time.Millisecond)) {
		floor = n + 1
	}
	for {
		last := e.last.Load()
		next := max(last+1, floor)
		if e.last.CompareAndSwap(last, next) {
			return push.SessionEpoch(next)
		}
	}
}

// See makes later epochs higher than one that another register, or node, has given.
func (e *Epochs) See(seen push.SessionEpoch) {
	for {
		last := e.last.Load()
		if uint64(seen) <= last || e.last.CompareAndSwap(last, uint64(seen)) {
			return
		}
	}
}

func epochAt(now push.MilliTime) uint64 { return uint64(max(now, 0)) << EpochShift }
