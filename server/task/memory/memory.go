// Package memory is the store of tasks of a single process: everything lives in this process and ends with it. It serves tests and gateways
// without a store.
//
// All of it lies under one lock, which is held for the time of a look into a map, and never while a caller's function runs. Tasks and lists are kept as
// other stores keep them, encoded, so that nothing that a caller has is shared.
package memory

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"carillon/server/clock"
	"carillon/server/push"
	"carillon/server/task"
)

// Config says how a store is made. Its zero value is useful.
type Config struct {
	Clock clock.Clock // clock.System if nil
}

// Store is a task.Store. All methods are safe for concurrent use.
type Store struct {
	clock clock.Clock // static

	mu       sync.Mutex // guards all below
	closed   bool
	products map[push.ProductID]*product
}

var _ task.Store = (*Store)(nil)

// product is all that there is of one product.
type product struct {
	tasks  map[push.MsgID]*row
	keys   map[string]task.KeyRecord
	off    task.Switch
	lists  map[push.MsgID]*list
	counts map[push.MsgID]map[task.Life]task.Counts
}

// row is a task: as it is stored, and what is asked of it most. The first never changes, another takes its place.
type row struct {
	data     []byte
	revision int64
	state    task.State
	parent   push.MsgID
	wake     push.MilliTime
	until    push.MilliTime // when it is forgotten; 0: not yet
}

// New returns an empty store.
func New(c Config) *Store {
	if c.Clock == nil {
		c.Clock = clock.System
	}
	return &Store{clock: c.Clock, products: make(map[push.ProductID]*product)}
}

// Close makes every later call fail.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed, s.products = true, nil
	return nil
}

// do runs f under the lock.
func (s *Store) do(ctx context.Context, f func(now push.MilliTime) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return task.ErrClosed()
	}
	if err := ctx.Err(); err != nil {
		return task.ErrUnavailable(err)
	}
	return f(push.Milli(s.clock.Now()))
}

// product returns what there is of a product, made if there is nothing; Sweep takes it away if nothing comes.
func (s *Store) product(p push.ProductID) *product {
	of := s.products[p]
	if of == nil {
		of = &product{
			tasks: make(map[push.MsgID]*row), keys: make(map[string]task.KeyRecord), lists: make(map[push.MsgID]*list),
			counts: make(map[push.MsgID]map[task.Life]task.Counts),
		}
		s.products[p] = of
	}
	return of
}

// newRow returns a task as it is kept.
func newRow(t *task.Task) (*row, error) {
	b, err := task.Encode(t)
	return &row{b, t.Revision, t.State, t.Parent, t.Wake, task.KeptUntil(t)}, err
}

// Create stores a task.
func (s *Store) Create(ctx context.Context, t task.Task, key task.Key) (made task.Task, repeated bool, err error) {
	err = s.do(ctx, func(now push.MilliTime) (err error) {
		of := s.product(t.Product)
		if k, ok := of.keys[key.Name]; ok && key.Name != "" {
			if made, repeated, err = k.Answer(key, now); repeated || err != nil {
				return err
			}
		}
		t.Revision, t.Created = 1, now
		r, err := newRow(&t)
		if err != nil {
			return err
		}
		if was := of.tasks[t.ID]; was != nil {
			same, err := task.SameTask(was.data, r.data)
			if err != nil {
				return err
			}
			if !same {
				return task.ErrExists()
			}
			r = was
		}
		of.tasks[t.ID] = r
		if key.Name != "" {
			of.keys[key.Name] = task.KeyRecord{Digest: key.Digest, At: now, Task: r.data}
		}
		made, err = task.Decode(r.data)
		return err
	})
	if err != nil {
		return task.Task{}, false, err
	}
	return made, repeated, nil
}

// Task returns a task.
func (s *Store) Task(ctx context.Context, p push.ProductID, id push.MsgID) (t task.Task, err error) {
	r, _, err := s.row(ctx, p, id)
	if err != nil {
		return t, err
	}
	return task.Decode(r.data)
}

// row returns a task as it is kept, and the time.
func (s *Store) row(ctx context.Context, p push.ProductID, id push.MsgID) (r *row, at push.MilliTime, err error) {
	err = s.do(ctx, func(now push.MilliTime) error {
		r, at = s.product(p).tasks[id], now
		if r == nil {
			return task.ErrNotFound()
		}
		return nil
	})
	return r, at, err
}

// Tasks returns tasks of a product, the newest ids first.
func (s *Store) Tasks(ctx context.Context, q task.Query) (page task.Page, err error) {
	if err := q.Check(); err != nil {
		return page, err
	}
	var found []*row
	err = s.do(ctx, func(push.MilliTime) error {
		of := s.product(q.Product)
		ids := newestFirst(of.tasks, q.Before)
		for i, id := range ids {
			if len(found) == q.Limit || i == task.ScanMost() {
				page.Before = ids[i-1]
				break
			}
			r := of.tasks[id]
			if q.Matches(&task.Task{State: r.state, Parent: r.parent}) {
				found = append(found, r)
			}
		}
		return nil
	})
	for _, r := range found {
		t, err := task.Decode(r.data)
		if err != nil {
			return task.Page{}, err
		}
		page.Tasks = append(page.Tasks, t)
	}
	return page, err
}

