package pebble

import (
	"bytes"
	"context"
	"errors"

	"carillon/server/embedded"
	"carillon/server/push"
	"carillon/server/task"
)

// put writes a task, as it is stored, in place of old, nil for none, with its places.
func put(b *embedded.Batch, t *task.Task, data []byte, old *task.Task) {
	key := ofID(sortTask, t.Product, t.ID)
	b.Set(key, data)
	if old != nil {
		unplace(b, old)
	}
	if t.Wake != 0 {
		b.Set(wakeKey(t), nil)
	}
	if until := task.KeptUntil(t); until != 0 {
		b.Set(endKey(until, key), nil)
	}
}

// unplace takes a task out of its places.
func unplace(b *embedded.Batch, t *task.Task) {
	if t.Wake != 0 {
		b.Delete(wakeKey(t))
	}
	if until := task.KeptUntil(t); until != 0 {
		b.Delete(endKey(until, ofID(sortTask, t.Product, t.ID)))
	}
}

// remove forgets a task, and its counts.
func remove(b *embedded.Batch, t *task.Task) {
	b.Delete(ofID(sortTask, t.Product, t.ID))
	unplace(b, t)
	counts := ofID(sortCount, t.Product, t.ID)
	b.DeleteRange(counts, embedded.PrefixEnd(counts))
}

func requestKey(p push.ProductID, name string) []byte {
	return embedded.AppendKeyString(ofProduct(sortKey, p), name)
}

// Create stores a task.
func (s *Store) Create(ctx context.Context, t task.Task, key task.Key) (made task.Task, repeated bool, err error) {
	err = s.writeTask(ctx, func(b *embedded.Batch, now push.MilliTime) (err error) {
		var old *task.KeyRecord
		if key.Name != "" {
			if old, err = s.request(requestKey(t.Product, key.Name)); err != nil {
				return err
			}
			if old != nil {
				if made, repeated, err = old.Answer(key, now); repeated || err != nil {
					return err
				}
			}
		}
		data, err := task.EncodeMade(t, now)
		if err != nil {
			return err
		}
		was, err := s.get(ofID(sortTask, t.Product, t.ID))
		if err != nil {
			return err
		}
		if was != nil {
			same, err := task.SameTask(was, data)
			if err != nil {
				return err
			}
			if !same {
				return task.ErrExists()
			}
			data = was
		}
		if made, err = task.Decode(data); err != nil {
			return err
		}
		if was == nil {
			put(b, &made, data, nil)
		}
		if key.Name != "" {
			k := requestKey(t.Product, key.Name)
			if old != nil {
				b.Delete(endKey(old.At.Add(task.KeyKept), k))
			}
			b.Set(k, task.EncodeKey(task.KeyRecord{Digest: key.Digest, At: now, Task: data}))
			b.Set(endKey(now.Add(task.KeyKept), k), nil)
		}
		return nil
	})
	if err != nil {
		return task.Task{}, false, err
	}
	return made, repeated, nil
}

// request reads what is kept of an idempotency key; nil if there is nothing.
func (s *Store) request(key []byte) (*task.KeyRecord, error) {
	b, err := s.get(key)
	if err != nil || b == nil {
		return nil, err
	}
	r, err := task.DecodeKey(b)
	return &r, err
}

// task reads a task, also as it is stored.
func (s *Store) task(p push.ProductID, id push.MsgID) (t task.Task, data []byte, err error) {
	data, err = s.get(ofID(sortTask, p, id))
	if err != nil {
		return t, nil, err
	}
	if data == nil {
		return t, nil, task.ErrNotFound()
	}
	t, err = task.Decode(data)
	return t, data, err
}

// Task returns a task.
func (s *Store) Task(ctx context.Context, p push.ProductID, id push.MsgID) (task.Task, error) {
	if err := s.usable(ctx); err != nil {
		return task.Task{}, err
	}
	t, _, err := s.task(p, id)
	return t, err
}

// Tasks returns tasks of a product, the newest ids first.
func (s *Store) Tasks(ctx context.Context, q task.Query) (page task.Page, err error) {
	if err := s.usable(ctx); err != nil {
		return page, err
	}
	if err := q.Check(); err != nil {
		return page, err
	}
	looked, last := 0, push.MsgID(0)
	err = s.walk(ofProduct(sortTask, q.Product), below(sortTask, q.Product, q.Before), true, func(_, value []byte) (bool, error) {
		if len(page.Tasks) == q.Limit || looked == task.ScanMost() {
			page.Before = last
			return false, nil
		}
		t, err := task.Decode(value)
		if err != nil {
			return false, err
		}
		if q.Matches(&t) {
			page.Tasks = append(page.Tasks, t)
		}
		looked, last = looked+1, t.ID
		return true, nil
	})
	if err != nil {
		return task.Page{}, err
	}
	return page, nil
}

