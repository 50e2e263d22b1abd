package center

import (
	"context"
	"sync"

	"carillon/server/planted"
	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/task"
)

// writeTest writes to the test group. What is not persistent is noted as done before somebody gets it.
func (r *taskRun) writeTest(ctx context.Context) error {
	bs, err := r.testBatches(ctx)
	if err != nil {
		return err
	}
	for from := int(r.now().Run.TestNext); from < len(bs); {
		part := bs[from:min(len(bs), from+callBatches)]
		from += len(part)
		if r.message.Persistent {
			_, n, err := r.batches(ctx, part)
			if err != nil {
				return err
			}
			r.wroteTest(len(part), n)
			continue
		}
		for _, b := range part {
			_, err := r.live(ctx, b.Own, b.Bodies, func(n counted) error {
				r.c.metrics.taskUsers(n.users)
				return r.update(ctx, func(t *task.Task, _ push.MilliTime) error {
					t.Run.TestNext++
					addCounted(&t.Run, n)
					return nil
				})
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// wroteTest notes that batches of the test group are written, for the next checkpoint.
func (r *taskRun) wroteTest(batches int, n counted) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.t.Run.TestNext += uint32(batches)
	addCounted(&r.t.Run, n)
	r.c.metrics.taskUsers(n.users)
}

// inLanes divides the shards among lanes that write side by side, and returns the first error.
func (r *taskRun) inLanes(ctx context.Context, lane func(ctx context.Context, shards []*shardWork) error) error {
	lanes := make([][]*shardWork, writeLanes)
	for i := range r.plan.shards {
		lanes[i%writeLanes] = append(lanes[i%writeLanes], &shardWork{shard: push.Shard(i)})
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for _, shards := range lanes {
		all.Go(func() {
			if err := lane(ctx, shards); err != nil {
				cancel(err)
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// step is what a lane does in one call: a batch of each of some shards.
type step struct {
	parts  []part
	weight int // for the pace
}

// part is what a step does in one shard.
type part struct {
	shard push.Shard
	batch *saver.Batch // nil: all users of the chunk are left out
	n     counted      // beside what is counted of the batch
}

// batches returns the batches of a step.
func (s *step) batches() (bs []*saver.Batch) {
	for _, p := range s.parts {
		if p.batch != nil {
			bs = append(bs, p.batch)
		}
	}
	return bs
}

// lane writes the shards of a lane, one batch of each in turn.
func (r *taskRun) lane(ctx context.Context, shards []*shardWork) error {
	for len(shards) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		st, left, err := r.nextStep(ctx, shards)
		if err != nil {
			return err
		}
		shards = left
		if err := r.pace.wait(ctx, st.weight, r.c.sleep); err != nil {
			return err
		}
		bs := st.batches()
		if planted.Is(planted.TaskCheckpointFirst) {
			if err := r.checkpointFirst(ctx, st); err != nil {
				return err
			}
			st = step{}
		}
		done, n, err := r.batches(ctx, bs)
		r.wrote(st, done, n)
		if err != nil {
			return err
		}
	}
	return nil
}

// checkpointFirst is a planted bug: it stores a step as done, and leaves what is to be counted of it for later.
func (r *taskRun) checkpointFirst(ctx context.Context, st step) error {
	done := make(map[*saver.Batch]bool)
	for _, b := range st.batches() {
		done[b] = true
	}
	r.wrote(st, done, counted{})
	return r.update(ctx, func(*task.Task, push.MilliTime) error { return nil })
}

// wrote notes what a step did, for the next checkpoint: of its batches those that are written.
func (r *taskRun) wrote(st step, done map[*saver.Batch]bool, n counted) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range st.parts {
		if p.batch == nil || done[p.batch] {
			r.t.Run.Next[p.shard]++
			n.add(p.n)
		}
	}
	addCounted(&r.t.Run, n)
	r.c.metrics.taskUsers(n.users)
}

// nextStep gathers the next batches of the first shards, and returns the shards in the order in which they go on: those that were done go behind the others,
// those that are finished are left out.
func (r *taskRun) nextStep(ctx context.Context, shards []*shardWork) (st step, left []*shardWork, err error) {
	most := r.pace.most()
	i, batches := 0, 0
	var again []*shardWork
	for ; i < len(shards) && batches < r.width.get() && len(st.parts) < callBatches && (st.weight < most || st.weight == 0); i++ {
		w := shards[i]
		r.mu.Lock()
		number := int(r.t.Run.Next[w.shard])
		r.mu.Unlock()
		if r.plan.common {
			if number == 0 {
				in := r.inShard(w.shard)
				st.parts = append(st.parts, part{w.shard, r.commonBatch(w.shard), in})
				batches++
				st.weight += int(max(in.users, in.devices, unknownUsers))
			}
			continue
		}
		c, ok, err := r.nextChunk(ctx, w, number)
		if err != nil {
			return st, nil, err
		}
		if !ok {
			continue
		}
		b, skipped := r.batchOf(w.shard, number, c.Entries, false)
		st.weight += len(b.Own)
		if batches++; len(b.Own) == 0 {
			b, batches = nil, batches-1
		}
		st.parts = append(st.parts, part{w.shard, b, counted{skipped: int64(skipped)}})
		again = append(again, w)
	}
	return st, append(append([]*shardWork{}, shards[i:]...), again...), nil
}

// batches writes batches, again as long as the store cannot be used, tells the rooms, and counts. With an error too it returns which of them are written, and
// what is to be counted of those.
func (r *taskRun) batches(ctx context.Context, bs []*saver.Batch) (written map[*saver.Batch]bool, n counted, err error) {
	written = make(map[*saver.Batch]bool, len(bs))
	for wait := againFirst; len(bs) > 0; wait = min(2*wait, againMost) {
		began := r.c.cfg.Clock.Now()
		done := r.c.cfg.Saver.Batches(ctx, bs)
		r.width.took(len(bs), r.c.cfg.Clock.Now().Sub(began))
		var left, told []*saver.Batch
		var places []*saver.Batched
		var refused error
		for i := range done {
			switch err := done[i].Err; {
			case err == nil:
				told, places = append(told, bs[i]), append(places, &done[i])
			case push.KindOf(err) == push.KindUnavailable:
				left = append(left, bs[i])
			default:
				refused = err
			}
		}
		r.tell(ctx, told, places)
		one, err := r.countAll(ctx, told, places)
		if err != nil {
			return written, n, err
		}
		for _, b := range told {
			written[b] = true
		}
		n.add(one)
		if refused != nil {
			return written, n, refused
		}
		if bs = left; len(bs) > 0 {
			if err := r.c.sleep(ctx, wait); err != nil {
				return written, n, err
			}
		}
	}
	return written, n, nil
}
