package room

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"carillon/server/push"
	"carillon/server/register"
	"carillon/server/task"
	"carillon/server/wire"
)

// Counts is where a room adds what became of messages of tasks. A task.Store is one.
type Counts interface {
	// Count adds to the counts of tasks, each of which stands there at most once. Where task.NotCounted says of an error that nothing was added,
	// the room adds it again with what it counts meanwhile. After any other it does not: nobody knows.
	Count(ctx context.Context, cs []task.Counted) error
}

const (
	countEvery = time.Second
	// countTimeout is how long one call may take.
	countTimeout = 5 * time.Second
	// maxTallied is how many messages the room knows to be of tasks, some 100 bytes each. Of more it forgets those which nobody was sent for the
	// longest time: what is reported of them later is not counted.
	maxTallied = 4096
	// maxAway is how many events of devices without a session here are remembered.
	maxAway = 4096
)

// tally adds up what a room counts between two calls of its Counts. It takes counts from any number of goroutines, and a nil one
// takes none. What a life of a room counted and has not handed over when it dies is lost.
type tally struct {
	// Static after construction.
	to   Counts
	life task.Life
	room *Room

	mu sync.Mutex
	// Guarded by mu.
	of      map[taskRef]*tallied
	changed []taskRef // those with something to hand over, each once
	uses    uint64
	away    map[awayEvent]struct{}
	oldest  []awayEvent // those of away, a ring once it is full
	next    int         // of the ring
}

type taskRef struct {
	product push.ProductID
	id      push.MsgID
}

type tallied struct {
	counts task.Counts // since they were handed over last
	used   uint64      // rises
}

// awayEvent is an event of a device whose session is not here.
type awayEvent struct {
	owner push.CursorOwner
	id    push.MsgID
	kind  task.Kind
}

func newTally(r *Room) *tally {
	if r.cfg.Counts == nil {
		return nil
	}
	return &tally{
		to: r.cfg.Counts, life: task.Life{Room: r.cfg.ID, Boot: r.cfg.Boot}, room: r,
		of: make(map[taskRef]*tallied), away: make(map[awayEvent]struct{}),
	}
}

// add counts n more of a kind. From then on the room knows the message to be a task's.
func (t *tally) add(ref taskRef, k task.Kind, n int64) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var c task.Counts
	c[k] = n
	t.addLocked(ref, c)
}

func (t *tally) addLocked(ref taskRef, c task.Counts) {
	one := t.of[ref]
	if one == nil {
		if len(t.of) >= maxTallied {
			t.forgetLocked()
		}
		one = &tallied{}
		t.of[ref] = one
	}
	t.uses++
	one.used = t.uses
	if one.counts == (task.Counts{}) {
		t.changed = append(t.changed, ref)
	}
	one.counts.Add(c)
}

// forgetLocked forgets a quarter of the messages of which there is nothing to hand over.
func (t *tally) forgetLocked() {
	var idle []uint64
	for _, one := range t.of {
		if one.counts == (task.Counts{}) {
			idle = append(idle, one.used)
		}
	}
	if len(idle) == 0 {
		return
	}
	slices.Sort(idle)
	upTo := idle[len(idle)/4]
	for ref, one := range t.of {
		if one.counts == (task.Counts{}) && one.used <= upTo {
			delete(t.of, ref)
		}
	}
}

// knows reports whether the room has counted something of that message, and not forgotten it. What clients report of others is not
// counted: a message's id alone does not say whether it is a task's, and a client may send any.
func (t *tally) knows(ref taskRef) bool {
	if t == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.of[ref]
	return ok
}

// addEventAway counts an event of a device that has no session here, once as far as is remembered.
func (t *tally) addEventAway(p push.ProductID, owner push.CursorOwner, f *wire.Event) {
	ref, e := taskRef{p, f.ID}, awayEvent{owner, f.ID, kindOf(f)}
	if !t.knows(ref) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, twice := t.away[e]; twice {
		return
	}
	if len(t.oldest) < maxAway {
		t.oldest = append(t.oldest, e)
	} else {
		delete(t.away, t.oldest[t.next])
		t.oldest[t.next] = e
		t.next = (t.next + 1) % maxAway
	}
	t.away[e] = struct{}{}
	var c task.Counts
	c[e.kind] = 1
	t.addLocked(ref, c)
}

// take returns what there is to hand over, in a fixed order.
func (t *tally) take() []task.Counted {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.changed) == 0 {
		return nil
	}
	cs := make([]task.Counted, len(t.changed))
	for i, ref := range t.changed {
		one := t.of[ref]
		cs[i] = task.Counted{Product: ref.product, Task: ref.id, Life: t.life, Counts: one.counts}
		one.counts = task.Counts{}
	}
	t.changed = t.changed[:0]
	slices.SortFunc(cs, func(a, b task.Counted) int {
		return cmp.Or(strings.Compare(string(a.Product), string(b.Product)), cmp.Compare(a.Task, b.Task))
	})
	return cs
}

// putBack has the next call hand it over.
func (t *tally) putBack(cs []task.Counted) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range cs {
		t.addLocked(taskRef{c.Product, c.Task}, c.Counts)
	}
}

// hand hands over what was counted. It is called by one goroutine at a time.
func (t *tally) hand(ctx context.Context) {
	cs := t.take()
	if len(cs) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	err := t.to.Count(ctx, cs)
	if err == nil {
		return
	}
	t.room.m.failed("count")
	if task.NotCounted(err) {
		t.putBack(cs)
		t.room.log.Warn("adding to the counts of tasks failed; trying again", "tasks", len(cs), "err", err)
		return
	}
	t.room.m.uncounted(cs)
	t.room.log.Warn("adding to the counts of tasks failed; what was counted of them may be lost", "tasks", len(cs), "err", err)
}

// countLoop hands over what was counted every second until ctx ends. A room that cannot renew its lease keeps it: its store is probably out
// of reach, and after a call that may have come to something nothing is handed over again.
func (r *Room) countLoop(ctx context.Context) {
	tick := r.cfg.Clock.NewTicker(countEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if !r.unrenewedFor(r.now(), 2*register.RenewEvery) {
				r.tally.hand(context.WithoutCancel(ctx))
			}
		}
	}
}
