package simulation

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"carillon/server/history"
	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/task"
)

// In a part of the worlds products make tasks, and operators pause, resume, stop and recall them, or switch all of them off. Most users of a list are extras: they have
// no device, so that what lies in their slots stays there and can be counted at rest. Where the store outlives its processes a second center runs
// tasks beside the first.

const (
	extras       = 140 // users of a list beside those of the world: several batches of each shard
	tasksMost    = 5   // of a product
	taskAttempts = 60  // of a request, until its outcome has to be known
)

// madeTask is a task that a product's server wants.
type madeTask struct {
	p    *product
	rec  history.Record
	test int // how many of the extras are its test group
	id   string

	recalled bool // it was asked for
	held     int  // how many extras had it when a pause or a stop was answered, since when nothing may be written; -1: it may, or nobody knows
}

// operator makes and moves the tasks of a product, one request at a time.
type operator struct {
	*sender
	tasks []*madeTask
	off   bool
}

// extraNames are the users of lists who have no devices.
func extraNames() []string {
	var us []string
	for i := range extras {
		us = append(us, fmt.Sprintf("extra%03d", i))
	}
	return us
}

// withOperator gives f an operator that has nothing to do, if there is one.
func (w *world) withOperator(f func(o *operator)) {
	p := w.products[w.script.IntN(len(w.products))]
	if p.operator.busy.Load() == 0 && w.back != nil {
		f(p.operator)
	}
}

// until makes a request again and again until its outcome is known; nil: it never was.
func (o *operator) until(method, path, key string, body []byte) *answer {
	for range taskAttempts {
		a, err := o.w.call(o.lane, o.p, method, path, key, body)
		if err == nil && a.status < 500 && a.status != http.StatusTooManyRequests {
			return a
		}
		wait(o.lane, o.lane.between(50*time.Millisecond, time.Second))
	}
	o.w.fault("%s: %s %s is never answered", o.name, method, path)
	return nil
}

// make makes a task.
func (o *operator) make() {
	w, l := o.w, o.lane
	if len(o.tasks) >= tasksMost {
		return
	}
	o.seq++
	name := fmt.Sprintf("%s/%d", o.name, o.seq)
	m := &madeTask{p: o.p, held: -1, rec: history.Record{
		Kind: history.Invoke, Product: string(o.p.id), Sender: name, Seq: 1, Key: fmt.Sprintf("t%d", o.seq), Persistent: true, Body: fmt.Sprintf("%q", name),
	}}
	o.tasks = append(o.tasks, m)
	req := map[string]any{"message": map[string]any{"body": json.RawMessage(m.rec.Body)}}
	var list []byte
	if l.chance(5) {
		m.rec.Everyone = true
		req["to"] = map[string]any{"everyone": true}
	} else {
		m.rec.To = append(extraNames(), userNames[:w.opt.users]...)
		list = []byte("user\n" + strings.Join(m.rec.To, "\n") + "\n")
		if l.chance(4) {
			m.test = 1 + l.IntN(100)
			req["test_group"] = m.rec.To[:m.test]
		}
	}
	if !l.chance(3) {
		req["pace"] = map[string]any{"per_second": 20 + l.IntN(200)}
	}
	w.trace("%s makes a task: %d users, test group of %d", name, len(m.rec.To), m.test)
	o.work(func() {
		if list != nil {
			a := o.until(http.MethodPost, "/v1/lists", "", list)
			if a == nil {
				return
			}
			var got struct{ ID string }
			_ = json.Unmarshal(a.body.Bytes(), &got)
			req["to"] = map[string]any{"list": got.ID}
		}
		body, err := json.Marshal(req)
		if err != nil {
			panic(err) // strings and numbers
		}
		w.note(m.rec)
		a := o.until(http.MethodPost, "/v1/tasks", m.rec.Key, body)
		if a == nil || a.status != http.StatusCreated {
			w.fault("%s was not made: %+v", name, a)
			return
		}
		var got struct{ ID string }
		_ = json.Unmarshal(a.body.Bytes(), &got)
		m.id = got.ID
		w.note(history.Record{Kind: history.OK, Sender: name, Seq: 1, ID: got.ID})
	})
}

