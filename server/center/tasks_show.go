package center

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"carillon/server/catalog"
	publicapi "carillon/server/center/api/public"
	"carillon/server/push"
	"carillon/server/task"
)

// showTask returns a task with what was counted of it.
func (c *Center) showTask(ctx context.Context, t *task.Task) (out publicapi.Task, err error) {
	now := push.Milli(c.cfg.Clock.Now())
	f, err := c.funnelOf(ctx, t, now)
	if err != nil {
		return out, err
	}
	out = publicapi.Task{
		Id: t.ID.String(), Revision: int(t.Revision), State: publicapi.TaskState(t.State), Reason: optString(t.Reason), Name: t.Name,
		Created: showTime(t.Created), Changed: showTime(t.Changed), By: showActor(t.By), NeedsApproval: t.Approval,
		Parent: optID(t.Parent), ClonedFrom: optID(t.Cloned), To: t.To, Message: t.Message, Template: t.Template,
		Start: optTime(t.Start), Deadline: optTime(t.Deadline), Cron: optString(t.Cron), TimeZone: optString(t.Zone),
		Progress: showProgress(t, now), Funnel: showFunnel(&f), Moves: []publicapi.TaskMoved{}, Allowed: []publicapi.TaskAction{},
	}
	if t.Approved != nil {
		out.ApprovedBy = new(showActor(*t.Approved))
	}
	if p := appendPace(nil, t.Pace); p != nil {
		out.Pace = new(json.RawMessage(p))
	}
	if len(t.Test) > 0 {
		names := make([]string, len(t.Test))
		for i, u := range t.Test {
			names[i] = string(u)
		}
		out.TestGroup = &names
	}
	if t.Cron != "" && t.State == task.Scheduled {
		out.NextRun = optTime(t.Run.Due)
	}
	for i := range t.Moves {
		m := &t.Moves[i]
		shown := publicapi.TaskMoved{Move: string(m.Move), From: publicapi.TaskState(m.From), To: publicapi.TaskState(m.To),
			At: showTime(m.At), Reason: optString(m.Reason)}
		if m.By != nil {
			shown.By = new(showActor(*m.By))
		}
		out.Moves = append(out.Moves, shown)
	}
	for _, m := range task.Allowed(t.State) {
		if m == task.Recall && !isPersistent(t) {
			continue
		}
		out.Allowed = append(out.Allowed, publicapi.TaskAction(m))
	}
	return out, nil
}

func showActor(a task.Actor) publicapi.Actor {
	return publicapi.Actor{Key: a.Key, Name: optString(a.Name), At: showTime(a.At)}
}

// optID returns an id, nil for none.
func optID(id push.MsgID) *string {
	if id == 0 {
		return nil
	}
	return new(id.String())
}

// funnelOf returns what became of a task's message.
func (c *Center) funnelOf(ctx context.Context, t *task.Task, now push.MilliTime) (task.Funnel, error) {
	if t.Run.Started == 0 {
		return task.FunnelOf(t, nil, true, nil, now), nil
	}
	counts, err := c.cfg.Tasks.Counts(ctx, t.Product, t.ID)
	if err != nil {
		return task.Funnel{}, err
	}
	alive := make(map[task.Life]bool)
	if len(counts) > 0 {
		rooms, err := c.cfg.Register.Rooms(ctx)
		if err != nil {
			return task.Funnel{}, unavailable(codeRoomsUnavailable, err)
		}
		for _, r := range rooms {
			alive[task.Life{Room: r.ID, Boot: r.Boot}] = true
		}
	}
	return task.FunnelOf(t, counts, isPersistent(t), func(l task.Life) bool { return alive[l] }, now), nil
}

// isPersistent reports whether a task's message is. It was judged when the task was made, so the words are those of the contract.
func isPersistent(t *task.Task) bool {
	var m struct {
		Persistent *bool `json:"persistent"`
	}
	return json.Unmarshal(t.Message, &m) != nil || m.Persistent == nil || *m.Persistent
}

