package center

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"carillon/server/catalog"
	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/task"
)

const (
	writeLanes   = 2       // parts of the shards that are written side by side
	callBatches  = 16      // batches, each of another shard, that go to the store together at most
	chunksAhead  = 8       // chunks of a shard that are read at once
	testNumbers  = 1 << 20 // batches of the test group have numbers from here on
	paceStep     = 4       // a paced task writes so often a second, or more seldom if that is less than a batch
	unknownUsers = 1       // a part of the product's users counts as, for the pace, if nobody knows how many they are
)

// taskRun is a task that this center runs.
type taskRun struct {
	// Static after construction.
	c       *Center
	product *catalog.Product
	limits  push.Limits
	ref     task.Ref
	spec    task.Spec // but for its name and its pace, which may change
	req     *taskRequest
	message *push.Message // stamped; with the template's own body, if it is one
	token   uint64
	lost    context.CancelCauseFunc
	pace    pacer
	width   width

	plan plan // static from settle on, before which no lane runs

	updating chan struct{} // capacity 1: the turn of whoever changes the stored task. Never closed

	mu sync.Mutex
	t  task.Task // as it was stored last, and in Run what was done since; what lanes change of Run is guarded by mu
}

// plan is who a task is for, as it was settled.
type plan struct {
	shards int
	common bool
	list   push.MsgID    // 0 with common
	chunks task.Progress // of the list, by shard; nil: the list is gone
	users  int64
	reach  int64 // with common, about how many devices
}

// made reports whether the list was made of the task's audience.
func (r *taskRun) made() bool { return r.plan.list != r.spec.List }

func (c *Center) newTaskRun(product *catalog.Product, t task.Task, lost context.CancelCauseFunc) (*taskRun, error) {
	limits := product.Limits.WithDefaults()
	req, err := parseTask(appendSpec(nil, &t.Spec, nil), &c.limits, limits)
	if err != nil {
		return nil, err
	}
	m := req.request.message
	m.ID, m.Created, m.Expires, m.Task = t.ID, t.Run.Created, t.Run.Expires, true
	r := &taskRun{
		c: c, product: product, limits: limits, ref: task.Ref{Product: t.Product, ID: t.ID}, spec: t.Spec, req: req, message: &m,
		token: t.Run.Token, lost: lost, t: t, updating: make(chan struct{}, 1),
	}
	r.pace.clock = c.cfg.Clock
	return r, nil
}

// lifetime returns how long a task's message lives, and whether it is kept at all.
func lifetime(product *catalog.Product, t *task.Task) (time.Duration, bool) {
	limits := product.Limits.WithDefaults()
	req, err := parseTask(appendSpec(nil, &t.Spec, nil), new(Limits{}.withDefaults()), limits)
	if err != nil || req.request.ttl == 0 {
		return limits.TTL, isPersistent(t)
	}
	return req.request.ttl, true
}

