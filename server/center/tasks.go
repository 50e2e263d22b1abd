package center

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"

	"carillon/server/catalog"
	publicapi "carillon/server/center/api/public"
	"carillon/server/center/strictjson"
	"carillon/server/push"
	"carillon/server/task"
)

// CreateTask serves POST /v1/tasks.
func (o publicOps) CreateTask(ctx context.Context, in publicapi.CreateTaskRequestObject) (publicapi.CreateTaskResponseObject, error) {
	a := callOf(ctx)
	product := a.principal.Product
	req, err := parseTask(a.body, &o.limits, product.Limits.WithDefaults())
	if err != nil {
		return nil, err
	}
	key, err := keyOf(in.Params.IdempotencyKey)
	if err != nil {
		return nil, err
	}
	is, err := o.judge(ctx, product, req)
	if err != nil {
		return nil, err
	}
	if req.validateOnly {
		return o.validatedTask(ctx, product, req, is)
	}
	t, err := o.newTask(ctx, a, req, is)
	if err != nil {
		return nil, err
	}
	made, repeated, err := o.storeTask(ctx, t, string(key), req.draft)
	if err != nil {
		return nil, err
	}
	return o.created(ctx, &made, repeated)
}

// newTask makes the task that a request asks for.
func (c *Center) newTask(ctx context.Context, a *call, req *taskRequest, is size) (t task.Task, err error) {
	id, err := c.cfg.IDs.Next(ctx)
	if err != nil {
		return t, err
	}
	now := push.Milli(c.cfg.Clock.Now())
	t = task.Task{Product: a.principal.Product.ID, ID: id, Changed: now, Spec: req.spec, State: task.Draft, By: c.actor(a),
		Approval: needsApproval(a.principal.Product, is)}
	t.Run.Users, t.Run.Kept = is.users, now
	if req.cron != nil {
		t.Run.Due = req.cron.after(now, 1)[0]
	}
	if !req.draft {
		by := t.By
		if err := t.Do(task.Resume, &by, "", now); err != nil {
			return t, err
		}
	}
	return t, nil
}

// actor returns who makes a call.
func (c *Center) actor(a *call) task.Actor {
	return task.Actor{Key: string(a.principal.KeyID), Name: a.principal.Name, At: push.Milli(c.cfg.Clock.Now())}
}

// storeTask stores a new task, once under an idempotency key.
func (c *Center) storeTask(ctx context.Context, t task.Task, key string, draft bool) (made task.Task, repeated bool, err error) {
	k := task.Key{Name: key}
	if key != "" {
		asked := appendSpec(nil, &t.Spec, nil)
		asked = append(strconv.AppendBool(asked, draft), t.Cloned.String()...)
		k.Digest = sha256.Sum256(asked)
	}
	ctx, cancel := c.finishing(ctx)
	defer cancel()
	if made, repeated, err = c.cfg.Tasks.Create(ctx, t, k); err == nil {
		c.wakeRunner()
	}
	return made, repeated, err
}

// GetTask serves GET /v1/tasks/{task}.
func (o publicOps) GetTask(ctx context.Context, in publicapi.GetTaskRequestObject) (publicapi.GetTaskResponseObject, error) {
	t, err := o.taskOf(ctx, in.Task)
	if err != nil {
		return nil, err
	}
	shown, err := o.showTask(ctx, &t)
	return publicapi.GetTask200JSONResponse(shown), err
}

// taskOf reads the task that a path names.
func (c *Center) taskOf(ctx context.Context, id string) (task.Task, error) {
	n, err := pathID("task", id)
	if err != nil {
		return task.Task{}, err
	}
	return c.cfg.Tasks.Task(ctx, callOf(ctx).principal.Product.ID, n)
}

// pathID reads an id from a path or query.
func pathID(name, s string) (push.MsgID, error) {
	id, err := push.ParseMsgID(s)
	if err != nil {
		return 0, &badParameter{name, strictjson.BadFormat, err.Error()}
	}
	return id, nil
}

// ListTasks serves GET /v1/tasks.
func (o publicOps) ListTasks(ctx context.Context, in publicapi.ListTasksRequestObject) (publicapi.ListTasksResponseObject, error) {
	q := task.Query{Product: callOf(ctx).principal.Product.ID}
	var err error
	if q.Limit, err = pageOf(in.Params.Limit); err != nil {
		return nil, err
	}
	if in.Params.Cursor != nil {
		if q.Before, err = pathID("cursor", *in.Params.Cursor); err != nil {
			return nil, err
		}
	}
	if in.Params.Parent != nil {
		if q.Parent, err = pathID("parent", *in.Params.Parent); err != nil {
			return nil, err
		}
	}
	if in.Params.State != nil {
		for _, s := range *in.Params.State {
			if !slices.Contains(task.States(), task.State(s)) {
				return nil, &badParameter{"state", strictjson.UnknownValue, "a state of a task"}
			}
			q.States = append(q.States, task.State(s))
		}
	}
	page, err := o.cfg.Tasks.Tasks(ctx, q)
	if err != nil {
		return nil, err
	}
	out := publicapi.ListTasks200JSONResponse{Tasks: []publicapi.Task{}}
	for i := range page.Tasks {
		shown, err := o.showTask(ctx, &page.Tasks[i])
		if err != nil {
			return nil, err
		}
		out.Tasks = append(out.Tasks, shown)
	}
	if page.Before != 0 {
		out.NextCursor = new(page.Before.String())
	}
	return out, nil
}

