package swarm

import "time"

// entry is something that one client is to do at some time. A client that went meanwhile, and whose socket number another
// has, is told by its generation.
type entry struct {
	fd  int32
	gen uint32
}

// wheel holds what is due within one turn, in slots of a tick: coarse, and free of charge for what waits. Nothing comes
// early; it may come a tick late.
type wheel struct {
	tick  int64 // nanoseconds
	at    int64 // the first tick that has not been gone through
	slots [][]entry
	count int
}

// newWheel returns a wheel that begins at now and takes what is due within turn.
func newWheel(now int64, tick, turn time.Duration) *wheel {
	w := &wheel{tick: int64(tick), slots: make([][]entry, int(turn/tick)+3)}
	w.at = now/w.tick + 1
	return w
}

// add puts an entry in. What is due beyond the turn comes at its end.
func (w *wheel) add(e entry, due int64) {
	at := (due + w.tick - 1) / w.tick
	at = min(max(at, w.at), w.at+int64(len(w.slots))-2)
	i := at % int64(len(w.slots))
	w.slots[i] = append(w.slots[i], e)
	w.count++
}

// advance calls do for all that is due by now. do may add: never into the slot that is gone through, which lies a whole turn
// ahead by then.
func (w *wheel) advance(now int64, do func(entry)) {
	for w.at*w.tick <= now {
		i := w.at % int64(len(w.slots))
		w.at++
		due := w.slots[i]
		for _, e := range due {
			w.count--
			do(e)
		}
		w.slots[i] = due[:0]
	}
}

// next returns when the next tick is over; false if nothing waits.
func (w *wheel) next() (int64, bool) { return w.at * w.tick, w.count > 0 }
