package center

import (
	"context"
	"slices"

	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/task"
)

// takeBack takes back what was written.
func (r *taskRun) takeBack(ctx context.Context) error {
	t := r.now()
	var tested int64
	if t.Run.Settled && r.message.Persistent {
		if err := r.begin(ctx, &t.Run); err != nil && push.KindOf(err) != push.KindNotFound {
			return err
		}
		if err := r.recount(ctx); err != nil {
			return err
		}
		if len(t.Run.Back) == 0 {
			err := r.update(ctx, func(t *task.Task, _ push.MilliTime) error {
				t.Run.Back = make(task.Progress, t.Run.Shards)
				return nil
			})
			if err != nil {
				return err
			}
		}
		var err error
		if tested, err = r.takeBackTest(ctx); err != nil {
			return err
		}
		if err := r.inLanes(ctx, r.backLane); err != nil {
			return err
		}
	}
	return r.update(ctx, func(t *task.Task, now push.MilliTime) error {
		if t.Run.Recalled == 0 { // a second recall finds all of the test group taken back
			t.Run.Returned += tested
		}
		t.Run.Recalled = now
		return t.Do(task.TakenBack, nil, "", now)
	})
}

// takeBackTest takes back what the test group got, and returns from how many users.
func (r *taskRun) takeBackTest(ctx context.Context) (users int64, err error) {
	if len(r.spec.Test) == 0 {
		return 0, nil
	}
	bs, err := r.testBatches(ctx)
	if err != nil {
		return 0, err
	}
	for part := range slices.Chunk(bs, callBatches) {
		absent, err := r.back(ctx, part)
		if err != nil {
			return 0, err
		}
		for i, b := range part {
			if !absent[i] {
				users += int64(len(b.Own))
			}
		}
	}
	return users, nil
}

// back takes batches back, and returns of which there was nothing to take back.
func (r *taskRun) back(ctx context.Context, bs []*saver.Batch) (absent []bool, err error) {
	absent = make([]bool, len(bs))
	for _, b := range bs {
		b.Recall, b.Bodies = true, nil
	}
	err = r.again(ctx, func() error {
		done := r.c.cfg.Saver.Batches(ctx, bs)
		places := make([]*saver.Batched, len(done))
		for i := range done {
			if err := done[i].Err; err != nil {
				return err
			}
			places[i], absent[i] = &done[i], done[i].Absent
		}
		r.tell(ctx, bs, places)
		return nil
	})
	return absent, err
}

// backLane takes back what was written in some shards: all that the checkpoint says is written, and what whoever ran the task before may have written after it.
func (r *taskRun) backLane(ctx context.Context, shards []*shardWork) error {
	for len(shards) > 0 {
		n := min(len(shards), callBatches)
		again, err := r.backStep(ctx, shards[:n])
		if err != nil {
			return err
		}
		shards = append(append([]*shardWork{}, shards[n:]...), again...)
	}
	return ctx.Err()
}

// backStep takes back one batch of each of some shards, and returns those that go on.
func (r *taskRun) backStep(ctx context.Context, shards []*shardWork) (again []*shardWork, err error) {
	run := r.now().Run
	var bs []*saver.Batch
	var of []*shardWork
	for _, w := range shards {
		b, _, ok, err := r.batchAt(ctx, w, int(run.Back[w.shard]))
		switch {
		case err != nil:
			return nil, err
		case !ok:
			continue
		case len(b.Own) == 0 && !b.Everyone:
			r.tookBack(w.shard, 0)
			again = append(again, w)
			continue
		}
		bs, of = append(bs, b), append(of, w)
	}
	if len(bs) == 0 {
		return again, nil
	}
	absent, err := r.back(ctx, bs)
	if err != nil {
		return nil, err
	}
	for i, w := range of {
		switch {
		case !absent[i]:
			r.tookBack(w.shard, len(bs[i].Own))
		case bs[i].Number < int(run.Next[w.shard]):
			r.tookBack(w.shard, 0)
		default:
			continue // nothing was written from here on
		}
		again = append(again, w)
	}
	return again, nil
}

// tookBack notes that a batch of a shard is taken back from so many users.
func (r *taskRun) tookBack(shard push.Shard, users int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.t.Run.Back[shard]++
	r.t.Run.Returned += int64(users)
}