// update changes the stored task, if it is this run's still, and stores the checkpoint with it.
func (r *taskRun) update(ctx context.Context, change func(t *task.Task, now push.MilliTime) error) error {
	select {
	case r.updating <- struct{}{}:
		defer func() { <-r.updating }()
	case <-ctx.Done():
		return ctx.Err()
	}
	return r.again(ctx, func() error {
		was := r.now()
		stored, err := r.c.cfg.Tasks.Update(ctx, was.Product, was.ID, func(t *task.Task, now push.MilliTime) error {
			if t.Run.Token != r.token || t.Run.Holder != r.c.cfg.Holder || t.State != was.State {
				return errLost
			}
			t.Run = copyRun(&was.Run)
			t.Run.Token, t.Run.Holder, t.Run.Until = r.token, r.c.cfg.Holder, now.Add(taskLease)
			if err := change(t, now); err != nil {
				return err
			}
			t.SetWake()
			return nil
		})
		if err != nil {
			return err
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		done := r.t.Run // what was done meanwhile
		r.t = stored
		doneToo(&r.t.Run, &done)
		return nil
	})
}

// doneToo adds to a checkpoint what a later one has; all of it only rises.
func doneToo(run, later *task.Run) {
	run.Written, run.Devices, run.Online = max(run.Written, later.Written), max(run.Devices, later.Devices), max(run.Online, later.Online)
	run.Skipped, run.Returned = max(run.Skipped, later.Skipped), max(run.Returned, later.Returned)
	run.TestNext = max(run.TestNext, later.TestNext)
	rise(run.Next, later.Next)
	rise(run.Back, later.Back)
}

func rise(p, to task.Progress) {
	for i := range min(len(p), len(to)) {
		p[i] = max(p[i], to[i])
	}
}

func copyRun(r *task.Run) task.Run {
	c := *r
	c.Next, c.Back = slices.Clone(r.Next), slices.Clone(r.Back)
	return c
}

// now returns the task as it is, with what was done.
func (r *taskRun) now() task.Task {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.t
	t.Run = copyRun(&r.t.Run)
	return t
}

// beat renews the lease and stores the checkpoint until the context ends. It ends the run when the task is not its own any more, or the lease may
// have run out.
func (r *taskRun) beat(ctx context.Context) {
	every := r.c.cfg.Clock.NewTicker(taskRenew)
	defer every.Stop()
	renewed := r.c.cfg.Clock.Now()
	kept := renewed
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		begun := r.c.cfg.Clock.Now()
		if begun.Sub(kept) >= keepListEvery {
			kept = begun
			r.keepList(ctx)
		}
		within, cancel := context.WithTimeout(ctx, taskLease)
		over := false
		err := r.update(within, func(t *task.Task, now push.MilliTime) error {
			over = t.Deadline != 0 && t.Deadline <= now && t.State == task.Running
			if over {
				return t.Do(task.Expire, nil, task.ReasonDeadline, now)
			}
			return nil
		})
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case over && err == nil:
			t := r.now()
			if err := r.c.shut(ctx, r.product, &t); err != nil {
				r.c.cfg.Log.Warn("center: a task whose deadline came could not be shut", "task", t.ID.String(), "error", err)
			}
			r.lost(errLost)
			return
		case err == nil:
			renewed = begun
			r.setPace()
		case isLost(err) || push.KindOf(err) == push.KindNotFound || r.c.cfg.Clock.Now().Sub(renewed) >= taskLease:
			r.lost(errLost)
			return
		}
	}
}

// keepList has the list of a task that runs for days live on. If that fails, the next time is soon enough.
func (r *taskRun) keepList(ctx context.Context) {
	t := r.now()
	if t.Run.List == 0 {
		return
	}
	if err := r.c.cfg.Tasks.KeepList(ctx, task.ListRef{Product: t.Product, ID: t.Run.List}); err != nil {
		r.c.cfg.Log.Debug("center: the list of a task is not kept for longer", "task", t.ID.String(), "error", err)
	}
}

// letGo stores the checkpoint and gives up the lease of a run that ended before the task did, so that another center need not wait for its end.
func (r *taskRun) letGo(ctx context.Context, why error) {
	if why == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, taskRenew)
	defer cancel()
	was := r.now()
	_, err := r.c.cfg.Tasks.Update(ctx, was.Product, was.ID, func(t *task.Task, _ push.MilliTime) error {
		if t.Run.Token != r.token || t.Run.Holder != r.c.cfg.Holder {
			return task.ErrUnchanged
		}
		t.Run = copyRun(&was.Run)
		t.Run.Token, t.Run.Holder, t.Run.Until = r.token, "", 0
		t.SetWake()
		return nil
	})
	if err != nil {
		r.c.cfg.Log.Debug("center: a task's lease runs out by itself", "task", was.ID.String(), "error", err)
	}
}

// write writes a task's message to all who do not have it yet.
func (r *taskRun) write(ctx context.Context) error {
	if err := r.settle(ctx); err != nil {
		return err
	}
	if len(r.spec.Test) > 0 && !r.now().Run.TestDone {
		if err := r.writeTest(ctx); err != nil {
			return err
		}
		return r.update(ctx, func(t *task.Task, now push.MilliTime) error {
			t.Run.TestDone = true
			return t.Do(task.Show, nil, task.ReasonTest, now)
		})
	}
	r.setPace()
	var err error
	switch {
	case r.message.Persistent:
		err = r.inLanes(ctx, r.lane)
	case r.plan.common:
		err = r.liveToAll(ctx)
	default:
		err = r.liveToList(ctx)
	}
	if err != nil {
		return err
	}
	return r.update(ctx, func(t *task.Task, now push.MilliTime) error { return t.Do(task.Complete, nil, "", now) })
}