// namesUsers reports whether a task says itself which users it is for.
func namesUsers(t *task.Task) bool {
	var to struct {
		Users   []json.RawMessage `json:"users"`
		Devices []json.RawMessage `json:"devices"`
	}
	return t.List != 0 || json.Unmarshal(t.To, &to) == nil && len(to.Users)+len(to.Devices) > 0
}

func showFunnel(f *task.Funnel) publicapi.TaskFunnel {
	out := publicapi.TaskFunnel{
		Audience: int(f.Audience), Exact: f.Exact, Stored: int(f.Stored), Online: int(f.Online), Waiting: int(f.Waiting),
		Sent: int(f.Sent()), InFlight: int(f.InFlight), Acknowledged: int(f.Acknowledged), Displayed: int(f.Displayed), Clicked: int(f.Clicked),
		Expired: int(f.Expired), Recalled: int(f.Recalled), Dropped: map[string]int{}, Unaccounted: int(f.Unaccounted),
	}
	for reason, n := range f.Dropped {
		out.Dropped[reason] = int(n)
	}
	return out
}

func showProgress(t *task.Task, now push.MilliTime) publicapi.TaskProgress {
	r := &t.Run
	out := publicapi.TaskProgress{
		Users: int(r.Users), Exact: !r.Common && r.Settled || namesUsers(t), Written: int(r.Written), LeftOut: int(r.Skipped), TakenBack: int(r.Returned),
		Started: optTime(r.Started), Ended: optTime(r.Ended), Recalled: optTime(r.Recalled),
	}
	if r.Settled {
		is := publicapi.AtSend
		if r.Common {
			is = publicapi.AtDelivery
		}
		out.Membership = &is
	}
	part := partDone(t)
	out.Percent = float32(100 * part)
	if t.State == task.Running && r.Resumed != 0 && now > r.Resumed {
		gone := time.Duration(now-r.Resumed) * time.Millisecond
		rate := float64(r.Written-r.ResumedAt) / gone.Seconds()
		out.PerSecond = new(float32(rate))
		if done := part - r.ResumedPart; done > 0 && part < 1 {
			out.ExpectedEnd = optTime(now.Add(time.Duration(float64(gone) * (1 - part) / done)))
		}
	}
	return out
}

// partDone returns how much of a task is done, from 0 to 1.
func partDone(t *task.Task) float64 {
	r := &t.Run
	switch {
	case t.State == task.Completed:
		return 1
	case !r.Settled:
		return 0
	case r.Common:
		done := 0
		for _, n := range r.Next {
			if n > 0 {
				done++
			}
		}
		return float64(done) / float64(max(r.Shards, 1))
	case r.Users == 0, len(t.Test) > 0 && !r.TestDone:
		return 0
	}
	// The test group is written for beside the others: those of it who are among them are left out there.
	return min(1, max(0, float64(r.Written-int64(len(t.Test))+r.Skipped)/float64(r.Users)))
}

func showSwitch(s task.Switch) publicapi.TaskSwitch {
	out := publicapi.TaskSwitch{Off: s.Off, Reason: optString(s.Reason)}
	if s.By.Key != "" {
		out.By = new(showActor(s.By))
	}
	return out
}

func showList(l *task.List) publicapi.UserList {
	out := publicapi.UserList{Id: l.ID.String(), Name: l.Name, Users: int(l.Users), Variables: append([]string{}, l.Variables...), Created: showTime(l.Created)}
	if l.By.Key != "" {
		out.By = new(showActor(l.By))
	}
	return out
}

// GetList serves GET /v1/lists/{list}.
func (o publicOps) GetList(ctx context.Context, in publicapi.GetListRequestObject) (publicapi.GetListResponseObject, error) {
	id, err := pathID("list", in.List)
	if err != nil {
		return nil, err
	}
	l, err := o.cfg.Tasks.List(ctx, task.ListRef{Product: callOf(ctx).principal.Product.ID, ID: id})
	if err == nil && l.Made {
		err = task.ErrListNotFound()
	}
	return publicapi.GetList200JSONResponse(showList(&l)), err
}

