package room

import (
	"context"
	"sync"

	"carillon/server/push"
	"carillon/server/task"
)

// counter is where the rooms of a world add what they count.
type counter struct {
	mu     sync.Mutex
	counts map[task.Life]map[push.MsgID]task.Counts
	calls  [][]task.Counted
	err    error // of every call; nothing is added
}

func (c *counter) Count(_ context.Context, cs []task.Counted) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, cs)
	if c.err != nil {
		return c.err
	}
	if c.counts == nil {
		c.counts = make(map[task.Life]map[push.MsgID]task.Counts)
	}
	for i := range cs {
		of := c.counts[cs[i].Life]
		if of == nil {
			of = make(map[push.MsgID]task.Counts)
			c.counts[cs[i].Life] = of
		}
		sum := of[cs[i].Task]
		sum.Add(cs[i].Counts)
		of[cs[i].Task] = sum
	}
	return nil
}

// of returns what a room counted of a message, whether it was handed over or not.
func (w *world) counted(r *Room, id push.MsgID) task.Counts {
	w.counts.mu.Lock()
	sum := w.counts.counts[r.tally.life][id]
	w.counts.mu.Unlock()
	r.tally.mu.Lock()
	defer r.tally.mu.Unlock()
	if one := r.tally.of[taskRef{product, id}]; one != nil {
		sum.Add(one.counts)
	}
	return sum
}

// recount compares what a room counted with what its sessions hold in flight. Once it has stopped nothing is left to be handed over.
func (w *world) recount(r *Room, stopped bool) {
	w.t.Helper()
	if r.tally == nil {
		return
	}
	held := make(map[push.MsgID]int64)
	for _, s := range r.snapshot() {
		s.mu.Lock()
		if s.tasks != nil {
			for _, f := range s.tasks.flight {
				held[f.id]++
			}
		}
		s.mu.Unlock()
	}
	r.tally.mu.Lock()
	refs := make(map[push.MsgID]bool)
	for ref := range r.tally.of {
		refs[ref.id] = true
	}
	waiting := len(r.tally.changed)
	r.tally.mu.Unlock()
	for id := range refs {
		c := w.counted(r, id)
		if flight := c[task.Sent] - c[task.Returned] - c[task.Acknowledged] - c[task.Dropped]; flight != held[id] && !w.live[id] {
			w.t.Errorf("room %s: of %d were counted %v, that is %d in flight; sessions hold %d", r.cfg.ID, id, c, flight, held[id])
		}
	}
	if stopped && waiting > 0 && w.counts.err == nil {
		w.t.Errorf("room %s: counts of %d messages were not handed over", r.cfg.ID, waiting)
	}
}
