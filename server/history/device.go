package history

import (
	"fmt"
	"slices"
	"time"
)

// stream is what one sender sends to one slot.
type stream struct {
	sender string
	slot   int
}

// watch is what is remembered of one device while its records are judged in their order.
type watch struct {
	c   *checker
	dev Device

	seen    map[string]bool
	last    map[stream]*sent // what was seen of what a sender sent to a slot, the one that it sent last
	acked   map[int]uint64   // by slot, what must be handled by now
	highest map[int]uint64   // by slot, what the device acknowledged at most
	newer   []Record         // every session of the device, to look up what replaced one
	off     []Record         // those of its sessions that had to go by now
	losses  int              // how many losses are behind
	fell    [2]bool          // the slot lost something: what it was before may come back, and be acknowledged late
}

// device judges what one device saw, in its order.
func (c *checker) device(dev Device, rs []Record) {
	w := &watch{
		c: c, dev: dev, seen: make(map[string]bool), last: make(map[stream]*sent),
		acked: make(map[int]uint64), highest: make(map[int]uint64),
	}
	for _, r := range rs {
		if r.Kind == Online {
			w.newer = append(w.newer, r)
		}
	}
	for i := range rs {
		w.pass(rs[i].At)
		w.record(&rs[i])
	}
}

// pass takes note of the losses up to a moment.
func (w *watch) pass(at time.Duration) {
	for ; w.losses < len(w.c.losses) && w.c.losses[w.losses].At <= at; w.losses++ {
		for slot := range 2 {
			if losesSlot(&w.c.losses[w.losses], w.dev, slot) {
				w.fell[slot] = true
			}
		}
	}
}

func (w *watch) hasFallen(slot int) bool { return slot < len(w.fell) && w.fell[slot] }

func (w *watch) record(r *Record) {
	switch r.Kind {
	case Peek:
		w.known(r)
	case Deliver:
		w.deliver(r)
	case Off:
		w.off = append(w.off, *r)
	case Ack:
		w.acked[r.Slot] = max(w.acked[r.Slot], r.Pos)
		w.highest[r.Slot] = max(w.highest[r.Slot], r.Pos)
	case Gap:
		w.acked[r.Slot] = 0
		if r.Reset && !w.hasFallen(r.Slot) {
			w.c.violate("reset", "%v was told at %v that slot %d was lost, which it was not", w.dev, r.At, r.Slot)
		}
	case Crash:
		delete(w.seen, r.ID)
		clear(w.last)
	case Forget:
		clear(w.seen)
		clear(w.last)
		clear(w.acked)
	case Stored:
		if r.Pos > w.highest[r.Slot] && w.highest[r.Slot] > 0 && !w.hasFallen(r.Slot) {
			w.c.violate("isolation", "the cursor of %v in slot %d stands at %d, but it acknowledged at most %d",
				w.dev, r.Slot, r.Pos, w.highest[r.Slot])
		}
	case Live:
		if r.Count > 1 {
			w.c.violate("session", "%v has %d live sessions", w.dev, r.Count)
		}
	}
}

// known judges that a delivery is of something that was sent, as it was sent, to this device.
func (w *watch) known(r *Record) *sent {
	s := w.c.byID[r.ID]
	if s == nil {
		w.c.violate("phantom", "%v saw %s, which nobody sent", w.dev, r.ID)
		return nil
	}
	if !s.isFor(w.dev) || s.Body != r.Body {
		w.c.violate("phantom", "%v saw %s of %s/%d, which is not for it or has another body", w.dev, r.ID, s.Sender, s.Seq)
	}
	if w.c.had(w.dev, s.Having, s.At, r.At) == no {
		w.c.violate("phantom", "%v saw %s of %s/%d at %v, though it never had the tags", w.dev, r.ID, s.Sender, s.Seq, r.At)
	}
	return s
}

func (w *watch) deliver(r *Record) {
	c, dev := w.c, w.dev
	s := w.known(r)
	if s == nil {
		return
	}
	key := r.ID
	if !s.Persistent {
		// On its way through several rooms it may meet a device in one and, once it moved, in another: no room knows what
		// another wrote, and clients keep the ids of what lies in slots.
		key = fmt.Sprintf("%s on %d", r.ID, r.Session)
	}
	if w.seen[key] {
		c.violate("duplicate", "%v saw %s of %s/%d twice", dev, r.ID, s.Sender, s.Seq)
	}
	w.seen[key] = true
	w.times(r, s)
	if !s.Persistent {
		if r.Pos > 0 {
			c.violate("live", "%v saw %s/%d at position %d, though it is not persistent", dev, s.Sender, s.Seq, r.Pos)
		}
		return
	}
	if !c.isOrdered(s) {
		return
	}
	k := stream{s.Sender, r.Slot}
	before := w.last[k]
	if before != nil && !(c.run.EveryoneLater && s.Everyone) && before.At >= s.known() && !s.again && !w.hasFallen(r.Slot) {
		c.violate("order", "%v saw %s/%d after %d", dev, s.Sender, s.Seq, before.Seq)
	}
	if before == nil || s.At > before.At {
		w.last[k] = s
	}
	if c.run.AcksBySlot && r.Pos > 0 && r.Pos <= w.acked[r.Slot] && !w.hasFallen(r.Slot) {
		c.violate("hole", "%v saw position %d of slot %d after it had acknowledged %d", dev, r.Pos, r.Slot, w.acked[r.Slot])
	}
}

// times judges what came too late.
func (w *watch) times(r *Record, s *sent) {
	c, dev := w.c, w.dev
	if within := c.run.LiveWithin; within > 0 && !s.Persistent && r.At-s.last > within && c.calm(dev, s.last, r.At) {
		c.violate("live", "%v saw %s/%d, which is not persistent, %v after it was sent", dev, s.Sender, s.Seq, r.At-s.last)
	}
	if within := c.run.ExpireWithin; within > 0 && s.TTL > 0 && r.At-s.last > s.TTL+within && c.calm(dev, s.last, r.At) {
		c.violate("expired", "%v saw %s/%d, which lives for %v, %v after it was sent", dev, s.Sender, s.Seq, s.TTL, r.At-s.last)
	}
	if within := c.run.KickWithin; within > 0 && r.Session > 0 {
		own := slices.IndexFunc(w.newer, func(o Record) bool { return o.Session == r.Session })
		for i := own + 1; i < len(w.newer); i++ {
			o := &w.newer[i]
			// A node whose clock was set back begins with lower epochs: so both have to say that it is newer.
			if o.Session > r.Session && r.At-o.At > within && c.calm(dev, o.At, r.At) {
				c.violate("kick", "%v saw %s/%d on a session that another had replaced %v before", dev, s.Sender, s.Seq, r.At-o.At)
				return
			}
		}
		for i := range w.off {
			if o := &w.off[i]; o.Session == r.Session && r.At-o.At > within && c.calm(dev, o.At, r.At) {
				c.violate("kick", "%v saw %s/%d on a session that had to go %v before", dev, s.Sender, s.Seq, r.At-o.At)
				return
			}
		}
	}
}