// newestFirst returns the ids below before, all if that is 0, in descending order.
func newestFirst[V any](of map[push.MsgID]V, before push.MsgID) (ids []push.MsgID) {
	for id := range of {
		if before == 0 || id < before {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b push.MsgID) int { return cmp.Compare(b, a) })
	return ids
}

// Update changes a task.
func (s *Store) Update(ctx context.Context, p push.ProductID, id push.MsgID, change func(t *task.Task, now push.MilliTime) error) (task.Task, error) {
	for {
		was, now, err := s.row(ctx, p, id)
		if err != nil {
			return task.Task{}, err
		}
		t, err := task.Decode(was.data)
		if err != nil {
			return task.Task{}, err
		}
		created := t.Created
		if err := change(&t, now); errors.Is(err, task.ErrUnchanged) {
			return task.Decode(was.data)
		} else if err != nil {
			return task.Task{}, err
		}
		t.Product, t.ID, t.Revision, t.Created = p, id, was.revision+1, created
		next, err := newRow(&t)
		if err != nil {
			return task.Task{}, err
		}
		done := false
		err = s.do(ctx, func(push.MilliTime) error {
			of := s.product(p)
			if done = of.tasks[id] == was; done {
				of.tasks[id] = next
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
func (s *Store) Due(ctx context.Context, limit int) (due []task.Ref, at push.MilliTime, err error) {
	type late struct {
		task.Ref
		wake push.MilliTime
	}
	var all []late
	err = s.do(ctx, func(now push.MilliTime) error {
		at = now
		for p, of := range s.products {
			for id, r := range of.tasks {
				if r.wake != 0 && r.wake <= now {
					all = append(all, late{task.Ref{Product: p, ID: id}, r.wake})
				}
			}
		}
		return nil
	})
	slices.SortFunc(all, func(a, b late) int {
		return cmp.Or(cmp.Compare(a.wake, b.wake), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Product, b.Product))
	})
	for _, l := range all[:min(len(all), max(limit, 0))] {
		due = append(due, l.Ref)
	}
	return due, at, err
}

// Delete forgets a task that has ended.
func (s *Store) Delete(ctx context.Context, p push.ProductID, id push.MsgID) (there bool, err error) {
	err = s.do(ctx, func(push.MilliTime) error {
		of := s.product(p)
		r := of.tasks[id]
		if r == nil {
			return nil
		}
		if !r.state.Ended() {
			return task.ErrNotEnded(r.state)
		}
		there = true
		delete(of.tasks, id)
		delete(of.counts, id)
		return nil
	})
	return there, err
}

// SetSwitch turns all tasks of a product off, or on again.
func (s *Store) SetSwitch(ctx context.Context, p push.ProductID, to task.Switch) error {
	return s.do(ctx, func(push.MilliTime) error {
		s.product(p).off = to
		return nil
	})
}

// Switch returns the product's switch.
func (s *Store) Switch(ctx context.Context, p push.ProductID) (is task.Switch, err error) {
	err = s.do(ctx, func(push.MilliTime) error {
		is = s.product(p).off
		return nil
	})
	return is, err
}

// Count adds to the counts of tasks.
func (s *Store) Count(ctx context.Context, cs []task.Counted) error {
	return s.do(ctx, func(push.MilliTime) error {
		for _, c := range cs {
			of := s.product(c.Product)
			if of.tasks[c.Task] == nil {
				continue
			}
			lives := of.counts[c.Task]
			if lives == nil {
				lives = make(map[task.Life]task.Counts)
				of.counts[c.Task] = lives
			}
			n := lives[c.Life]
			n.Add(c.Counts)
			lives[c.Life] = n
		}
		return nil
	})
}

// Counts returns what was counted of a task's message.
func (s *Store) Counts(ctx context.Context, p push.ProductID, id push.MsgID) (all map[task.Life]task.Counts, err error) {
	err = s.do(ctx, func(push.MilliTime) error {
		all = maps.Clone(s.product(p).counts[id])
		return nil
	})
	return all, err
}

// Sweep clears away what has outlived its time, all of it at once.
func (s *Store) Sweep(ctx context.Context) (more bool, err error) {
	return false, s.do(ctx, func(now push.MilliTime) error {
		for p, of := range s.products {
			for id, r := range of.tasks {
				if r.until != 0 && r.until <= now {
					delete(of.tasks, id)
					delete(of.counts, id)
				}
			}
			for name, k := range of.keys {
				if now >= k.At.Add(task.KeyKept) {
					delete(of.keys, name)
				}
			}
			for id, l := range of.lists {
				if l.until <= now {
					delete(of.lists, id)
				}
			}
			if len(of.tasks) == 0 && len(of.keys) == 0 && len(of.lists) == 0 && of.off == (task.Switch{}) {
				delete(s.products, p)
			}
		}
		return nil
	})
}
