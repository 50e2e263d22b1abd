package center

import (
	"context"
	"errors"
	"sync"
	"time"

	"carillon/server/catalog"
	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/task"
)

const (
	taskLease   = 5 * time.Second        // how long a task is left to whoever runs it
	taskRenew   = time.Second            // how often the lease is renewed, the checkpoint stored, and the pace looked at
	taskLook    = 500 * time.Millisecond // how often somebody looks for tasks that are due
	tasksAtOnce = 16                     // of all products that one center runs
	sweepEvery  = time.Minute

	keepListEvery = time.Hour // how often a task that runs says that it needs its list
)

// errLost says that a task is not this center's any more: it was paused or stopped, or somebody else has taken over.
var errLost = push.Errorf(push.KindConflict, "task_lost", "the task is not run here any more")

// runner is what a center knows of the tasks that it runs.
type runner struct {
	wake chan struct{} // capacity 1: somebody made or moved a task. Never closed

	mu      sync.Mutex
	running map[task.Ref]bool // guarded by mu
}

// wakeRunner has the runner of this center look for due tasks at once. Others find them within taskLook.
func (c *Center) wakeRunner() {
	select {
	case c.runner.wake <- struct{}{}:
	default:
	}
}

// RunTasks runs the tasks that are due until the context ends, and returns when none of them is run here any more. Any number of centers may
// run tasks of one store: each task is run by one of them at a time. It is called once.
func (c *Center) RunTasks(ctx context.Context) {
	var workers sync.WaitGroup
	defer workers.Wait()
	look := c.cfg.Clock.NewTicker(taskLook)
	defer look.Stop()
	swept := c.cfg.Clock.Now()
	possible := false // all leases
	for {
		if !possible {
			possible = c.shortenLeases(ctx)
		}
		refs, _, err := c.cfg.Tasks.Due(ctx, 4*tasksAtOnce)
		if err != nil && ctx.Err() == nil {
			c.cfg.Log.Warn("center: due tasks could not be looked for", "error", err)
		}
		for _, ref := range refs {
			if !c.runner.begin(ref) {
				continue
			}
			workers.Go(func() {
				defer c.runner.end(ref)
				c.work(ctx, ref)
			})
		}
		if now := c.cfg.Clock.Now(); now.Sub(swept) >= sweepEvery {
			swept = now
			c.sweepTasks(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		case <-c.runner.wake:
		}
	}
}

// shortenLeases has leases end that end later than any can: they were taken when the clock said something later than it does now, as after a restart with a clock that
// was set back, and nobody would look at their tasks before that. It reports whether it looked at all of them.
func (c *Center) shortenLeases(ctx context.Context) bool {
	for page := (catalog.Page{}); ; {
		products, err := c.cfg.Catalog.Products(ctx, page)
		for i := 0; err == nil && i < len(products.Items); i++ {
			err = c.shortenLeasesOf(ctx, products.Items[i].ID)
		}
		if err != nil {
			if ctx.Err() == nil {
				c.cfg.Log.Warn("center: leases of tasks could not be looked at", "error", err)
			}
			return false
		}
		if page.After = products.Next; page.After == "" {
			return true
		}
	}
}

func (c *Center) shortenLeasesOf(ctx context.Context, p push.ProductID) error {
	q := task.Query{Product: p, States: []task.State{task.Running, task.Recalling}, Limit: task.MaxPage}
	for {
		page, err := c.cfg.Tasks.Tasks(ctx, q)
		if err != nil {
			return err
		}
		for i := range page.Tasks {
			_, err := c.cfg.Tasks.Update(ctx, p, page.Tasks[i].ID, func(t *task.Task, now push.MilliTime) error {
				if !t.State.Active() || t.Run.Until <= now.Add(2*taskLease) {
					return task.ErrUnchanged
				}
				t.Run.Until = now.Add(taskLease)
				t.SetWake()
				return nil
			})
			if err != nil && push.KindOf(err) != push.KindNotFound {
				return err
			}
		}
		if q.Before = page.Before; q.Before == 0 {
			return nil
		}
	}
}

// sweepMost is how many parts of a sweep are done at once; others wait for the next.
const sweepMost = 100

// sweepTasks clears away tasks and lists that have outlived their time.
func (c *Center) sweepTasks(ctx context.Context) {
	for range sweepMost {
		more, err := c.cfg.Tasks.Sweep(ctx)
		if err != nil && ctx.Err() == nil {
			c.cfg.Log.Warn("center: old tasks and lists could not be cleared away", "error", err)
		}
		if err != nil || !more {
			return
		}
	}
}

// begin notes that a task is looked after here, and reports whether it may be.
func (r *runner) begin(ref task.Ref) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running[ref] || len(r.running) >= tasksAtOnce {
		return false
	}
	r.running[ref] = true
	return true
}

