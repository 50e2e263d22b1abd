package center

import (
	"context"
	"slices"
	"sync"
	"time"

	"carillon/server/catalog"
	"carillon/server/push"
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
func (c *Center) lifetime(product *catalog.Product, t *task.Task) (time.Duration, bool) {
	limits := product.Limits.WithDefaults()
	req, err := parseTask(appendSpec(nil, &t.Spec, nil), &c.limits, limits)
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
