package history

import (
	"cmp"
	"slices"
	"time"
)

// audiences are the messages by whom they are for.
type audiences struct {
	users    map[Device][]*sent // by user and product, without a device
	everyone map[string][]*sent // by product
}

func (c *checker) audiences() audiences {
	a := audiences{make(map[Device][]*sent), make(map[string][]*sent)}
	for _, s := range c.order {
		if s.Everyone {
			a.everyone[s.Product] = append(a.everyone[s.Product], s)
			continue
		}
		add := func(user string) {
			k := Device{User: user, Product: s.Product}
			if all := a.users[k]; len(all) == 0 || all[len(all)-1] != s {
				a.users[k] = append(all, s)
			}
		}
		for _, u := range s.To {
			add(u)
		}
		for _, d := range s.Devices {
			add(d.User)
		}
	}
	return a
}

// lost judges that everything accepted arrived.
func (c *checker) lost() {
	all, seen := c.audiences(), c.newSet()
	for _, dev := range c.run.Devices {
		clear(seen)
		var told [2]time.Duration // by slot: what was sent before that may be missing, as a gap said
		es := c.byDev[dev]
		for i := range es {
			switch e := &es[i]; {
			case e.is(Deliver):
				seen.add(e.id)
			case e.is(Gap) && e.flags&reset == 0:
				told[e.slot] = e.at
			}
		}
		due := c.dueFrom(dev)
		for _, of := range [][]*sent{all.users[Device{User: dev.User, Product: dev.Product}], all.everyone[dev.Product]} {
			for _, s := range of {
				c.arrived(dev, s, seen, due, told)
			}
		}
	}
}

// arrived judges that a message reached a device, as far as it has to.
func (c *checker) arrived(dev Device, s *sent, seen set, due, told [2]time.Duration) {
	k := s.slot()
	// A gap says which slot it is in, and not which messages were there.
	if !s.Persistent || s.recalled || s.collapsed || !s.isFor(dev) || s.At <= due[k] || s.At < told[k] ||
		s.TTL > 0 || c.had(dev, s.Having, s.At, c.end) != yes {
		return
	}
	for _, a := range s.accepted {
		if !seen.has(a.id) && !c.excused(dev, k, a) {
			c.violate("lost", "%s of %s/%d was accepted at %v and never reached %v", c.ids[a.id].id, s.Sender, s.Seq, a.at, dev)
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
	es := c.byDev[dev]
	for i := range es {
		r := &es[i]
		if !r.is(Online) {
			continue
		}
		for k := range due {
			switch start, head := r.starts(k); {
			case first && !start:
				due[k] = r.at
			case !first && head && c.lostSince(dev.Product, due[k], r.at):
				due[k] = r.at
			case !first && c.lostWhole(since, r.at):
				due[k] = r.at
			}
		}
		if first {
			first, since = false, r.at
		}
	}
	return due
}

// welcomeTakes is how long a welcome is on its way at most: the device was known to the store before it knew it itself.
const welcomeTakes = 2 * time.Second

// lostWhole reports whether the store as a whole fell back, before the second moment, to what it was before the first.
func (c *checker) lostWhole(first, before time.Duration) bool {
	return slices.ContainsFunc(c.losses, func(l Record) bool {
		return l.Product == "" && l.Since <= first && l.At >= first-welcomeTakes && max(l.from(), first-welcomeTakes) < before
	})
}

// excused reports whether the store said that it lost what it accepted then.
func (c *checker) excused(dev Device, slot int, a accepted) bool {
	return slices.ContainsFunc(c.losses, func(l Record) bool {
		return losesSlot(&l, dev, slot) && l.At >= a.from && l.Since <= a.at
	})
}

// agree judges that the devices of a user saw what is common to them in one order, slot by slot.
func (c *checker) agree(devices []Device) {
	order := make(map[int16]map[int32]int) // by slot, as the device that saw most had it
	from := make(map[int16]Device)
	again := c.newSet()
	for _, d := range devices {
		at := make(map[int16]int)
		clear(again)
		fell := [2]time.Duration{c.firstLoss(d, 0), c.firstLoss(d, 1)}
		es := c.byDev[d]
		for i := range es {
			r := &es[i]
			if r.is(Forget) {
				break // it begins anew, and may now be given what a gap had taken from it before
			}
			if !r.is(Deliver) || again.has(r.id) {
				continue
			}
			s := c.ids[r.id].sent
			if s == nil || !c.isOrdered(s) || r.slot < 2 && fell[r.slot] <= r.at {
				continue
			}
			again.add(r.id)
			if order[r.slot] == nil {
				order[r.slot], from[r.slot] = make(map[int32]int), d
			}
			o := order[r.slot]
			n, known := o[r.id]
			switch {
			case known:
			case from[r.slot] == d:
				n = len(o)
				o[r.id] = n
			default:
				continue // the other one did not see it
			}
			if before, ok := at[r.slot]; ok && n < before {
				c.violate("order", "%v saw %s in another order than another device of the user", d, c.ids[r.id].id)
			}
			at[r.slot] = max(at[r.slot], n)
		}
	}
}

// firstLoss returns from when on a user's slot has lost something, forever if it has not.
func (c *checker) firstLoss(d Device, slot int) time.Duration {
	first := forever
	for i := range c.losses {
		if l := &c.losses[i]; losesSlot(l, d, slot) {
			first = min(first, l.from())
		}
	}
	return first
}

// groups returns the devices of which there are records, those of a user together, that with most records first.
func (c *checker) groups() (groups [][]Device) {
	ds := make([]Device, 0, len(c.byDev))
	for d := range c.byDev {
		ds = append(ds, d)
	}
	slices.SortFunc(ds, func(a, b Device) int {
		return cmp.Or(cmp.Compare(a.Product, b.Product), cmp.Compare(a.User, b.User),
			cmp.Compare(len(c.byDev[b]), len(c.byDev[a])), cmp.Compare(a.Device, b.Device))
	})
	for i, d := range ds {
		if i == 0 || d.Product != ds[i-1].Product || d.User != ds[i-1].User {
			groups = append(groups, nil)
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], d)
	}
	return groups
}

// positions judges that a position of a slot was given to one message, unless the store lost that one. The devices are those of a user.
func (c *checker) positions(devices []Device) {
	type place struct {
		slot int16
		pos  uint64
	}
	held := make(map[place]int32)
	for _, d := range devices {
		es := c.byDev[d]
		for i := range es {
			r := &es[i]
			if !r.is(Deliver) || r.pos == 0 || c.ids[r.id].sent == nil {
				continue
			}
			p := place{r.slot, r.pos}
			id, ok := held[p]
			if !ok {
				held[p] = r.id
				continue
			}
			h, s := c.ids[id].sent, c.ids[r.id].sent
			if id != r.id && !c.mayBeGivenAgain(d, int(r.slot), min(h.At, s.At), max(h.last, h.done, s.last, s.done)) {
				c.violate("position", "position %d of slot %d of %v held both %s and %s", r.pos, r.slot, d, c.ids[id].id, c.ids[r.id].id)
			}
		}
	}
}

// mayBeGivenAgain reports whether the store fell back between two moments, so that it gave a position again. A slot
// that was lost as a whole begins elsewhere.
func (c *checker) mayBeGivenAgain(d Device, slot int, from, to time.Duration) bool {
	return slices.ContainsFunc(c.losses, func(l Record) bool {
		return losesSlot(&l, d, slot) && l.Product == "" && l.At >= from && l.from() <= to
	})
}
