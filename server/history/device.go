package history

import (
	"math"
	"slices"
	"time"
)

// stream is what one sender sends to one slot.
type stream struct {
	sender string
	slot   int16
}

// begun is a session of a device, or the end that one had to come to.
type begun struct {
	at      time.Duration
	session uint64
}

// onSession is a message that is not persistent, as it came on one session. On its way through several rooms it may meet a device in one
// and, once it moved, in another: no room knows what another wrote. A client drops what it has had, but several may be one device after the other.
type onSession struct {
	id      int32
	session uint64
}

// watch is what is remembered of one device while its records are judged in their order.
type watch struct {
	c   *checker
	dev Device
	at  time.Duration

	seen    set // ids of persistent messages
	live    map[onSession]bool
	last    map[stream]*sent           // what was seen of what a sender sent to a slot, the one that it sent last
	acked   map[int16]uint64           // by slot, what must be handled by now
	highest map[int16]uint64           // by slot, what the device acknowledged at most
	newer   []begun                    // every session of the device, to look up what replaced one
	turn    map[uint64]int             // the index in newer of each session
	older   int                        // how many of newer began so long ago that what they replaced is silent
	off     map[uint64][]time.Duration // when sessions had to go
	handled int32                      // how many persistent messages the application saw
	when    []int32                    // by id, how many those were when it saw this one last; nil: nothing is forgotten
	reset   [2]int32                   // how many those were when the slot was last reset; -1: it was not
	fell    [2]time.Duration           // from when on the slot has lost something: what it was before may come back, and be acknowledged late
}

// forever is after the last moment of any run.
const forever = time.Duration(math.MaxInt64)

// watchAll judges what each device saw.
func (c *checker) watchAll() {
	seen := c.newSet()
	var when []int32
	if c.run.Remembers > 0 {
		when = make([]int32, len(c.ids))
	}
	for dev, es := range c.byDev {
		clear(seen)
		w := &watch{
			c: c, dev: dev, seen: seen, live: make(map[onSession]bool), last: make(map[stream]*sent),
			acked: make(map[int16]uint64), highest: make(map[int16]uint64), turn: make(map[uint64]int), off: make(map[uint64][]time.Duration),
			fell: [2]time.Duration{c.firstLoss(dev, 0), c.firstLoss(dev, 1)},
			when: when, reset: [2]int32{-1, -1},
		}
		for i := range es {
			if e := &es[i]; e.is(Online) {
				if _, ok := w.turn[e.session]; !ok {
					w.turn[e.session] = len(w.newer)
				}
				w.newer = append(w.newer, begun{e.at, e.session})
			}
		}
		for i := range es {
			w.at = es[i].at
			w.event(&es[i])
		}
	}
}

// set is a set of ids, by their index.
type set []uint64

func (c *checker) newSet() set { return make(set, len(c.ids)/64+1) }

func (s set) has(id int32) bool { return s[id/64]&(1<<(id%64)) != 0 }
func (s set) add(id int32)      { s[id/64] |= 1 << (id % 64) }
func (s set) remove(id int32)   { s[id/64] &^= 1 << (id % 64) }

func (w *watch) hasFallen(slot int16) bool { return slot < 2 && w.fell[slot] <= w.at }

func (w *watch) event(r *event) {
	switch kinds[r.kind] {
	case Peek:
		w.known(r)
	case Deliver:
		w.deliver(r)
	case Off:
		w.off[r.session] = append(w.off[r.session], r.at)
	case Ack:
		w.acked[r.slot] = max(w.acked[r.slot], r.pos)
		w.highest[r.slot] = max(w.highest[r.slot], r.pos)
	case Gap:
		w.acked[r.slot] = 0
		if r.flags&reset != 0 && r.slot < 2 {
			w.reset[r.slot] = w.handled
		}
		if r.flags&reset != 0 && !w.hasFallen(r.slot) {
			w.c.violate("reset", "%v was told at %v that slot %d was lost, which it was not", w.dev, r.at, r.slot)
		}
	case Crash:
		w.seen.remove(r.id)
		clear(w.last)
	case Forget:
		clear(w.seen)
		clear(w.live)
		clear(w.last)
		clear(w.acked)
	case Stored:
		if r.pos > w.highest[r.slot] && w.highest[r.slot] > 0 && !w.hasFallen(r.slot) {
			w.c.violate("isolation", "the cursor of %v in slot %d stands at %d, but it acknowledged at most %d",
				w.dev, r.slot, r.pos, w.highest[r.slot])
		}
	case Live:
		if r.pos > 1 {
			w.c.violate("session", "%v has %d live sessions", w.dev, r.pos)
		}
	}
}