func (r *runner) end(ref task.Ref) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.running, ref)
}

// work does for a task what is due: it runs it to its end, or until it is taken away.
func (c *Center) work(ctx context.Context, ref task.Ref) {
	product, err := c.cfg.Catalog.LookupProduct(ctx, ref.Product)
	var t task.Task
	mine := false
	if err == nil {
		t, mine, err = c.take(ctx, product, ref)
	}
	if err == nil && mine {
		switch {
		case t.State == task.Scheduled:
			err = c.recur(ctx, &t)
		case !t.State.Active():
			err = c.recountTask(ctx, product, t)
		case t.State == task.Recalling:
			err = c.runTask(ctx, product, t, (*taskRun).takeBack)
		default:
			err = c.runTask(ctx, product, t, (*taskRun).write)
		}
	}
	switch {
	case err == nil, ctx.Err() != nil, isLost(err), push.KindOf(err) == push.KindNotFound:
	default:
		c.cfg.Log.Warn("center: a task could not be run", "product", string(ref.Product), "task", ref.ID.String(), "error", err)
	}
}

// isLost reports whether an error says that somebody else decides about a task now.
func isLost(err error) bool {
	var e *push.Error
	return errors.As(err, &e) && (e.Code == errLost.Code || e.Code == "fenced")
}

// take takes the lease of a task that has to be run, or does what else is due. mine says that it is to be run here; of a recurring task that is one occurrence.
func (c *Center) take(ctx context.Context, product *catalog.Product, ref task.Ref) (t task.Task, mine bool, err error) {
	off, err := c.cfg.Tasks.Switch(ctx, ref.Product)
	if err != nil {
		return t, false, err
	}
	shut, keep := false, false
	t, err = c.cfg.Tasks.Update(ctx, ref.Product, ref.ID, func(t *task.Task, now push.MilliTime) error {
		mine, shut = false, false
		if t.Wake == 0 || t.Wake > now {
			return task.ErrUnchanged
		}
		if keep = t.NeedsList() && t.Run.Kept.Add(task.KeepEvery) <= now; keep {
			t.Run.Kept = now
		}
		if t.Deadline != 0 && t.Deadline <= now && t.State != task.Recalling && !t.State.Ended() {
			shut = true
			return t.Do(task.Expire, nil, task.ReasonDeadline, now)
		}
		switch {
		case t.State == task.Scheduled && off.Off:
			return t.Do(task.Pause, nil, task.ReasonSwitch, now)
		case t.State == task.Scheduled && product.Disabled:
			return t.Do(task.Pause, nil, task.ReasonDisabled, now)
		case t.State == task.Scheduled && !t.IsDue(now):
			t.SetWake()
			return nil
		case t.State == task.Scheduled && t.Cron != "":
			mine = true
			if keep {
				return nil
			}
			return task.ErrUnchanged
		case t.State == task.Scheduled:
			if err := t.Do(task.Begin, nil, "", now); err != nil {
				return err
			}
			c.begun(product, t, now)
		case t.State != task.Running && t.State != task.Recalling:
			mine = t.Run.Recount
			if mine {
				return task.ErrUnchanged
			}
			t.SetWake()
			return nil
		case t.Run.Holder != "" && t.Run.Holder != c.cfg.Holder && t.Run.Until > now:
			return task.ErrUnchanged
		}
		mine = true
		t.Run.Token++
		t.Run.Holder, t.Run.Until = c.cfg.Holder, now.Add(taskLease)
		t.SetWake()
		return nil
	})
	if err == nil && shut {
		err = c.shut(ctx, product, &t)
	}
	if err == nil && keep {
		c.keepList(ctx, &t)
	}
	return t, mine, err
}

// keepList has the list of a task that waits live on.
func (c *Center) keepList(ctx context.Context, t *task.Task) {
	if err := c.cfg.Tasks.KeepList(ctx, task.ListRef{Product: t.Product, ID: t.List}); err != nil {
		c.cfg.Log.Warn("center: the list of a task that waits is not kept for longer", "task", t.ID.String(), "error", err)
	}
}

// begun notes when a task begins to write, or goes on.
func (c *Center) begun(product *catalog.Product, t *task.Task, now push.MilliTime) {
	r := &t.Run
	if r.Started == 0 {
		r.Started, r.Created, r.Shards = now, now, product.Shards
		r.Expires = 0
		if ttl, persistent := c.lifetime(product, t); persistent {
			r.Expires = now.Add(ttl)
		}
	}
	r.Resumed, r.ResumedAt, r.ResumedPart = now, r.Written, partDone(t)
}

