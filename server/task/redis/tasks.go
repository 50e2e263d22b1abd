package redis

import (
	"context"
	"errors"

	"carillon/server/failpoint"
	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/task"
)

// put returns the commands that write a task, as it is stored, with its places. old is what it takes the place of, nil for none.
func put(t *task.Task, data []byte, old *task.Task) []redisdb.Command {
	where := place(t.Product, t.ID)
	do := []redisdb.Command{command("HSET", tasksKey(t.Product), name(t.ID), data)}
	if old == nil {
		do = append(do, command("ZADD", taskIDs(t.Product), 0, name(t.ID)))
	}
	switch {
	case t.Wake != 0:
		do = append(do, command("ZADD", wakeKey, int64(t.Wake), where))
	case old != nil && old.Wake != 0:
		do = append(do, command("ZREM", wakeKey, where))
	}
	switch until := task.KeptUntil(t); {
	case until != 0:
		do = append(do, command("ZADD", endsKey, int64(until), endOfTask+where))
	case old != nil && task.KeptUntil(old) != 0:
		do = append(do, command("ZREM", endsKey, endOfTask+where))
	}
	return do
}

// remove returns what forgets a task, and its counts, if it still is what was read.
func remove(p push.ProductID, id push.MsgID, was any) *redisdb.Write {
	where := place(p, id)
	return &redisdb.Write{
		Tag: tag, Frees: true,
		If: []redisdb.Condition{redisdb.IfField(tasksKey(p), name(id), was)},
		Do: []redisdb.Command{
			command("HDEL", tasksKey(p), name(id)), command("ZREM", taskIDs(p), name(id)), command("ZREM", wakeKey, where),
			command("ZREM", endsKey, endOfTask+where), command("UNLINK", countsKey(p, id)),
		},
	}
}

// Create stores a task.
func (s *Store) Create(ctx context.Context, t task.Task, key task.Key) (made task.Task, repeated bool, err error) {
	ask := []redisdb.Command{command("HGET", tasksKey(t.Product), name(t.ID))}
	if key.Name != "" {
		ask = append(ask, command("GET", requestKey(t.Product, key.Name)))
	}
	wrote := false
	err = s.write(ctx, ask, func(was []any, now push.MilliTime) (_ *redisdb.Write, err error) {
		wrote, repeated = false, false
		if key.Name != "" {
			if b, there := text(was[1]); there {
				k, err := task.DecodeKey(b)
				if err != nil {
					return nil, err
				}
				if made, repeated, err = k.Answer(key, now); repeated || err != nil {
					return nil, err
				}
			}
		}
		data, err := task.EncodeMade(t, now)
		if err != nil {
			return nil, err
		}
		old, there := text(was[0])
		if there {
			same, err := task.SameTask(old, data)
			if err != nil {
				return nil, err
			}
			if !same {
				return nil, task.ErrExists()
			}
			data = old
		}
		if made, err = task.Decode(data); err != nil {
			return nil, err
		}
		w := &redisdb.Write{If: []redisdb.Condition{redisdb.IfField(tasksKey(t.Product), name(t.ID), was[0])}}
		if !there {
			w.Do = put(&made, data, nil)
		}
		if key.Name != "" {
			k := requestKey(t.Product, key.Name)
			w.If = append(w.If, redisdb.IfValue(k, was[1]))
			value := task.EncodeKey(task.KeyRecord{Digest: key.Digest, At: now, Task: data})
			w.Do = append(w.Do, command("SET", k, value, "PX", task.KeyKept.Milliseconds()))
		}
		if len(w.Do) == 0 {
			return nil, nil
		}
		wrote = true
		return w, nil
	})
	if wrote && err == nil {
		failpoint.Hit(failpoint.TaskWritten)
	}
	if err != nil {
		return task.Task{}, false, err
	}
	return made, repeated, nil
}

// Task returns a task.
func (s *Store) Task(ctx context.Context, p push.ProductID, id push.MsgID) (task.Task, error) {
	r, err := s.read(ctx, command("HGET", tasksKey(p), name(id)))
	if err != nil {
		return task.Task{}, err
	}
	return decoded(r.Replies[0])
}