// DeleteTask serves DELETE /v1/tasks/{task}.
func (o publicOps) DeleteTask(ctx context.Context, in publicapi.DeleteTaskRequestObject) (publicapi.DeleteTaskResponseObject, error) {
	id, err := pathID("task", in.Task)
	if err != nil {
		return nil, err
	}
	product := callOf(ctx).principal.Product.ID
	ctx, cancel := o.finishing(ctx)
	defer cancel()
	switch found, err := o.cfg.Tasks.Delete(ctx, product, id); {
	case err != nil:
		return nil, err
	case !found:
		return nil, task.ErrNotFound()
	}
	return publicapi.DeleteTask204Response{}, nil
}

// ChangeTask serves PATCH /v1/tasks/{task}.
func (o publicOps) ChangeTask(ctx context.Context, in publicapi.ChangeTaskRequestObject) (publicapi.ChangeTaskResponseObject, error) {
	a := callOf(ctx)
	product := a.principal.Product
	members, err := parseTaskPatch(a.body)
	if err != nil {
		return nil, err
	}
	t, err := o.taskOf(ctx, in.Task)
	if err != nil {
		return nil, err
	}
	changed, err := o.changeTask(ctx, product, t.ID, members)
	if err != nil {
		return nil, err
	}
	o.wakeRunner()
	shown, err := o.showTask(ctx, &changed)
	return publicapi.ChangeTask200JSONResponse(shown), err
}

func (c *Center) changeTask(ctx context.Context, product *catalog.Product, id push.MsgID, members map[string]json.RawMessage) (task.Task, error) {
	any := func(name string) bool { return name != "name" && name != "pace" }
	return c.cfg.Tasks.Update(ctx, product.ID, id, func(t *task.Task, now push.MilliTime) error {
		for name := range members {
			if t.State != task.Draft && any(name) {
				return push.Errorf(push.KindConflict, string(codeTaskMove), "of a task that is %s only name and pace can be changed", t.State)
			}
		}
		if t.State.Ended() {
			return push.Errorf(push.KindConflict, string(codeTaskMove), "a task that is %s cannot be changed", t.State)
		}
		req, err := parseTask(appendSpec(nil, &t.Spec, members), &c.limits, product.Limits.WithDefaults())
		if err != nil {
			return err
		}
		t.Changed = now
		if t.State != task.Draft {
			t.Name, t.Pace = req.spec.Name, req.spec.Pace
			return nil
		}
		is, err := c.judge(ctx, product, req)
		if err != nil {
			return err
		}
		t.Spec, t.Approval, t.Run.Users, t.Run.Due = req.spec, needsApproval(product, is), is.users, 0
		t.Run.Kept = now
		if req.cron != nil {
			t.Run.Due = req.cron.after(now, 1)[0]
		}
		return nil
	})
}

// CloneTask serves POST /v1/tasks/{task}/clone.
func (o publicOps) CloneTask(ctx context.Context, in publicapi.CloneTaskRequestObject) (publicapi.CloneTaskResponseObject, error) {
	a := callOf(ctx)
	key, err := keyOf(in.Params.IdempotencyKey)
	if err != nil {
		return nil, err
	}
	was, err := o.taskOf(ctx, in.Task)
	if err != nil {
		return nil, err
	}
	spec := was.Spec
	spec.Start, spec.Deadline, spec.Cron, spec.Zone = 0, 0, "", ""
	product := a.principal.Product
	req, err := parseTask(appendSpec(nil, &spec, nil), &o.limits, product.Limits.WithDefaults())
	if err != nil {
		return nil, err
	}
	req.draft = true
	is, err := o.judge(ctx, product, req)
	if err != nil {
		return nil, err
	}
	t, err := o.newTask(ctx, a, req, is)
	if err != nil {
		return nil, err
	}
	t.Cloned = was.ID
	made, repeated, err := o.storeTask(ctx, t, string(key), true)
	if err != nil {
		return nil, err
	}
	return o.created(ctx, &made, repeated)
}

// madeTask answers what makes a task.
type madeTask struct {
	repeated bool
	task     publicapi.Task
}

func (c *Center) created(ctx context.Context, t *task.Task, repeated bool) (madeTask, error) {
	shown, err := c.showTask(ctx, t)
	return madeTask{repeated, shown}, err
}

func (m madeTask) write(w http.ResponseWriter) error {
	w.Header().Set("Location", "/v1/tasks/"+m.task.Id)
	if m.repeated {
		w.Header().Set("Idempotent-Replayed", "true")
	}
	return writeJSON(w, http.StatusCreated, m.task)
}

// VisitCreateTaskResponse writes the answer.
func (m madeTask) VisitCreateTaskResponse(w http.ResponseWriter) error { return m.write(w) }

// VisitCloneTaskResponse writes the answer.
func (m madeTask) VisitCloneTaskResponse(w http.ResponseWriter) error { return m.write(w) }

func writeJSON(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, err = w.Write(b)
	return err
}