// move does something to a task.
func (o *operator) move() {
	if len(o.tasks) == 0 {
		return
	}
	m := o.tasks[o.lane.IntN(len(o.tasks))]
	if m.id == "" {
		return
	}
	what := []string{"pause", "pause", "pause", "resume", "resume", "resume", "stop", "recall"}[o.lane.IntN(8)]
	o.w.trace("%s: %s", m.rec.Sender, what)
	o.work(func() { o.moveTask(m, what) })
}

func (o *operator) moveTask(m *madeTask, what string) {
	if what == "stop" || what == "recall" {
		o.w.note(history.Record{Kind: history.Recall, Sender: o.name, ID: m.id}) // nobody is owed it any more
	}
	o.w.noteHeld(m)
	m.held = -1
	a := o.until(http.MethodPost, "/v1/tasks/"+m.id+"/"+what, "", nil)
	if a == nil || a.status != http.StatusOK {
		return
	}
	switch what {
	case "pause", "stop":
		if !m.rec.Everyone {
			m.held = o.w.extrasWith(m)
		}
	case "recall":
		m.recalled = true
	}
}

// noteHeld looks whether something was written of a task while it was paused, or after it was stopped.
func (w *world) noteHeld(m *madeTask) {
	if m.held < 0 {
		return
	}
	if have := w.extrasWith(m); have >= 0 && have != m.held {
		w.fault("%s was paused or stopped when %d extras had it, and %d have it", m.rec.Sender, m.held, have)
	}
}

// turn switches all tasks of the product off, or on again.
func (o *operator) turn() {
	o.off = !o.off
	o.w.trace("%s: off: %v", o.name, o.off)
	body := []byte(fmt.Sprintf(`{"off":%v}`, o.off))
	o.work(func() { o.until(http.MethodPut, "/v1/task-switch", "", body) })
}

// finish lets every task come to its end, now that everything has healed.
func (o *operator) finish() {
	if o.busy.Load() > 0 {
		o.lane.after(100*time.Millisecond, o.finish)
		return
	}
	o.work(func() {
		o.off = false
		o.until(http.MethodPut, "/v1/task-switch", "", []byte(`{"off":false}`))
		for range 20 {
			for _, m := range o.tasks {
				if t, err := o.w.readTask(m); err == nil && t.State == task.Paused {
					o.moveTask(m, "resume")
				}
			}
			wait(o.lane, time.Second)
		}
	})
}

func (w *world) readTask(m *madeTask) (t task.Task, err error) {
	id, err := push.ParseMsgID(m.id)
	if err == nil && w.back == nil {
		err = errDown
	}
	if err != nil {
		return t, err
	}
	return w.back.tasks.Task(context.Background(), m.p.id, id)
}

// copies returns how often a task's message lies in a slot.
func (w *world) copies(m *madeTask, user string, k push.SlotKind) (n int, err error) {
	if w.back == nil {
		return 0, errDown
	}
	ctx := context.Background()
	ref := saver.UserRef{Product: m.p.id, Shards: 2, User: push.UserID(user)}
	store := w.back.saver
	u, err := store.User(ctx, ref)
	if err != nil {
		return 0, err
	}
	s := u.Slots[k]
	if s.Epoch == 0 {
		return 0, nil
	}
	tails, err := store.Read(ctx, []saver.Read{{
		ShardRef: ref.Shard(), Slot: k, User: ref.User, MaxEntries: 1000, MaxBytes: 1 << 20,
		From: push.Place{Epoch: s.Epoch, Lineage: s.Lineage(), Pos: s.Origin},
	}})
	if err != nil {
		return 0, err
	}
	for _, e := range tails[0].Entries {
		if e.Kind == saver.EntryMessage && e.ID.String() == m.id {
			n++
		}
	}
	return n, nil
}

