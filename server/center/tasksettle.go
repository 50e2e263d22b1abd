package center

import (
	"context"

	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/task"
)

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
