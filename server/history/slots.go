package history

import (
	"cmp"
	"slices"
	"time"
)

// lost judges that everything accepted arrived.
func (c *checker) lost() {
	for _, dev := range c.run.Devices {
		due := c.dueFrom(dev)
		seen := make(map[string]bool)
		var told [2]time.Duration // by slot: what was sent before that may be missing, as a gap said
		end := time.Duration(0)
		for _, r := range c.byDev[dev] {
			seen[r.ID] = seen[r.ID] || r.Kind == Deliver
			if r.Kind == Gap && !r.Reset {
				told[r.Slot] = r.At
			}
			end = max(end, r.At)
		}
		for _, s := range c.order {
			k := s.slot()
			// A gap says which slot it is in, and not which messages were there.
			if !s.Persistent || s.recalled || s.collapsed || !s.isFor(dev) || s.At <= due[k] || s.At < told[k] ||
				s.TTL > 0 || c.had(dev, s.Having, s.At, c.end) != yes {
				continue
			}
			for _, a := range s.accepted {
				if !seen[a.id] && !c.excused(dev, k, a) {
					c.violate("lost", "%s of %s/%d was accepted at %v and never reached %v", a.id, s.Sender, s.Seq, a.at, dev)
				}
			}
		}
	}
}

// never is before the first moment of any run.
const never = time.Duration(-1)

// dueFrom returns, for each slot, the moment from which on what is sent has to reach the device. It begins anew only if the
// store lost what it knew of the device: then nothing holds back for it what others acknowledged, until it connects again.
func (c *checker) dueFrom(dev Device) [2]time.Duration {
	due := [2]time.Duration{never, never}
	first := true
	var since time.Duration // when it connected first
	for _, r := range c.byDev[dev] {
		if r.Kind != Online {
			continue
		}
		for k := range due {
			switch {
			case first && r.Begins[k] != FromStart:
				due[k] = r.At
			case !first && r.Begins[k] == FromHead && c.lostSince(dev.Product, due[k], r.At):
				due[k] = r.At
			case !first && c.lostWhole(since, r.At):
				due[k] = r.At
			}
		}
		if first {
			first, since = false, r.At
		}
	}
	return due
}

// welcomeTakes is how long a welcome is on its way at most: the device was known to the store before it knew it itself.
const welcomeTakes = 2 * time.Second

// lostWhole reports whether the store as a whole fell back, before the second moment, to what it was before the first.
func (c *checker) lostWhole(first, before time.Duration) bool {
	return slices.ContainsFunc(c.losses, func(l Record) bool {
		return l.Product == "" && l.Since <= first && l.At >= first-welcomeTakes && l.At < before
	})
}

// excused reports whether the store said that it lost what it accepted then.
func (c *checker) excused(dev Device, slot int, a accepted) bool {
	return slices.ContainsFunc(c.losses, func(l Record) bool {
		return losesSlot(&l, dev, slot) && l.At >= a.from && l.Since <= a.at
	})
}

type slotOf struct {
	product, user string
	slot          int
}

// agree judges that the devices of a user saw what is common to them in one order, slot by slot.
func (c *checker) agree() {
	order := make(map[slotOf]map[string]int) // as the device that saw most had it
	from := make(map[slotOf]Device)
	for _, d := range c.devices() {
		at := make(map[int]int)
		again := make(map[string]bool)
		for _, r := range c.byDev[d] {
			if r.Kind == Forget {
				break // it begins anew, and may now be given what a gap had taken from it before
			}
			s := c.byID[r.ID]
			if r.Kind != Deliver || s == nil || !c.isOrdered(s) || again[r.ID] || c.fellBefore(d, r.Slot, r.At) {
				continue
			}
			again[r.ID] = true
			k := slotOf{d.Product, d.User, r.Slot}
			if order[k] == nil {
				order[k], from[k] = make(map[string]int), d
			}
			if _, known := order[k][r.ID]; !known && from[k] == d {
				order[k][r.ID] = len(order[k])
			}
			n, known := order[k][r.ID]
			if !known {
				continue // the other one did not see it
			}
			if before, ok := at[r.Slot]; ok && n < before {
				c.violate("order", "%v saw %s in another order than another device of the user", d, r.ID)
			}
			at[r.Slot] = max(at[r.Slot], n)
		}
	}
}

// fellBefore reports whether the store lost something of a user's slot before a moment.
func (c *checker) fellBefore(d Device, slot int, at time.Duration) bool {
	return slices.ContainsFunc(c.losses, func(l Record) bool { return losesSlot(&l, d, slot) && l.At <= at })
}

// devices returns the devices of which there are records, those of a user together, that with most records first.
func (c *checker) devices() []Device {
	ds := make([]Device, 0, len(c.byDev))
	for d := range c.byDev {
		ds = append(ds, d)
	}
	slices.SortFunc(ds, func(a, b Device) int {
		return cmp.Or(cmp.Compare(a.Product, b.Product), cmp.Compare(a.User, b.User),
			cmp.Compare(len(c.byDev[b]), len(c.byDev[a])), cmp.Compare(a.Device, b.Device))
	})
	return ds
}

// positions judges that a position of a slot was given to one message, unless the store lost that one.
func (c *checker) positions() {
	type place struct {
		slotOf
		pos uint64
	}
	type holder struct {
		id       string
		from, to time.Duration // while it was sent
	}
	held := make(map[place]holder)
	for _, d := range c.devices() {
		for _, r := range c.byDev[d] {
			s := c.byID[r.ID]
			if r.Kind != Deliver || r.Pos == 0 || s == nil {
				continue
			}
			p := place{slotOf{d.Product, d.User, r.Slot}, r.Pos}
			h, ok := held[p]
			switch {
			case !ok:
				held[p] = holder{r.ID, s.At, max(s.last, s.done)}
			case h.id != r.ID && !c.mayBeGivenAgain(d, r.Slot, min(h.from, s.At), max(h.to, s.last, s.done)):
				c.violate("position", "position %d of slot %d of %v held both %s and %s", r.Pos, r.Slot, d, h.id, r.ID)
			}
		}
	}
}

// mayBeGivenAgain reports whether the store fell back between two moments, so that it gave a position again. A slot
// that was lost as a whole begins elsewhere.
func (c *checker) mayBeGivenAgain(d Device, slot int, from, to time.Duration) bool {
	return slices.ContainsFunc(c.losses, func(l Record) bool {
		return losesSlot(&l, d, slot) && l.Product == "" && l.At >= from && l.At <= to
	})
}