// ListLists serves GET /v1/lists.
func (o publicOps) ListLists(ctx context.Context, in publicapi.ListListsRequestObject) (publicapi.ListListsResponseObject, error) {
	limit, err := pageOf(in.Params.Limit)
	if err != nil {
		return nil, err
	}
	var before push.MsgID
	if in.Params.Cursor != nil {
		if before, err = pathID("cursor", *in.Params.Cursor); err != nil {
			return nil, err
		}
	}
	ls, err := o.cfg.Tasks.Lists(ctx, callOf(ctx).principal.Product.ID, before, limit)
	if err != nil {
		return nil, err
	}
	out := publicapi.ListLists200JSONResponse{Lists: []publicapi.UserList{}}
	for i := range ls {
		out.Lists = append(out.Lists, showList(&ls[i]))
	}
	if len(ls) == limit {
		out.NextCursor = new(ls[limit-1].ID.String())
	}
	return out, nil
}

// DeleteList serves DELETE /v1/lists/{list}.
func (o publicOps) DeleteList(ctx context.Context, in publicapi.DeleteListRequestObject) (publicapi.DeleteListResponseObject, error) {
	id, err := pathID("list", in.List)
	if err != nil {
		return nil, err
	}
	ref := task.ListRef{Product: callOf(ctx).principal.Product.ID, ID: id}
	ctx, cancel := o.finishing(ctx)
	defer cancel()
	switch found, err := o.cfg.Tasks.DeleteList(ctx, ref); {
	case err != nil:
		return nil, err
	case !found:
		return nil, task.ErrListNotFound()
	}
	return publicapi.DeleteList204Response{}, nil
}

const (
	watchEvery = 500 * time.Millisecond // how often a watched task is looked at
	watchQuiet = 15 * time.Second       // after which a comment says that the stream is alive
	watchMost  = time.Hour
)

// watch is the stream of one task's events.
type watch struct {
	c       *Center
	ctx     context.Context // of the request, which the stream is
	product *catalog.Product
	id      push.MsgID
	first   publicapi.Task
}

// WatchTask serves GET /v1/tasks/{task}/events.
func (o publicOps) WatchTask(ctx context.Context, in publicapi.WatchTaskRequestObject) (publicapi.WatchTaskResponseObject, error) {
	t, err := o.taskOf(ctx, in.Task)
	if err != nil {
		return nil, err
	}
	shown, err := o.showTask(ctx, &t)
	return watch{o.Center, ctx, callOf(ctx).principal.Product, t.ID, shown}, err
}

// VisitWatchTaskResponse writes the stream.
func (s watch) VisitWatchTaskResponse(w http.ResponseWriter) error {
	control := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	send := func(text string) error {
		_ = control.SetWriteDeadline(s.c.cfg.Clock.Now().Add(watchQuiet)) // where it cannot be had, the connection's own deadline counts
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
		return control.Flush()
	}
	var last []byte
	shown := s.first
	begun := s.c.cfg.Clock.Now()
	said := begun
	every := s.c.cfg.Clock.NewTicker(watchEvery)
	defer every.Stop()
	for {
		now := s.c.cfg.Clock.Now()
		text, err := json.Marshal(shown)
		if err != nil {
			return err
		}
		switch {
		case !bytes.Equal(text, last):
			err = send("event: task\ndata: " + string(text) + "\n\n")
			last, said = text, now
		case now.Sub(said) >= watchQuiet:
			err = send(":\n\n")
			said = now
		}
		if err != nil || now.Sub(begun) >= watchMost {
			_ = send("event: end\ndata: {}\n\n") // whoever is gone is not told
			return nil
		}
		select {
		case <-s.ctx.Done():
			return nil
		case <-s.c.ending:
			return nil // without an end: whoever watches comes back, to another node
		case <-every.C:
		}
		t, err := s.c.cfg.Tasks.Task(s.ctx, s.product.ID, s.id)
		if err == nil {
			shown, err = s.c.showTask(s.ctx, &t)
		}
		if push.KindOf(err) == push.KindNotFound && err != nil {
			return send("event: end\ndata: {}\n\n")
		}
	}
}