// extrasWith returns how many extras have a task's message; -1 if that cannot be known.
func (w *world) extrasWith(m *madeTask) (have int) {
	for _, u := range extraNames() {
		n, err := w.copies(m, u, push.Own)
		if err != nil {
			return -1
		}
		have += n
	}
	return have
}

// noteTasks looks at every task at rest: in the slots each user has it once, or not at all where it was stopped or taken back, and what is
// told of it is so.
func (w *world) noteTasks(p *product) {
	for _, m := range p.operator.tasks {
		name := m.rec.Sender
		t, err := w.readTask(m)
		if err != nil {
			w.fault("%s at rest: %v", name, err)
			continue
		}
		if t.State != task.Completed && t.State != task.Stopped {
			w.fault("%s is %s (%s) at rest %+v", name, t.State, t.Reason, t.Run)
			continue
		}
		if m.rec.Everyone {
			w.noteCommon(m)
			continue
		}
		w.noteExtras(m, &t)
	}
}

func (w *world) noteCommon(m *madeTask) {
	for _, u := range userNames[:w.opt.users] {
		if n, err := w.copies(m, u, push.Common); err != nil || n > 1 {
			w.fault("%s lies %d times in the common slot of %s (%v)", m.rec.Sender, n, u, err)
		}
	}
}

func (w *world) noteExtras(m *madeTask, t *task.Task) {
	name, have := m.rec.Sender, 0
	for _, u := range extraNames() {
		n, err := w.copies(m, u, push.Own)
		if err != nil {
			w.fault("%s at rest: %v", name, err)
			return
		}
		if n > 1 {
			w.fault("%s has the message of %s %d times", u, name, n)
		}
		have += n
	}
	r := &t.Run
	all := int64(len(m.rec.To))
	switch {
	case t.State == task.Completed:
		if have != extras || r.Written != all || r.Skipped != int64(m.test) || r.Returned != 0 {
			w.fault("%s is completed: %d extras of %d have it, it tells of %d written for, %d left out, %d taken back", name, have, extras, r.Written, r.Skipped, r.Returned)
		}
	case r.Recalled != 0:
		if have != 0 || r.Returned != r.Written {
			w.fault("%s was taken back: %d extras have it, it tells of %d written for, %d taken back", name, have, r.Written, r.Returned)
		}
	default:
		if r.Written < int64(have) || r.Written > int64(have+w.opt.users) || r.Returned != 0 {
			w.fault("%s was stopped: %d extras have it, it tells of %d written for, %d taken back", name, have, r.Written, r.Returned)
		}
		w.noteHeld(m)
	}
	if m.recalled && r.Recalled == 0 {
		w.fault("%s was to be taken back, and was not", name)
	}
	w.noteCounts(m)
}

// noteCounts looks whether what was counted on devices is possible: no device acknowledges twice.
func (w *world) noteCounts(m *madeTask) {
	id, err := push.ParseMsgID(m.id)
	if err != nil {
		return
	}
	lives, err := w.back.tasks.Counts(context.Background(), m.p.id, id)
	if err != nil {
		w.fault("the counts of %s: %v", m.rec.Sender, err)
	}
	var all task.Counts
	for _, c := range lives {
		all.Add(c)
	}
	devices := 0
	for _, d := range w.devices {
		if d.p == m.p {
			devices++
		}
	}
	if n := all[task.Acknowledged]; n > int64(devices) {
		w.fault("%s was acknowledged by %d of %d devices", m.rec.Sender, n, devices)
	}
}

// ---- a center that runs tasks ------------------------------------------------------------------------------------