// Update changes a task.
func (s *Store) Update(ctx context.Context, p push.ProductID, id push.MsgID, change func(t *task.Task, now push.MilliTime) error) (task.Task, error) {
	for {
		if err := s.usable(ctx); err != nil {
			return task.Task{}, err
		}
		now := s.now()
		t, was, err := s.task(p, id)
		if err != nil {
			return task.Task{}, err
		}
		old := task.Task{Product: p, ID: id, State: t.State, Changed: t.Changed, Wake: t.Wake}
		old.Run.Ended = t.Run.Ended
		revision, created := t.Revision+1, t.Created
		if err := change(&t, now); errors.Is(err, task.ErrUnchanged) {
			if err := s.db.Flushed(ctx); err != nil {
				return task.Task{}, failed(err)
			}
			return task.Decode(was)
		} else if err != nil {
			return task.Task{}, err
		}
		t.Product, t.ID, t.Revision, t.Created = p, id, revision, created
		data, err := task.Encode(&t)
		if err != nil {
			return task.Task{}, err
		}
		done := false
		err = s.writeTask(ctx, func(b *embedded.Batch, _ push.MilliTime) error {
			is, err := s.get(ofID(sortTask, p, id))
			if err != nil {
				return err
			}
			if done = bytes.Equal(is, was); done {
				put(b, &t, data, &old)
			}
			return nil
		})
		if err != nil {
			return task.Task{}, err
		}
		if done {
			return t, nil
		}
	}
}

// Due returns tasks that somebody has to look at.
func (s *Store) Due(ctx context.Context, limit int) (due []task.Ref, now push.MilliTime, err error) {
	if err := s.usable(ctx); err != nil {
		return nil, 0, err
	}
	now = s.now()
	prefix := keyOf(sortWake)
	err = s.walk(prefix, embedded.AppendKeyUint64(keyOf(sortWake), uint64(now)+1), false, func(key, _ []byte) (bool, error) {
		if len(due) >= limit {
			return false, nil
		}
		id, rest, err := embedded.CutKeyUint64(key[min(len(key), len(prefix)+8):])
		if err != nil {
			return false, damaged(err)
		}
		p, _, err := embedded.CutKeyString(rest)
		if err != nil {
			return false, damaged(err)
		}
		due = append(due, task.Ref{Product: push.ProductID(p), ID: push.MsgID(id)})
		return true, nil
	})
	return due, now, err
}

// Delete forgets a task that has ended.
func (s *Store) Delete(ctx context.Context, p push.ProductID, id push.MsgID) (there bool, err error) {
	err = s.write(ctx, func(b *embedded.Batch, _ push.MilliTime) error {
		t, _, err := s.task(p, id)
		switch {
		case push.KindOf(err) == push.KindNotFound:
			return nil
		case err != nil:
			return err
		case !t.State.Ended():
			return task.ErrNotEnded(t.State)
		}
		there = true
		remove(b, &t)
		return nil
	})
	return there && err == nil, err
}

// SetSwitch turns all tasks of a product off, or on again.
func (s *Store) SetSwitch(ctx context.Context, p push.ProductID, to task.Switch) error {
	return s.write(ctx, func(b *embedded.Batch, _ push.MilliTime) error {
		data, err := task.EncodeSwitch(to)
		b.Set(ofProduct(sortSwitch, p), data)
		return err
	})
}

// Switch returns the product's switch.
func (s *Store) Switch(ctx context.Context, p push.ProductID) (task.Switch, error) {
	if err := s.usable(ctx); err != nil {
		return task.Switch{}, err
	}
	b, err := s.get(ofProduct(sortSwitch, p))
	if err != nil || b == nil {
		return task.Switch{}, err
	}
	return task.DecodeSwitch(b)
}

// sweptAtOnce is how many things a part of a sweep clears away at most.
const sweptAtOnce = 100

// Sweep clears away what has outlived its time, by the places among the ends.
func (s *Store) Sweep(ctx context.Context) (more bool, err error) {
	err = s.write(ctx, func(b *embedded.Batch, now push.MilliTime) error {
		n, from := 0, keyOf(sortEnd)
		return s.walk(from, embedded.AppendKeyUint64(keyOf(sortEnd), uint64(now)+1), false, func(place, _ []byte) (bool, error) {
			if n == sweptAtOnce {
				more = true
				return false, nil
			}
			n++
			if len(place) < len(from)+9 {
				return false, damaged(errors.New("a place among the ends is cut short"))
			}
			b.Delete(place)
			return true, s.expire(b, append([]byte{byte(embedded.SpaceTasks)}, place[len(from)+8:]...))
		})
	})
	return more && err == nil, err
}

// expire forgets what lies under a key, whose time has come.
func (s *Store) expire(b *embedded.Batch, key []byte) error {
	switch key[1] {
	case sortTask:
		data, err := s.get(key)
		if err != nil || data == nil {
			return err
		}
		t, err := task.Decode(data)
		if err == nil {
			remove(b, &t)
		}
		return err
	case sortKey:
		b.Delete(key)
	case sortUntil:
		forget(b, key)
	}
	return nil
}