func decoded(reply any) (task.Task, error) {
	b, there := text(reply)
	if !there {
		return task.Task{}, task.ErrNotFound()
	}
	return task.Decode(b)
}

// lookedAtOnce is how many tasks a page whose filter few pass looks at in one round trip.
const lookedAtOnce = 200

// Tasks returns tasks of a product, the newest ids first.
func (s *Store) Tasks(ctx context.Context, q task.Query) (page task.Page, err error) {
	if err := s.usable(ctx); err != nil {
		return page, err
	}
	if err := q.Check(); err != nil {
		return page, err
	}
	filtered := len(q.States) > 0 || q.Parent != 0
	before := q.Before
	for looked := 0; looked < task.ScanMost(); {
		n := q.Limit - len(page.Tasks)
		if filtered {
			n = min(lookedAtOnce, task.ScanMost()-looked)
		}
		ids, values, _, more, err := s.newest(ctx, taskIDs(q.Product), tasksKey(q.Product), before, n)
		if err != nil {
			return task.Page{}, err
		}
		for i, v := range values {
			looked, before = looked+1, ids[i]
			if v == nil {
				continue // it was deleted meanwhile
			}
			t, err := decoded(v)
			if err != nil {
				return task.Page{}, err
			}
			if q.Matches(&t) {
				page.Tasks = append(page.Tasks, t)
			}
			if len(page.Tasks) == q.Limit {
				if more || i+1 < len(values) {
					page.Before = before
				}
				return page, nil
			}
		}
		if !more {
			return page, nil
		}
	}
	page.Before = before
	return page, nil
}

// Update changes a task.
func (s *Store) Update(ctx context.Context, p push.ProductID, id push.MsgID, change func(t *task.Task, now push.MilliTime) error) (task.Task, error) {
	var t task.Task
	wrote := false
	err := s.write(ctx, []redisdb.Command{command("HGET", tasksKey(p), name(id))}, func(was []any, now push.MilliTime) (_ *redisdb.Write, err error) {
		wrote = false
		if t, err = decoded(was[0]); err != nil {
			return nil, err
		}
		old := task.Task{State: t.State, Changed: t.Changed, Wake: t.Wake}
		old.Run.Ended = t.Run.Ended
		revision, created := t.Revision+1, t.Created
		if err := change(&t, now); errors.Is(err, task.ErrUnchanged) {
			t, err = decoded(was[0])
			return nil, err
		} else if err != nil {
			return nil, err
		}
		t.Product, t.ID, t.Revision, t.Created = p, id, revision, created
		data, err := task.Encode(&t)
		if err != nil {
			return nil, err
		}
		wrote = true
		return &redisdb.Write{
			If:    []redisdb.Condition{redisdb.IfField(tasksKey(p), name(id), was[0])},
			Do:    put(&t, data, &old),
			Frees: true, // tasks have to be stopped, and to end, when memory is full
		}, nil
	})
	if err != nil {
		return task.Task{}, err
	}
	if wrote {
		failpoint.Hit(failpoint.TaskWritten)
	}
	return t, nil
}

// Due returns tasks that somebody has to look at.
func (s *Store) Due(ctx context.Context, limit int) ([]task.Ref, push.MilliTime, error) {
	ask := command("ZRANGE", wakeKey, 0, limit-1, "WITHSCORES")
	if limit <= 0 {
		ask = command("ZCARD", wakeKey)
	}
	r, err := s.read(ctx, ask)
	if err != nil {
		return nil, 0, err
	}
	members, at, err := scores(r.Replies[0])
	if err != nil {
		return nil, 0, err
	}
	var due []task.Ref
	for i, m := range members {
		if at[i] > r.Now {
			break
		}
		p, id, err := cutPlace(m)
		if err != nil {
			return nil, 0, err
		}
		due = append(due, task.Ref{Product: p, ID: id})
	}
	return due, r.Now, nil
}