// settle finds out who a task is for, once: users of a list, or everyone whom the common slots' entries let through.
func (r *taskRun) settle(ctx context.Context) error {
	t := r.now()
	if t.Run.Settled {
		return r.begin(ctx, &t.Run)
	}
	run := task.Run{Shards: t.Run.Shards, List: r.spec.List}
	q := r.req.request
	switch {
	case r.spec.List != 0:
		l, err := r.list(ctx, r.spec.List)
		if err != nil {
			return err
		}
		run.Users = l.Users
	case q.everyone, !q.message.Persistent && q.tags != nil:
		run.Common, run.Users = true, t.Run.Users
		if err := r.reach(ctx, &run); err != nil {
			return err
		}
	case q.tags != nil:
		var to []saver.Target
		var is settled
		err := r.again(ctx, func() (err error) {
			to, is, err = r.c.settle(ctx, r.product, q, r.c.limits.SmallAudience)
			return err
		})
		if err != nil {
			return err
		}
		if run.Common = is.membership != atSend; run.Common {
			run.Users = t.Run.Users
			if err := r.reach(ctx, &run); err != nil {
				return err
			}
			break
		}
		if run.List, run.Users, err = r.makeList(ctx, run.Shards, to); err != nil {
			return err
		}
	default:
		var err error
		if run.List, run.Users, err = r.makeList(ctx, run.Shards, q.targets); err != nil {
			return err
		}
	}
	err := r.update(ctx, func(t *task.Task, _ push.MilliTime) error {
		t.Run.Settled, t.Run.Common, t.Run.List, t.Run.Users, t.Run.Reach = true, run.Common, run.List, run.Users, run.Reach
		t.Run.Next = make(task.Progress, t.Run.Shards)
		return nil
	})
	if err != nil {
		return err
	}
	return r.begin(ctx, &run)
}

// reach estimates how many devices a message in the common slots is for: by the tags that are kept, or, of everyone's, those that are online. How many there are
// besides nobody counts.
func (r *taskRun) reach(ctx context.Context, run *task.Run) error {
	return r.again(ctx, func() error {
		if q := r.req.request; q.tags != nil {
			e, ok, err := r.c.estimate(ctx, r.product, q)
			if err != nil || ok {
				run.Users, run.Reach = int64(e.users), int64(e.devices)
				return err
			}
		}
		online, err := r.c.cfg.Register.Count(ctx, r.ref.Product)
		if err != nil {
			return unavailable(codeRoomsUnavailable, err)
		}
		run.Reach = int64(online)
		return nil
	})
}

// begin notes the plan, as lanes need it, and has the template know the variables of the list. KindNotFound, "list_not_found": the list is gone.
func (r *taskRun) begin(ctx context.Context, run *task.Run) error {
	r.plan = plan{shards: run.Shards, common: run.Common, list: run.List, users: run.Users, reach: run.Reach}
	if run.Common {
		return nil
	}
	l, err := r.list(ctx, run.List)
	if err != nil {
		return err
	}
	r.plan.chunks = l.Chunks
	if r.req.template == nil {
		return nil
	}
	if unknown := r.req.template.bind(l.Variables); unknown != "" {
		return push.Errorf(push.KindInvalid, string(codeInvalidRequest), "a variable that the list does not have")
	}
	return nil
}

// list reads a list, and has it live on.
func (r *taskRun) list(ctx context.Context, id push.MsgID) (l task.List, err error) {
	ref := task.ListRef{Product: r.ref.Product, ID: id}
	err = r.again(ctx, func() error {
		if err := r.c.cfg.Tasks.KeepList(ctx, ref); err != nil {
			return err
		}
		l, err = r.c.cfg.Tasks.List(ctx, ref)
		return err
	})
	return l, err
}

// makeList stores whom a task is for as a list of its own. One that is made and not used, since somebody else took over, goes by itself.
func (r *taskRun) makeList(ctx context.Context, shards int, to []saver.Target) (id push.MsgID, users int64, err error) {
	if id, err = r.c.cfg.IDs.Next(ctx); err != nil {
		return 0, 0, err
	}
	u := newUpload(r.c.cfg.Tasks, task.List{Product: r.ref.Product, ID: id, Shards: shards, Made: true})
	for i := range to {
		var devices []string
		if f := to[i].Filter; f != nil {
			for _, d := range f.Devices {
				devices = append(devices, string(d))
			}
		}
		if err := u.add(ctx, to[i].User, devices); err != nil {
			return 0, 0, err
		}
	}
	l, err := u.finish(ctx)
	return id, l.Users, err
}

