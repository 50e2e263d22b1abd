package history

import (
	"cmp"
	"fmt"
	"slices"
)

// Violation is one breach of the promise.
type Violation struct {
	Rule   string
	Detail string
}

func (v Violation) String() string { return v.Rule + ": " + v.Detail }

// Run is what Check needs to know of a run beside its records.
type Run struct {
	// Devices lists every device that existed before the first message was sent, and was connected until it had caught up
	// after the last: what was accepted has to be at each that it is meant for.
	Devices []Device
	// OwnOnly says that every message went to own slots, so that a device's acknowledged position covers what it handled.
	OwnOnly bool
}

type sent struct {
	Record
	ok       bool
	id       string
	recalled bool
}

type sendKey struct {
	sender string
	seq    int
}

type checker struct {
	run   Run
	sends map[sendKey]*sent
	byID  map[string]*sent
	byDev map[Device][]Record // deliveries, acks and gaps, in their order
	out   []Violation
}

// Check judges the records of a run that has come to rest and returns all violations it finds, none if the promise held.
func Check(run Run, records []Record) []Violation {
	c := &checker{run: run, sends: make(map[sendKey]*sent), byID: make(map[string]*sent), byDev: make(map[Device][]Record)}
	records = slices.Clone(records)
	slices.SortStableFunc(records, func(a, b Record) int { return cmp.Compare(a.At, b.At) })
	c.index(records)
	c.keys()
	for dev, rs := range c.byDev {
		c.device(dev, rs)
	}
	c.lost()
	c.agree()
	slices.SortFunc(c.out, func(a, b Violation) int { return cmp.Or(cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Detail, b.Detail)) })
	return c.out
}

func (c *checker) violate(rule, format string, args ...any) {
	c.out = append(c.out, Violation{rule, fmt.Sprintf(format, args...)})
}

// index sorts the records out, and learns the ids of messages whose sender never got an answer from their deliveries.
func (c *checker) index(records []Record) {
	byBody := make(map[string]*sent)
	for _, r := range records {
		k := sendKey{r.Sender, r.Seq}
		switch r.Kind {
		case Invoke:
			if c.sends[k] == nil { // a repetition under the same key is the same message
				s := &sent{Record: r}
				c.sends[k] = s
				byBody[r.Body] = s
			}
		case OK:
			s := c.sends[k]
			if s == nil {
				c.violate("phantom", "an answer to %s/%d, which was never sent", r.Sender, r.Seq)
				continue
			}
			if s.id != "" && s.id != r.ID {
				c.violate("idempotency", "%s/%d has the ids %s and %s", r.Sender, r.Seq, s.id, r.ID)
			}
			s.ok, s.id = true, r.ID
			c.name(s, r.ID)
		case Recall:
			if s := c.byID[r.ID]; s != nil {
				s.recalled = true
			}
		case Deliver, Ack, Gap, Stored:
			c.byDev[r.Device] = append(c.byDev[r.Device], r)
		}
	}
	for _, r := range records { // those nobody was told the id of
		if r.Kind != Deliver || c.byID[r.ID] != nil {
			continue
		}
		if s := byBody[r.Body]; s != nil && !s.ok {
			s.id = r.ID
			c.name(s, r.ID)
		}
	}
}

func (c *checker) name(s *sent, id string) {
	if other := c.byID[id]; other != nil && other != s {
		c.violate("ids", "%s names both %s/%d and %s/%d", id, other.Sender, other.Seq, s.Sender, s.Seq)
		return
	}
	c.byID[id] = s
}

// keys judges that one idempotency key made one message.
func (c *checker) keys() {
	first := make(map[string]*sent)
	for _, s := range c.sends {
		if s.Key == "" || s.id == "" {
			continue
		}
		if o := first[s.Key]; o != nil && o.id != s.id {
			c.violate("idempotency", "the key of %s/%d and %s/%d made two messages", o.Sender, o.Seq, s.Sender, s.Seq)
		}
		first[s.Key] = s
	}
}

