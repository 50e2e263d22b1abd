package center

import (
	"context"

	"carillon/server/catalog"
	publicapi "carillon/server/center/api/public"
	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/task"
)

// ApproveTask serves POST /v1/tasks/{task}/approve.
func (o publicOps) ApproveTask(ctx context.Context, in publicapi.ApproveTaskRequestObject) (publicapi.ApproveTaskResponseObject, error) {
	shown, err := o.moveTask(ctx, in.Task, task.Approve)
	return publicapi.ApproveTask200JSONResponse(shown), err
}

// ResumeTask serves POST /v1/tasks/{task}/resume.
func (o publicOps) ResumeTask(ctx context.Context, in publicapi.ResumeTaskRequestObject) (publicapi.ResumeTaskResponseObject, error) {
	shown, err := o.moveTask(ctx, in.Task, task.Resume)
	return publicapi.ResumeTask200JSONResponse(shown), err
}

// PauseTask serves POST /v1/tasks/{task}/pause.
func (o publicOps) PauseTask(ctx context.Context, in publicapi.PauseTaskRequestObject) (publicapi.PauseTaskResponseObject, error) {
	shown, err := o.moveTask(ctx, in.Task, task.Pause)
	return publicapi.PauseTask200JSONResponse(shown), err
}

// StopTask serves POST /v1/tasks/{task}/stop.
func (o publicOps) StopTask(ctx context.Context, in publicapi.StopTaskRequestObject) (publicapi.StopTaskResponseObject, error) {
	shown, err := o.moveTask(ctx, in.Task, task.Stop)
	return publicapi.StopTask200JSONResponse(shown), err
}

// RecallTask serves POST /v1/tasks/{task}/recall.
func (o publicOps) RecallTask(ctx context.Context, in publicapi.RecallTaskRequestObject) (publicapi.RecallTaskResponseObject, error) {
	shown, err := o.moveTask(ctx, in.Task, task.Recall)
	return publicapi.RecallTask200JSONResponse(shown), err
}

// moveTask makes an operator's move. It is answered when no batch can be written any more that the move is to prevent. A move that was made last is
// not made again, but what belongs to it is: so it can be repeated when its answer was lost. What the switch did is nobody's move.
func (c *Center) moveTask(ctx context.Context, id string, m task.Move) (shown publicapi.Task, err error) {
	a := callOf(ctx)
	product := a.principal.Product
	reason, err := parseReason(a.body)
	if err != nil {
		return shown, err
	}
	n, err := pathID("task", id)
	if err != nil {
		return shown, err
	}
	by := c.actor(a)
	ctx, cancel := c.finishing(ctx)
	defer cancel()
	t, err := c.cfg.Tasks.Update(ctx, product.ID, n, func(t *task.Task, now push.MilliTime) error {
		by.At = now
		if last := len(t.Moves) - 1; last >= 0 && t.Moves[last].Move == m && t.Moves[last].To == t.State &&
			t.Moves[last].By != nil && t.Moves[last].By.Key == by.Key && !pausedBySwitch(t) {
			return task.ErrUnchanged
		}
		return c.move(t, m, &by, reason, now)
	})
	if err != nil {
		return shown, err
	}
	if err := c.shut(ctx, product, &t); err != nil {
		return shown, err
	}
	c.wakeRunner()
	return c.showTask(ctx, &t)
}

// move makes one move of somebody.
func (c *Center) move(t *task.Task, m task.Move, by *task.Actor, reason string, now push.MilliTime) error {
	if m == task.Approve && t.State == task.AwaitingApproval && handedInBy(t) == by.Key {
		return push.Errorf(push.KindForbidden, string(codeApprovalByMaker),
			"somebody else has to approve it: use another API key than the one that made it, or handed it in")
	}
	if m == task.Recall && !isPersistent(t) {
		return push.Errorf(push.KindConflict, string(codeTaskMove), "a message that is not persistent cannot be taken back; stop the task")
	}
	if (m == task.Resume || m == task.Approve) && t.Cron != "" {
		if table, err := newTimetable(t.Cron); err == nil {
			table.zone(t.Zone)
			t.Run.Due = table.after(now, 1)[0]
		}
	}
	if err := t.Do(m, by, reason, now); err != nil {
		return err
	}
	if m == task.Approve {
		t.Approved = by
	}
	return nil
}