// newBatch makes a batch without users.
func (r *taskRun) newBatch(shard push.Shard, number int) *saver.Batch {
	return &saver.Batch{Product: r.ref.Product, Shards: r.plan.shards, Limits: r.limits, Message: r.message, Token: r.token, Shard: shard, Number: number}
}

// batchOf makes the batch of some users of a list: those of the test group have the message already, and are left out.
func (r *taskRun) batchOf(shard push.Shard, number int, entries []task.Entry, test bool) (b *saver.Batch, skipped int) {
	b = r.newBatch(shard, number)
	made := r.made()
	for i := range entries {
		e := &entries[i]
		if !test && len(r.spec.Test) > 0 {
			if _, has := slices.BinarySearch(r.spec.Test, e.User); has {
				skipped++
				continue
			}
		}
		to := saver.Target{User: e.User, Filter: r.req.request.beside()}
		if made && !test && len(e.Values) > 0 {
			f := push.Filter{}
			if to.Filter != nil {
				f = *to.Filter
			}
			for _, d := range e.Values {
				f.Devices = append(f.Devices, push.DeviceID(d))
			}
			to.Filter = &f
		}
		b.Own = append(b.Own, to)
		if r.req.template != nil {
			b.Bodies = append(b.Bodies, r.req.template.fill(e.User, e.Values))
		}
	}
	return b, skipped
}

// beside returns what devices have to be beside their tags and names, nil if nothing.
func (q *request) beside() *push.Filter {
	if q.platforms == 0 && q.classes == nil {
		return nil
	}
	return &push.Filter{Platforms: q.platforms, Classes: q.classes}
}

// testEntries returns the test group by shard, with what the list tells of them if the message is a template.
func (r *taskRun) testEntries(ctx context.Context) (map[push.Shard][]task.Entry, error) {
	out := make(map[push.Shard][]task.Entry)
	for _, u := range r.spec.Test {
		shard := push.ShardOf(u, r.plan.shards)
		out[shard] = append(out[shard], task.Entry{User: u})
	}
	if r.req.template == nil || r.spec.List == 0 || r.plan.chunks == nil {
		return out, nil
	}
	for shard, entries := range out {
		for from := 0; ; {
			chunks, err := r.chunks(ctx, r.spec.List, shard, from)
			if err != nil {
				return nil, err
			}
			for _, ch := range chunks {
				for _, e := range ch.Entries {
					if at := slices.IndexFunc(entries, func(t task.Entry) bool { return t.User == e.User }); at >= 0 {
						entries[at].Values = e.Values
					}
				}
			}
			if from += len(chunks); len(chunks) < chunksAhead {
				break
			}
		}
	}
	return out, nil
}

func (r *taskRun) chunks(ctx context.Context, id push.MsgID, shard push.Shard, from int) (out []task.Chunk, err error) {
	err = r.again(ctx, func() error {
		out, err = r.c.cfg.Tasks.Chunks(ctx, task.ListRef{Product: r.ref.Product, ID: id}, shard, from, chunksAhead)
		return err
	})
	return out, err
}

// testBatches returns the batches of the test group.
func (r *taskRun) testBatches(ctx context.Context) (bs []*saver.Batch, err error) {
	byShard, err := r.testEntries(ctx)
	if err != nil {
		return nil, err
	}
	for shard := range push.Shard(r.plan.shards) {
		number := testNumbers
		for part := range slices.Chunk(byShard[shard], saver.BatchMost) {
			b, _ := r.batchOf(shard, number, part, true)
			bs = append(bs, b)
			number++
		}
	}
	return bs, nil
}

