package history

import (
	"maps"
	"slices"
	"time"
)

// move is one move of a task.
type move struct {
	name     string
	at, done time.Duration // when it was asked for first, and answered; done 0: it never was
}

// taskSeen is what is known of one task.
type taskSeen struct {
	id    string
	moves []*move
	slots map[Device][]slotSeen // by user, in the order of their times
	told  *Record               // what was told of it last
}

// slotSeen is how often a message lay in a slot at a moment.
type slotSeen struct {
	at time.Duration
	n  int
}

// task returns what is known of a task so far.
func (c *checker) task(id string) *taskSeen {
	t := c.tasks[id]
	if t == nil {
		t = &taskSeen{id: id, slots: make(map[Device][]slotSeen)}
		c.tasks[id] = t
	}
	return t
}

// noteTask notes a record of a task.
func (c *checker) noteTask(r *Record) {
	t := c.task(r.ID)
	switch r.Kind {
	case MoveAsk:
		t.moves = append(t.moves, &move{name: r.Code, at: r.At})
	case MoveAnswer:
		i := slices.IndexFunc(t.moves, func(m *move) bool { return m.name == r.Code && m.done == 0 })
		if i < 0 {
			c.violate("task", "an answer to %s of %s, which nobody asked for", r.Code, r.ID)
			return
		}
		t.moves[i].done = r.At
	case Held:
		t.slots[r.Device] = append(t.slots[r.Device], slotSeen{r.At, r.Count})
	case Told:
		told := *r
		t.told = &told
	}
}

// judgeTasks judges what lay in the slots of each task's users, and what was told of it.
func (c *checker) judgeTasks() {
	for _, id := range slices.Sorted(maps.Keys(c.tasks)) {
		t := c.tasks[id]
		have := 0
		for u, seen := range t.slots {
			if seen[len(seen)-1].n > 0 {
				have++
			}
			c.slotOf(t, u, seen)
		}
		if t.told != nil {
			c.counts(t, have)
		}
	}
}

// slotOf judges one user's slot.
func (c *checker) slotOf(t *taskSeen, u Device, seen []slotSeen) {
	for i, s := range seen {
		if s.n > 1 {
			c.violate("task", "%s/%s has the message of task %s %d times", u.Product, u.User, t.id, s.n)
			return
		}
		if i > 0 && seen[i-1].n == 0 && s.n > 0 && t.shut(seen[i-1].at, s.at) {
			c.violate("task", "%s/%s had no message of task %s at %v, when it had been stopped, and has it at %v", u.Product, u.User, t.id, seen[i-1].at, s.at)
		}
	}
	if t.told == nil {
		return
	}
	switch n := seen[len(seen)-1].n; {
	case t.told.Code == Completed && n == 0:
		c.violate("task", "%s/%s does not have the message of task %s, which is completed", u.Product, u.User, t.id)
	case t.recalled() && n > 0:
		c.violate("task", "%s/%s still has the message of task %s, which was taken back", u.Product, u.User, t.id)
	}
}

// shut reports whether nothing of the task could be written between two moments: a move that ends writing was answered before the first, and none that lets it go on was
// asked for between that and the second.
func (t *taskSeen) shut(from, to time.Duration) bool {
	var since time.Duration
	for _, m := range t.moves {
		if (m.name == "pause" || m.name == "stop" || m.name == "recall") && m.done > 0 && m.done <= from {
			since = max(since, m.done)
		}
	}
	return since > 0 && !slices.ContainsFunc(t.moves, func(m *move) bool {
		// One that was asked for before, and answered later or never, may have come about between as well.
		return (m.name == "resume" || m.name == "approve") && m.at <= to && (m.done == 0 || m.done >= since)
	})
}

// recalled reports whether the task was taken back, and that is done.
func (t *taskSeen) recalled() bool {
	return t.told.Code == Stopped && slices.ContainsFunc(t.moves, func(m *move) bool { return m.name == "recall" && m.done > 0 })
}

// counts judges what was told of a task at rest. have is how many of the users whose slots were looked at have its message.
func (c *checker) counts(t *taskSeen, have int) {
	n := t.told.Counts
	if sum := sumOf(n, parts); n[Audience] != sum {
		c.violate("counts", "the parts of task %s add up to %d of %d devices: %v", t.id, sum, n[Audience], n)
	}
	if len(t.slots) == 0 {
		return
	}
	written := n[Written]
	switch all := int64(len(t.slots)) == n[Users]; {
	case t.recalled():
		if n[TakenBack] != written {
			c.violate("counts", "task %s was taken back from %d of the %d users that it was written for", t.id, n[TakenBack], written)
		}
	case all && written != int64(have), written < int64(have):
		c.violate("counts", "task %s tells of %d users that it was written for, and %d have it", t.id, written, have)
	}
	if got := c.devicesThatSaw(t.id); n[Acknowledged] > got {
		c.violate("counts", "task %s was acknowledged by %d devices, and %d saw it", t.id, n[Acknowledged], got)
	}
}

func sumOf(n map[string]int64, keys []string) (sum int64) {
	for _, k := range keys {
		sum += n[k]
	}
	return sum
}

// devicesThatSaw returns how many devices saw a message.
func (c *checker) devicesThatSaw(id string) (n int64) {
	for _, es := range c.byDev {
		if slices.ContainsFunc(es, func(e event) bool {
			return e.id != none && c.ids[e.id].id == id && (e.is(Deliver) || e.is(Peek) || e.is(Crash))
		}) {
			n++
		}
	}
	return n
}
