package redis

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"carillon/server/clock"
	"carillon/server/push"
	"carillon/server/redisdb/redisdbtest"
	"carillon/server/redistest"
	"carillon/server/task"
	"carillon/server/task/tasktest"
)

// nodes is a store whose calls go to several nodes in turn.
type nodes struct {
	all  []*Store
	next atomic.Uint64
}

var _ task.Store = (*nodes)(nil)

func (n *nodes) one() *Store { return n.all[n.next.Add(1)%uint64(len(n.all))] }

func (n *nodes) Create(ctx context.Context, t task.Task, key task.Key) (task.Task, bool, error) {
	return n.one().Create(ctx, t, key)
}

func (n *nodes) Task(ctx context.Context, p push.ProductID, id push.MsgID) (task.Task, error) {
	return n.one().Task(ctx, p, id)
}

func (n *nodes) Tasks(ctx context.Context, q task.Query) (task.Page, error) {
	return n.one().Tasks(ctx, q)
}

func (n *nodes) Update(ctx context.Context, p push.ProductID, id push.MsgID, change func(t *task.Task, now push.MilliTime) error) (task.Task, error) {
	return n.one().Update(ctx, p, id, change)
}

func (n *nodes) Due(ctx context.Context, limit int) ([]task.Ref, push.MilliTime, error) {
	return n.one().Due(ctx, limit)
}

func (n *nodes) Delete(ctx context.Context, p push.ProductID, id push.MsgID) (bool, error) {
	return n.one().Delete(ctx, p, id)
}

func (n *nodes) SetSwitch(ctx context.Context, p push.ProductID, s task.Switch) error {
	return n.one().SetSwitch(ctx, p, s)
}

func (n *nodes) Switch(ctx context.Context, p push.ProductID) (task.Switch, error) {
	return n.one().Switch(ctx, p)
}

func (n *nodes) PutChunks(ctx context.Context, ref task.ListRef, cs []task.Chunk) error {
	return n.one().PutChunks(ctx, ref, cs)
}

func (n *nodes) CreateList(ctx context.Context, l task.List) (task.List, error) {
	return n.one().CreateList(ctx, l)
}

func (n *nodes) List(ctx context.Context, ref task.ListRef) (task.List, error) {
	return n.one().List(ctx, ref)
}

func (n *nodes) Lists(ctx context.Context, p push.ProductID, before push.MsgID, limit int) ([]task.List, error) {
	return n.one().Lists(ctx, p, before, limit)
}

func (n *nodes) Chunks(ctx context.Context, ref task.ListRef, s push.Shard, from, limit int) ([]task.Chunk, error) {
	return n.one().Chunks(ctx, ref, s, from, limit)
}

func (n *nodes) KeepList(ctx context.Context, ref task.ListRef) error {
	return n.one().KeepList(ctx, ref)
}

func (n *nodes) DeleteList(ctx context.Context, ref task.ListRef) (bool, error) {
	return n.one().DeleteList(ctx, ref)
}

func (n *nodes) Count(ctx context.Context, cs []task.Counted) error { return n.one().Count(ctx, cs) }

func (n *nodes) Counts(ctx context.Context, p push.ProductID, id push.MsgID) (map[task.Life]task.Counts, error) {
	return n.one().Counts(ctx, p, id)
}

func (n *nodes) Sweep(ctx context.Context) (bool, error) { return n.one().Sweep(ctx) }

func (n *nodes) Close() error {
	var errs []error
	for _, s := range n.all {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// TestConformance_OverNodes has whatever one node writes be read, and raced for, by others.
func TestConformance_OverNodes(t *testing.T) {
	tasktest.Run(t, maker(redistest.FormStandalone, func(t *testing.T, of *redistest.Redis, c clock.Clock) task.Store {
		n := &nodes{}
		for range 3 {
			n.all = append(n.all, open(t, redisdbtest.Open(t, of, c)))
		}
		return n
	}))
}