// runTask runs a task that was taken. Whoever takes a task over makes sure first that nobody writes under an older token any more.
func (c *Center) runTask(ctx context.Context, product *catalog.Product, t task.Task, do func(*taskRun, context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	r, err := c.newTaskRun(product, t, cancel)
	if err != nil {
		cancel(nil)
		return c.failTask(ctx, &t, err)
	}
	var beside sync.WaitGroup
	beating, still := context.WithCancel(ctx)
	beside.Go(func() { r.beat(beating) })
	c.metrics.tasks(1)
	err = r.fence(ctx)
	if err == nil {
		err = do(r, ctx)
	}
	c.metrics.tasks(-1)
	if err != nil && context.Cause(ctx) != nil {
		err = context.Cause(ctx)
	}
	still()
	beside.Wait()
	cancel(nil)
	if err == nil || isLost(err) || push.KindOf(err) == push.KindUnavailable || push.KindOf(err) == push.KindClosed || errors.Is(err, context.Canceled) {
		r.letGo(context.WithoutCancel(ctx), err)
		return err
	}
	t = r.now()
	return c.failTask(context.WithoutCancel(ctx), &t, err)
}

// failTask notes that a task cannot go on.
func (c *Center) failTask(ctx context.Context, t *task.Task, cause error) error {
	ctx, cancel := c.finishing(ctx)
	defer cancel()
	code := string(c.codeOf(cause))
	_, err := c.cfg.Tasks.Update(ctx, t.Product, t.ID, func(now *task.Task, at push.MilliTime) error {
		if now.Run.Token != t.Run.Token || now.Run.Holder != c.cfg.Holder {
			return errLost
		}
		doneToo(&now.Run, &t.Run)
		return now.Do(task.Fail, nil, code, at)
	})
	if err == nil {
		c.cfg.Log.Warn("center: a task failed", "product", string(t.Product), "task", t.ID.String(), "code", code, "error", cause)
	}
	return err
}

// recur makes the occurrence of a recurring task that is due: under an id that was stored before, so that it is made once.
func (c *Center) recur(ctx context.Context, t *task.Task) error {
	table, err := newTimetable(t.Cron)
	if err != nil {
		return err
	}
	table.zone(t.Zone)
	if t.Run.NextID == 0 {
		id, err := c.cfg.IDs.Next(ctx)
		if err != nil {
			return err
		}
		updated, err := c.cfg.Tasks.Update(ctx, t.Product, t.ID, func(t *task.Task, now push.MilliTime) error {
			if t.State != task.Scheduled || t.Run.Due == 0 || t.Run.Due > now {
				return errLost
			}
			if t.Run.NextID == 0 {
				t.Run.NextID = id
			}
			return nil
		})
		if err != nil {
			return err
		}
		*t = updated
	}
	child := task.Task{Product: t.Product, ID: t.Run.NextID, Spec: t.Spec, State: task.Draft, By: t.By, Approved: t.Approved, Parent: t.ID}
	child.Cron, child.Zone, child.Start, child.Deadline = "", "", t.Run.Due, 0
	child.Run.Users = t.Run.Users
	if err := child.Do(task.Resume, nil, "", t.Run.Due); err != nil {
		return err
	}
	// One of this id is the occurrence, which runs already: whoever made it died before it could say so here.
	if _, _, err := c.cfg.Tasks.Create(ctx, child, task.Key{}); err != nil && push.KindOf(err) != push.KindConflict {
		return err
	}
	made := t.Run.NextID
	_, err = c.cfg.Tasks.Update(ctx, t.Product, t.ID, func(t *task.Task, now push.MilliTime) error {
		if t.Run.NextID != made {
			return task.ErrUnchanged
		}
		t.Run.NextID = 0
		t.Run.Due = table.after(now, 1)[0]
		t.SetWake()
		return nil
	})
	c.wakeRunner()
	return err
}

// fence sees to it that only this run writes. Of a task that never began there is nothing to write, or to take back.
func (r *taskRun) fence(ctx context.Context) error {
	t := r.now()
	if !r.message.Persistent || t.Run.Started == 0 {
		return nil
	}
	f := saver.Fence{Product: t.Product, Shards: t.Run.Shards, ID: t.ID, Token: r.token, Until: fencedUntil(&t)}
	if r.req.template == nil {
		f.Message = r.message
	}
	return r.again(ctx, func() error { return r.c.cfg.Saver.Fence(ctx, f) })
}

const (
	againFirst = 50 * time.Millisecond
	againMost  = 2 * time.Second
)

// again does something until it is done, fails for good, or the context ends: a store that cannot be used now does not fail a task.
func (r *taskRun) again(ctx context.Context, do func() error) error {
	for wait := againFirst; ; wait = min(2*wait, againMost) {
		err := do()
		if push.KindOf(err) != push.KindUnavailable || err == nil {
			return err
		}
		if err := r.c.sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// sleep waits.
func (c *Center) sleep(ctx context.Context, d time.Duration) error {
	done := make(chan struct{})
	t := c.cfg.Clock.AfterFunc(d, func() { close(done) })
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-done:
		return nil
	}
}