// writeTest writes to the test group. What is not persistent is noted as done before somebody gets it.
func (r *taskRun) writeTest(ctx context.Context) error {
	bs, err := r.testBatches(ctx)
	if err != nil {
		return err
	}
	for from := int(r.now().Run.TestNext); from < len(bs); {
		part := bs[from:min(len(bs), from+callBatches)]
		from += len(part)
		if r.message.Persistent {
			_, n, err := r.batches(ctx, part)
			if err != nil {
				return err
			}
			r.wroteTest(len(part), n)
			continue
		}
		for _, b := range part {
			_, err := r.live(ctx, b.Own, b.Bodies, func(n counted) error {
				r.c.metrics.taskUsers(n.users)
				return r.update(ctx, func(t *task.Task, _ push.MilliTime) error {
					t.Run.TestNext++
					addCounted(&t.Run, n)
					return nil
				})
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// wroteTest notes that batches of the test group are written, for the next checkpoint.
func (r *taskRun) wroteTest(batches int, n counted) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.t.Run.TestNext += uint32(batches)
	addCounted(&r.t.Run, n)
	r.c.metrics.taskUsers(n.users)
}

// counted is what was done in some steps.
type counted struct{ users, devices, online, skipped int64 }

func (n *counted) add(o counted) {
	n.users += o.users
	n.devices += o.devices
	n.online += o.online
	n.skipped += o.skipped
}

func addCounted(run *task.Run, n counted) {
	run.Written += n.users
	run.Devices += n.devices
	run.Online += n.online
	run.Skipped += n.skipped
}

// setPace has the task go as fast as it is to go now.
func (r *taskRun) setPace() {
	r.mu.Lock()
	p, users, reach, common, shards := r.t.Pace, r.t.Run.Users, r.t.Run.Reach, r.t.Run.Common, r.t.Run.Shards
	r.mu.Unlock()
	if common {
		users = max(users, reach, int64(shards))
	}
	rate := p.PerSecond
	if p.Over > 0 {
		rate = max(float64(users)/p.Over.Seconds(), minPerSecond)
	}
	r.pace.set(rate)
}

// pacer lets things happen at a rate.
type pacer struct {
	clock interface{ Now() time.Time }

	mu   sync.Mutex
	rate float64   // a second; 0: as fast as they come. Guarded by mu
	next time.Time // when the next may happen; guarded by mu
}

// set changes the rate. What is waited for is waited for at the new one.
func (p *pacer) set(rate float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := p.clock.Now(); rate > 0 && p.rate > 0 && p.next.After(now) {
		p.next = now.Add(time.Duration(float64(p.next.Sub(now)) * p.rate / rate))
	}
	p.rate = rate
}

// most returns how much at most is done in one step.
func (p *pacer) most() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rate == 0 {
		return callBatches * saver.BatchMost
	}
	return min(max(int(p.rate/paceStep), 1), callBatches*saver.BatchMost)
}

// width is how many batches go to the store in one call: so many that a call takes callShort to callLong. Others wait behind a call of a task, and a store that
// has much to do takes longer for each.
type width struct{ n atomic.Int32 } // 0: not begun

const (
	firstWidth = 4
	callShort  = 4 * time.Millisecond
	callLong   = 8 * time.Millisecond
)

func (w *width) get() int {
	if n := w.n.Load(); n > 0 {
		return int(n)
	}
	return firstWidth
}

// took notes how long a call of that many batches took.
func (w *width) took(batches int, d time.Duration) {
	switch n := w.get(); {
	case batches < n: // there were no more
	case d > callLong:
		w.n.Store(int32(max(n/2, 1)))
	case d < callShort:
		w.n.Store(int32(min(n+1, callBatches)))
	}
}

// paceLook is how often who waits looks whether the rate has changed.
const paceLook = 200 * time.Millisecond

// wait waits until n may happen.
func (p *pacer) wait(ctx context.Context, n int, sleep func(context.Context, time.Duration) error) error {
	for {
		p.mu.Lock()
		now := p.clock.Now()
		wait := p.next.Sub(now)
		if p.rate == 0 || wait <= 0 {
			if p.rate > 0 {
				if wait < -time.Second/paceStep {
					p.next = now // nobody catches up on what was not done while there was nothing to do
				}
				p.next = p.next.Add(time.Duration(float64(n) / p.rate * float64(time.Second)))
			}
			p.mu.Unlock()
			return ctx.Err()
		}
		p.mu.Unlock()
		if err := sleep(ctx, min(wait, paceLook)); err != nil {
			return err
		}
	}
}
