package center

import (
	"context"

	"carillon/server/catalog"
	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/task"
)

// recountTask counts what was written of a task that was taken from whoever ran it, after the checkpoint that was stored last: batches that are on
// record. It holds no lease: if the task changes meanwhile, what was counted is thrown away. Before it looks it sees to it that nobody writes any more: whoever took
// the task away may not have come to that.
func (c *Center) recountTask(ctx context.Context, product *catalog.Product, t task.Task) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	was := t.Revision
	if err := c.shut(ctx, product, &t); err != nil {
		return err
	}
	var counted task.Run
	r, err := c.newTaskRun(product, t, cancel)
	switch {
	case err != nil: // it cannot be run any more either
		counted = t.Run
	default:
		if err = r.begin(ctx, &t.Run); err != nil && push.KindOf(err) != push.KindNotFound {
			return err
		}
		if err = r.beyond(ctx); err != nil && push.KindOf(err) != push.KindNotFound {
			return err
		}
		counted = r.now().Run
	}
	_, err = c.cfg.Tasks.Update(ctx, t.Product, t.ID, func(t *task.Task, _ push.MilliTime) error {
		if t.Revision != was {
			return errLost
		}
		t.Run = counted
		t.Run.Recount = false
		t.SetWake()
		return nil
	})
	return err
}

// recount does the same for a run that holds the lease.
func (r *taskRun) recount(ctx context.Context) error {
	if !r.now().Run.Recount {
		return nil
	}
	if err := r.beyond(ctx); err != nil {
		return err
	}
	return r.update(ctx, func(t *task.Task, _ push.MilliTime) error {
		t.Run.Recount = false
		return nil
	})
}

// beyond moves the progress on over all batches that are on record, and counts them.
func (r *taskRun) beyond(ctx context.Context) error {
	run := r.now().Run
	if !run.Settled || !r.message.Persistent {
		return nil
	}
	if !run.TestDone && len(r.spec.Test) > 0 {
		bs, err := r.testBatches(ctx)
		if err != nil {
			return err
		}
		for _, b := range bs[min(len(bs), int(run.TestNext)):] {
			n, written, err := r.isWritten(ctx, b)
			if err != nil || !written {
				return err
			}
			r.wroteTest(1, n)
		}
		return nil // nothing else is written before all of it is
	}
	return r.inLanes(ctx, func(ctx context.Context, shards []*shardWork) error {
		for _, w := range shards {
			for {
				on, err := r.oneBeyond(ctx, w)
				if err != nil {
					return err
				}
				if !on {
					break
				}
			}
		}
		return nil
	})
}

// oneBeyond looks at one batch of a shard, and reports whether there may be another behind it.
func (r *taskRun) oneBeyond(ctx context.Context, w *shardWork) (on bool, err error) {
	r.mu.Lock()
	number := int(r.t.Run.Next[w.shard])
	r.mu.Unlock()
	b, skipped, ok, err := r.batchAt(ctx, w, number)
	if err != nil || !ok {
		return false, err
	}
	n := counted{skipped: int64(skipped)}
	if len(b.Own) > 0 || b.Everyone {
		one, written, err := r.isWritten(ctx, b)
		if err != nil || !written {
			return false, err
		}
		if n.add(one); b.Everyone {
			n.add(r.inShard(b.Shard))
		}
	}
	r.wrote(step{parts: []part{{shard: w.shard}}}, nil, n)
	return true, nil
}

// isWritten reports whether a batch is on record, and counts its users.
func (r *taskRun) isWritten(ctx context.Context, b *saver.Batch) (n counted, written bool, err error) {
	ref := saver.BatchesRef{ShardRef: saver.ShardRef{Product: b.Product, Shard: b.Shard}, ID: r.message.ID}
	var found []*saver.BatchRecord
	err = r.again(ctx, func() error {
		found, err = r.c.cfg.Saver.BatchRecords(ctx, ref, []int{b.Number})
		return err
	})
	if err != nil || found[0] == nil {
		return n, false, err
	}
	n, err = r.count(ctx, []*saver.Batch{b}, []*saver.Batched{{}})
	return n, err == nil, err
}
