package simulation

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"carillon/server/center"
	"carillon/server/push"
	"carillon/server/saver"
)

// weather is how the store behaves at the moment; the driver changes it between events.
type weather struct {
	slow     time.Duration // a call takes up to so long on the way there, and as long on the way back
	refuse   int           // one call in so many fails before it is carried out; 0: none
	loseBack int           // one call in so many is carried out and its reply lost; 0: none
}

// link is a process's way to the store: it takes its time, loses calls and replies, and ends with the process. One
// process's calls of one sort come one after the other, so each sort has a lane of its own; publishers bring theirs.
type link struct {
	saver.Store
	weather *weather
	broken  func() bool   // the store takes nothing more, for the rest of this life
	dead    chan struct{} // closed when the process is killed: nothing that it asks for happens after that
	killed  atomic.Bool
	frozen  atomic.Int64 // a time.Duration since the world began, before which no call that takes its time goes on
	others  *lanes
	open    *lane
	reads   *lane
	acks    *lane
	changes *lane
}

func (w *world) link(name string, s saver.Store) *link {
	return &link{
		Store: s, weather: &w.weather, broken: w.back.isBroken, dead: make(chan struct{}),
		open: w.sched.lane(name + "/open"), reads: w.sched.lane(name + "/read"), acks: w.sched.lane(name + "/ack"),
		changes: w.sched.lane(name + "/changes"), others: &lanes{of: w.sched.lane(name + "/others"), made: make(map[string]*lane)},
	}
}

// kill cuts the process off. Driver.
func (k *link) kill() {
	if !k.killed.Swap(true) {
		close(k.dead)
	}
}

var errDead = &push.Error{Kind: push.KindUnavailable, Code: "process_dead"}

// errStore is the error of a store that cannot be reached, or whose reply was lost.
var errStore = &push.Error{Kind: push.KindUnavailable, Code: "storage_failed", Err: errors.New("simulation: the store did not answer")}

// way is one half of a call.
func (k *link) way(ctx context.Context, l *lane) error {
	if k.killed.Load() {
		return errDead
	}
	if l == nil {
		return nil
	}
	// A moment at least: so two who set out together, since they waited for the same thing, do not arrive together.
	there := make(chan struct{})
	frozen := max(0, time.Duration(k.frozen.Load())-l.s.now())
	e := l.after(frozen+l.between(0, max(k.weather.slow, 200*time.Microsecond)), func() { close(there) })
	select {
	case <-there:
		if k.killed.Load() {
			return errDead
		}
		return nil
	case <-k.dead:
		e.cancel()
		return errDead
	case <-ctx.Done():
		e.cancel()
		return &push.Error{Kind: push.KindUnavailable, Code: "storage_slow", Err: ctx.Err()}
	}
}

// call carries out one call with its two ways.
func (k *link) call(ctx context.Context, l *lane, do func() error) error {
	if err := k.way(ctx, l); err != nil {
		return err
	}
	if l != nil && l.chance(k.weather.refuse) {
		return errStore
	}
	err := do()
	if l != nil && l == k.acks && k.broken() {
		return errStore // what nobody waits to be flushed fails or not as the fault comes after it or before
	}
	if err != nil {
		return err
	}
	if err := k.way(ctx, l); err != nil {
		return err
	}
	if l != nil && l.chance(k.weather.loseBack) {
		return errStore
	}
	return nil
}

// laneKey is under which a publisher's context carries its lane.
type laneKey struct{}

func laneOf(ctx context.Context) *lane {
	l, _ := ctx.Value(laneKey{}).(*lane)
	return l
}

func (k *link) Publish(ctx context.Context, ps []*saver.Publication) []saver.Published {
	var out []saver.Published
	err := k.call(ctx, laneOf(ctx), func() error {
		out = k.Store.Publish(ctx, ps)
		return nil
	})
	if err != nil {
		out = make([]saver.Published, len(ps))
		for i := range out {
			out[i].Err = fmt.Errorf("simulation: publish: %w", err)
		}
	}
	return out
}

func (k *link) Recall(ctx context.Context, r saver.Recall) (out saver.Recalled, err error) {
	err = k.call(ctx, laneOf(ctx), func() (err error) { out, err = k.Store.Recall(ctx, r); return err })
	return out, err
}

func (k *link) Open(ctx context.Context, o saver.Open) (out saver.Opened, err error) {
	err = k.call(ctx, k.open, func() (err error) { out, err = k.Store.Open(ctx, o); return err })
	return out, err
}

func (k *link) Read(ctx context.Context, rs []saver.Read) (out []saver.Tail, err error) {
	err = k.call(ctx, k.reads, func() (err error) { out, err = k.Store.Read(ctx, rs); return err })
	return out, err
}

func (k *link) Ack(ctx context.Context, as []saver.Ack) (unknown []int, err error) {
	err = k.call(ctx, k.acks, func() (err error) { unknown, err = k.Store.Ack(ctx, as); return err })
	return unknown, err
}

func (k *link) ChangeTags(ctx context.Context, cs []saver.TagChange) []saver.TagsChanged {
	var out []saver.TagsChanged
	err := k.call(ctx, laneOf(ctx), func() error {
		out = k.Store.ChangeTags(ctx, cs)
		return nil
	})
	if err != nil {
		out = make([]saver.TagsChanged, len(cs))
		for i := range out {
			out[i].Err = fmt.Errorf("simulation: change tags: %w", err)
		}
	}
	return out
}

func (k *link) Devices(ctx context.Context, us []saver.UserRef) (out [][]push.DeviceFacts, err error) {
	err = k.call(ctx, nil, func() (err error) { out, err = k.Store.Devices(ctx, us); return err })
	return out, err
}

func (k *link) Tags(ctx context.Context, us []saver.UserRef) (out []saver.UserTags, err error) {
	err = k.call(ctx, nil, func() (err error) { out, err = k.Store.Tags(ctx, us); return err })
	return out, err
}

func (k *link) Changes(ctx context.Context, room push.RoomID, qs []saver.ChangeQuery) (out []saver.ChangeLog, err error) {
	err = k.call(ctx, k.changes, func() (err error) { out, err = k.Store.Changes(ctx, room, qs); return err })
	return out, err
}

// turnstile lets publishers take ids one at a time, each in an event of its own: those who had to wait for the same block
// to be reserved, or for the same flush before they came here, would otherwise take theirs in any order.
type turnstile struct {
	ids  center.IDs
	link *link // the process's

	// Guarded by mu.
	mu      sync.Mutex
	busy    bool
	waiting []chan struct{} // in the order in which they came
}

// Next takes an id.
func (t *turnstile) Next(ctx context.Context) (push.MsgID, error) {
	turn := make(chan struct{})
	t.link.laneOr(ctx, "ids").after(time.Microsecond, func() { t.come(turn) })
	<-turn
	defer t.pass()
	id, err := t.ids.Next(ctx)
	if t.link.killed.Load() {
		return 0, errDead // whether what it waited for came about in its last moment
	}
	return id, err
}

// come takes the turn, or a place in the queue for it. Driver.
func (t *turnstile) come(turn chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.busy {
		t.waiting = append(t.waiting, turn)
		return
	}
	t.busy = true
	close(turn)
}

// pass gives the turn to the next.
func (t *turnstile) pass() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.waiting) == 0 {
		t.busy = false
		return
	}
	close(t.waiting[0])
	t.waiting = t.waiting[1:]
}