func (s *sent) isFor(d Device) bool { return s.Everyone || slices.Contains(s.To, d.User) }

// device judges what one device saw, in its order.
func (c *checker) device(dev Device, rs []Record) {
	seen := make(map[string]bool)
	last := make(map[string]int)    // by sender and slot: the sequence seen last
	acked := make(map[int]uint64)   // by slot
	highest := make(map[int]uint64) // by slot, what this device itself acknowledged at most
	for _, r := range rs {
		switch r.Kind {
		case Deliver:
			s := c.byID[r.ID]
			if s == nil {
				c.violate("phantom", "%v saw %s, which nobody sent", dev, r.ID)
				continue
			}
			if !s.isFor(dev) || s.Body != r.Body {
				c.violate("phantom", "%v saw %s of %s/%d, which is not for it or has another body", dev, r.ID, s.Sender, s.Seq)
			}
			if seen[r.ID] {
				c.violate("duplicate", "%v saw %s of %s/%d twice", dev, r.ID, s.Sender, s.Seq)
			}
			seen[r.ID] = true
			if s.Persistent {
				stream := fmt.Sprintf("%s to slot %d", s.Sender, r.Slot)
				if before, ok := last[stream]; ok && before >= s.Seq {
					c.violate("order", "%v saw %s/%d after %d", dev, s.Sender, s.Seq, before)
				}
				last[stream] = s.Seq
				if r.Pos > 0 && r.Pos <= acked[r.Slot] && c.run.OwnOnly {
					c.violate("hole", "%v saw position %d of slot %d after it had acknowledged %d", dev, r.Pos, r.Slot, acked[r.Slot])
				}
			}
		case Ack:
			acked[r.Slot] = max(acked[r.Slot], r.Pos)
			highest[r.Slot] = max(highest[r.Slot], r.Pos)
		case Gap:
			acked[r.Slot] = 0
		case Stored:
			if r.Pos > highest[r.Slot] && highest[r.Slot] > 0 {
				c.violate("isolation", "the cursor of %v in slot %d stands at %d, but it acknowledged at most %d", dev, r.Slot, r.Pos, highest[r.Slot])
			}
		}
	}
}

// lost judges that everything accepted arrived.
func (c *checker) lost() {
	for _, dev := range c.run.Devices {
		seen := make(map[string]bool)
		gap := false
		for _, r := range c.byDev[dev] {
			seen[r.ID] = seen[r.ID] || r.Kind == Deliver
			gap = gap || r.Kind == Gap
		}
		if gap {
			continue // it was told; which messages is not known here
		}
		for _, s := range c.sends {
			if s.ok && s.Persistent && !s.recalled && s.isFor(dev) && !seen[s.id] {
				c.violate("lost", "%s of %s/%d was accepted and never reached %v", s.id, s.Sender, s.Seq, dev)
			}
		}
	}
}

// agree judges that the devices of a user saw what is common to them in one order, slot by slot.
func (c *checker) agree() {
	type slotOf struct {
		user string
		slot int
	}
	order := make(map[slotOf]map[string]int) // as the device that saw most had it
	from := make(map[slotOf]Device)
	devices := make([]Device, 0, len(c.byDev))
	for d := range c.byDev {
		devices = append(devices, d)
	}
	slices.SortFunc(devices, func(a, b Device) int {
		return cmp.Or(cmp.Compare(a.User, b.User), cmp.Compare(len(c.byDev[b]), len(c.byDev[a])), cmp.Compare(a.Device, b.Device))
	})
	for _, d := range devices {
		at := make(map[int]int)
		for _, r := range c.byDev[d] {
			s := c.byID[r.ID]
			if r.Kind != Deliver || s == nil || !s.Persistent {
				continue
			}
			k := slotOf{d.User, r.Slot}
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