// runTasks has a center run tasks until its life ends.
func (c *centerProc) runTasks(run func(context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	go run(ctx)
}

// end ends the tasks of a center. Driver.
func (c *centerProc) end() {
	if c == nil || c.cancel == nil {
		return
	}
	c.cancel()
	settle()
	c.clock.stop()
}

// startHelper starts the second center, which answers no requests.
func (w *world) startHelper() {
	if !w.opt.tasks || w.opt.Pebble || w.back == nil || w.helper != nil && w.helper.alive {
		return
	}
	c, err := w.newCenter("helper")
	if err != nil {
		w.fault("the second center does not start: %v", err)
		return
	}
	w.helper = c
}

func (w *world) killHelper() {
	if w.helper == nil || !w.helper.alive {
		return
	}
	w.trace("the second center is killed")
	w.helper.kill()
	w.script.after(w.script.between(100*time.Millisecond, 8*time.Second), w.startHelper)
}

// freezeHelper stops the second center for longer than a lease, perhaps: what it had on its way comes late.
func (w *world) freezeHelper() {
	if w.helper == nil || !w.helper.alive {
		return
	}
	d := w.script.between(time.Second, 9*time.Second)
	w.trace("the second center stands still for %v", d)
	w.helper.link.frozen.Store(int64(w.sched.now() + d))
}

func (c *centerProc) kill() {
	c.alive = false
	c.link.kill()
	settle()
	c.end()
}

// taskLink is a center's way to the store of tasks. Who runs tasks has a lane for each task, publishers bring theirs; looking costs no time.
type taskLink struct {
	task.Store
	link *link
}

func (k taskLink) Create(ctx context.Context, t task.Task, key task.Key) (made task.Task, repeated bool, err error) {
	err = k.link.call(ctx, k.link.laneOr(ctx, fmt.Sprint("task/", t.ID)), func() (err error) {
		made, repeated, err = k.Store.Create(ctx, t, key)
		return err
	})
	return made, repeated, err
}

func (k taskLink) Update(
	ctx context.Context, p push.ProductID, id push.MsgID, change func(*task.Task, push.MilliTime) error,
) (t task.Task, err error) {
	err = k.link.call(ctx, k.link.laneOr(ctx, fmt.Sprint("task/", id)), func() (err error) {
		t, err = k.Store.Update(ctx, p, id, change)
		return err
	})
	return t, err
}

func (k taskLink) Due(ctx context.Context, limit int) (refs []task.Ref, at push.MilliTime, err error) {
	err = k.link.call(ctx, nil, func() (err error) { refs, at, err = k.Store.Due(ctx, limit); return err })
	return refs, at, err
}

func (k taskLink) SetSwitch(ctx context.Context, p push.ProductID, s task.Switch) error {
	return k.link.call(ctx, laneOf(ctx), func() error { return k.Store.SetSwitch(ctx, p, s) })
}

func (k *link) Fence(ctx context.Context, f saver.Fence) error {
	return k.call(ctx, k.laneOr(ctx, fmt.Sprint("fence/", f.ID)), func() error { return k.Store.Fence(ctx, f) })
}

// Batches is one call of a lane of a task, which goes on with the shards of its first batch alone.
func (k *link) Batches(ctx context.Context, bs []*saver.Batch) (out []saver.Batched) {
	l := k.laneOr(ctx, fmt.Sprintf("batches/%d/%d", bs[0].Message.ID, bs[0].Shard))
	err := k.call(ctx, l, func() error { out = k.Store.Batches(ctx, bs); return nil })
	if err != nil {
		out = make([]saver.Batched, len(bs))
		for i := range out {
			out[i].Err = fmt.Errorf("simulation: batches: %w", err)
		}
	}
	return out
}

func (k *link) BatchRecords(ctx context.Context, ref saver.BatchesRef, ns []int) (out []*saver.BatchRecord, err error) {
	err = k.call(ctx, nil, func() (err error) { out, err = k.Store.BatchRecords(ctx, ref, ns); return err })
	return out, err
}

// lanes are those of a process for what nobody brings a lane for, by their names.
type lanes struct {
	of *lane

	mu   sync.Mutex
	made map[string]*lane // guarded by mu
}

func (k *link) laneOr(ctx context.Context, name string) *lane {
	if l := laneOf(ctx); l != nil {
		return l
	}
	k.others.mu.Lock()
	defer k.others.mu.Unlock()
	l := k.others.made[name]
	if l == nil {
		l = k.others.of.sub(name)
		k.others.made[name] = l
	}
	return l
}