// Delete forgets a task that has ended.
func (s *Store) Delete(ctx context.Context, p push.ProductID, id push.MsgID) (there bool, err error) {
	err = s.write(ctx, []redisdb.Command{command("HGET", tasksKey(p), name(id))}, func(was []any, _ push.MilliTime) (*redisdb.Write, error) {
		if there = was[0] != nil; !there {
			return nil, nil
		}
		t, err := decoded(was[0])
		if err != nil {
			return nil, err
		}
		if !t.State.Ended() {
			return nil, task.ErrNotEnded(t.State)
		}
		return remove(p, id, was[0]), nil
	})
	return there && err == nil, err
}

// SetSwitch turns all tasks of a product off, or on again.
func (s *Store) SetSwitch(ctx context.Context, p push.ProductID, to task.Switch) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	data, err := task.EncodeSwitch(to)
	if err != nil {
		return err
	}
	w := &redisdb.Write{Tag: tag, Do: []redisdb.Command{command("HSET", switchKey, string(p), data)}, Frees: true}
	s.db.Write(ctx, w)
	return failed(w.Err)
}

// Switch returns the product's switch.
func (s *Store) Switch(ctx context.Context, p push.ProductID) (task.Switch, error) {
	r, err := s.read(ctx, command("HGET", switchKey, string(p)))
	if err != nil {
		return task.Switch{}, err
	}
	b, there := text(r.Replies[0])
	if !there {
		return task.Switch{}, nil
	}
	return task.DecodeSwitch(b)
}

// countsKept is how long counts stay that nobody adds to, should their task not be there to be forgotten with them.
const countsKept = 2 * task.Kept

// countedAtOnce is how many tasks' counts are added in one step.
const countedAtOnce = 200

// Count adds to the counts of tasks.
func (s *Store) Count(ctx context.Context, cs []task.Counted) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	var ws []*redisdb.Write
	for len(cs) > 0 {
		n := min(len(cs), countedAtOnce)
		w := &redisdb.Write{Tag: tag}
		for i := range cs[:n] {
			c := &cs[i]
			key := countsKey(c.Product, c.Task)
			for k, by := range c.Counts {
				if by != 0 {
					w.Do = append(w.Do, command("HINCRBY", key, field(task.Kind(k), c.Life), by))
				}
			}
			w.Do = append(w.Do, command("PEXPIRE", key, countsKept.Milliseconds()))
		}
		ws, cs = append(ws, w), cs[n:]
	}
	s.db.Write(ctx, ws...)
	var err error
	some := false
	for _, w := range ws {
		some = some || w.Err == nil
		if err == nil || err != nil && w.Err != nil && task.NotCounted(err) {
			err = w.Err
		}
	}
	if err != nil && some { // of a part it is known that it was counted
		return &push.Error{Kind: push.KindUnavailable, Code: "store_unavailable", Detail: "only a part was counted", Err: err}
	}
	return failed(err)
}

// Counts returns what was counted of a task's message.
func (s *Store) Counts(ctx context.Context, p push.ProductID, id push.MsgID) (map[task.Life]task.Counts, error) {
	r, err := s.read(ctx, command("HEXISTS", tasksKey(p), name(id)), command("HGETALL", countsKey(p, id)))
	if err != nil {
		return nil, err
	}
	if there, _ := r.Replies[0].(int64); there == 0 {
		return nil, nil
	}
	all, _ := r.Replies[1].([]any)
	counts := make(map[task.Life]task.Counts)
	for i := 0; i+1 < len(all); i += 2 {
		f, _ := all[i].(string)
		v, _ := all[i+1].(string)
		k, l, ok := cutField(f)
		if !ok {
			return nil, damaged(errors.New("a count has no name"))
		}
		n, err := parseCount(v)
		if err != nil {
			return nil, err
		}
		if int(k) < task.Kinds { // a later version may count more
			c := counts[l]
			c[k] += n
			counts[l] = c
		}
	}
	if len(counts) == 0 {
		return nil, nil
	}
	return counts, nil
}