// handedInBy returns the key of whoever a task cannot be approved by: who handed it in last, or made it.
func handedInBy(t *task.Task) string {
	for i := len(t.Moves) - 1; i >= 0; i-- {
		if m := &t.Moves[i]; m.From == task.Draft && m.By != nil {
			return m.By.Key
		}
	}
	return t.By.Key
}

// shut sees to it that nothing is written any more under an older token than the task's. Where a higher one holds, somebody was let go on since, and does so.
func (c *Center) shut(ctx context.Context, product *catalog.Product, t *task.Task) error {
	if t.State == task.Scheduled || t.State == task.Running || t.Run.Shards == 0 || t.Run.Token == 0 {
		return nil
	}
	err := c.cfg.Saver.Fence(ctx, saver.Fence{
		Product: product.ID, Shards: t.Run.Shards, ID: t.ID, Token: t.Run.Token, Until: fencedUntil(t),
	})
	if isLost(err) {
		return nil
	}
	return err
}

// fencedUntil is how long a store has to remember who may write a task's message.
func fencedUntil(t *task.Task) push.MilliTime {
	return max(t.Run.Expires, t.Changed).Add(2 * saver.RecordKept)
}

// GetTaskSwitch serves GET /v1/task-switch.
func (o publicOps) GetTaskSwitch(ctx context.Context, _ publicapi.GetTaskSwitchRequestObject) (publicapi.GetTaskSwitchResponseObject, error) {
	s, err := o.cfg.Tasks.Switch(ctx, callOf(ctx).principal.Product.ID)
	return publicapi.GetTaskSwitch200JSONResponse(showSwitch(s)), err
}

// SetTaskSwitch serves PUT /v1/task-switch.
func (o publicOps) SetTaskSwitch(ctx context.Context, _ publicapi.SetTaskSwitchRequestObject) (publicapi.SetTaskSwitchResponseObject, error) {
	a := callOf(ctx)
	s, err := parseSwitch(a.body)
	if err != nil {
		return nil, err
	}
	s.By = o.actor(a)
	ctx, cancel := o.finishing(ctx)
	defer cancel()
	product := a.principal.Product
	if err := o.cfg.Tasks.SetSwitch(ctx, product.ID, s); err != nil {
		return nil, err
	}
	if err := o.switchAll(ctx, product, s); err != nil {
		return nil, err
	}
	o.wakeRunner()
	return publicapi.SetTaskSwitch200JSONResponse(showSwitch(s)), nil
}

// switchAll pauses all tasks of a product that write, or will, and resumes those that the switch paused.
func (c *Center) switchAll(ctx context.Context, product *catalog.Product, s task.Switch) error {
	// Those that are paused already may have been by a call that failed before they were shut.
	q := task.Query{Product: product.ID, States: []task.State{task.Scheduled, task.Running, task.Paused}, Limit: task.MaxPage}
	m := task.Pause
	if !s.Off {
		q.States, m = []task.State{task.Paused}, task.Resume
	}
	for {
		page, err := c.cfg.Tasks.Tasks(ctx, q)
		if err != nil {
			return err
		}
		for i := range page.Tasks {
			t, err := c.cfg.Tasks.Update(ctx, product.ID, page.Tasks[i].ID, func(t *task.Task, now push.MilliTime) error {
				by := s.By
				by.At = now
				if s.Off && t.State != task.Scheduled && t.State != task.Running || !s.Off && !pausedBySwitch(t) {
					return task.ErrUnchanged
				}
				reason := ""
				if s.Off {
					reason = task.ReasonSwitch
				}
				return c.move(t, m, &by, reason, now)
			})
			if push.KindOf(err) == push.KindNotFound && err != nil {
				continue
			}
			if err == nil && (!s.Off || pausedBySwitch(&t)) {
				err = c.shut(ctx, product, &t)
			}
			if err != nil {
				return err
			}
		}
		if q.Before = page.Before; q.Before == 0 {
			return nil
		}
	}
}

func pausedBySwitch(t *task.Task) bool {
	return t.State == task.Paused && t.Reason == task.ReasonSwitch
}