// known judges that a delivery is of something that was sent, as it was sent, to this device.
func (w *watch) known(r *event) *sent {
	id, s := w.c.ids[r.id].id, w.c.ids[r.id].sent
	if s == nil {
		w.c.violate("phantom", "%v saw %s, which nobody sent", w.dev, id)
		return nil
	}
	if !s.isFor(w.dev) || r.flags&otherBody != 0 {
		w.c.violate("phantom", "%v saw %s of %s/%d, which is not for it or has another body", w.dev, id, s.Sender, s.Seq)
	}
	if w.c.had(w.dev, s.Having, s.At, r.at) == no {
		w.c.violate("phantom", "%v saw %s of %s/%d at %v, though it never had the tags", w.dev, id, s.Sender, s.Seq, r.at)
	}
	return s
}

func (w *watch) deliver(r *event) {
	c, dev := w.c, w.dev
	s := w.known(r)
	if s == nil {
		return
	}
	if w.isRepeat(r, s) {
		c.violate("duplicate", "%v saw %s of %s/%d twice", dev, c.ids[r.id].id, s.Sender, s.Seq)
	}
	w.times(r, s)
	if !s.Persistent {
		if r.pos > 0 {
			c.violate("live", "%v saw %s/%d at position %d, though it is not persistent", dev, s.Sender, s.Seq, r.pos)
		}
		return
	}
	if !c.isOrdered(s) {
		return
	}
	k := stream{s.Sender, r.slot}
	before := w.last[k]
	if before != nil && !(c.run.EveryoneLater && s.Everyone) && before.At >= s.known() && !s.again && !w.hasFallen(r.slot) {
		c.violate("order", "%v saw %s/%d after %d", dev, s.Sender, s.Seq, before.Seq)
	}
	if before == nil || s.At > before.At {
		w.last[k] = s
	}
	if c.run.AcksBySlot && r.pos > 0 && r.pos <= w.acked[r.slot] && !w.hasFallen(r.slot) {
		c.violate("hole", "%v saw position %d of slot %d after it had acknowledged %d", dev, r.pos, r.slot, w.acked[r.slot])
	}
}

// isRepeat reports whether the device saw a message before, and notes that it did.
func (w *watch) isRepeat(r *event, s *sent) (again bool) {
	if s.Persistent {
		again = w.seen.has(r.id) && !w.isForgotten(r)
		w.seen.add(r.id)
		w.handled++
		if w.when != nil {
			w.when[r.id] = w.handled
		}
		return again
	}
	k := onSession{r.id, r.session}
	again, w.live[k] = w.live[k], true
	return again
}

// isForgotten reports whether a client may have forgotten that it handled a message, which came again since its slot was reset.
func (w *watch) isForgotten(r *event) bool {
	if w.when == nil || r.slot > 1 || !w.hasFallen(r.slot) {
		return false
	}
	was := w.when[r.id]
	return was <= w.reset[r.slot] && int(w.handled-was) >= w.c.run.Remembers
}

// times judges what came too late.
func (w *watch) times(r *event, s *sent) {
	c, dev := w.c, w.dev
	if within := c.run.LiveWithin; within > 0 && !s.Persistent && r.at-s.last > within && c.calm(dev, s.last, r.at) {
		c.violate("live", "%v saw %s/%d, which is not persistent, %v after it was sent", dev, s.Sender, s.Seq, r.at-s.last)
	}
	if within := c.run.ExpireWithin; within > 0 && s.TTL > 0 && r.at-s.last > s.TTL+within && c.calm(dev, s.last, r.at) {
		c.violate("expired", "%v saw %s/%d, which lives for %v, %v after it was sent", dev, s.Sender, s.Seq, s.TTL, r.at-s.last)
	}
	if c.run.KickWithin > 0 && r.session > 0 {
		w.silence(r, s)
	}
}

// silence judges that a session that was replaced, or had to go, is silent.
func (w *watch) silence(r *event, s *sent) {
	c, dev, within := w.c, w.dev, w.c.run.KickWithin
	for w.older < len(w.newer) && r.at-w.newer[w.older].at > within {
		w.older++
	}
	own, ok := w.turn[r.session]
	if !ok {
		own = -1
	}
	for i := own + 1; i < w.older; i++ { // most often none
		o := &w.newer[i]
		// A node whose clock was set back begins with lower epochs: so both have to say that it is newer.
		if o.session > r.session && c.calm(dev, o.at, r.at) {
			c.violate("kick", "%v saw %s/%d on a session that another had replaced %v before", dev, s.Sender, s.Seq, r.at-o.at)
			return
		}
	}
	for _, at := range w.off[r.session] {
		if ok && c.endedBetween(at, w.newer[own].at) {
			continue // it was another session, of the same number
		}
		if r.at-at > within && c.calm(dev, at, r.at) {
			c.violate("kick", "%v saw %s/%d on a session that had to go %v before", dev, s.Sender, s.Seq, r.at-at)
			return
		}
	}
}

// endedBetween reports whether every session ended in that time.
func (c *checker) endedBetween(from, to time.Duration) bool {
	return slices.ContainsFunc(c.ends, func(at time.Duration) bool { return from <= at && at <= to })
}
