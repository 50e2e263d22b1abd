package center

import (
	"context"
	"slices"

	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/task"
)

// newBatch makes a batch without users.
func (r *taskRun) newBatch(shard push.Shard, number int) *saver.Batch {
	return &saver.Batch{Product: r.ref.Product, Shards: r.plan.shards, Limits: r.limits, Message: r.message, Token: r.token, Shard: shard, Number: number}
}

// batchOf makes the batch of some users of a list: those of the test group have the message already, and are left out.
func (r *taskRun) batchOf(shard push.Shard, number int, entries []task.Entry, test bool) (b *saver.Batch, skipped int) {
	b = r.newBatch(shard, number)
	made := r.made()
	for i := range entries {
		e := &entries[i]
		if !test && len(r.spec.Test) > 0 {
			if _, has := slices.BinarySearch(r.spec.Test, e.User); has {
				skipped++
				continue
			}
		}
		to := saver.Target{User: e.User, Filter: r.req.request.beside()}
		if made && !test && len(e.Values) > 0 {
			f := push.Filter{}
			if to.Filter != nil {
				f = *to.Filter
			}
			for _, d := range e.Values {
				f.Devices = append(f.Devices, push.DeviceID(d))
			}
			to.Filter = &f
		}
		b.Own = append(b.Own, to)
		if r.req.template != nil {
			b.Bodies = append(b.Bodies, r.req.template.fill(e.User, e.Values))
		}
	}
	return b, skipped
}

// beside returns what devices have to be beside their tags and names, nil if nothing.
func (q *request) beside() *push.Filter {
	if q.platforms == 0 && q.classes == nil {
		return nil
	}
	return &push.Filter{Platforms: q.platforms, Classes: q.classes}
}

// testEntries returns the test group by shard, with what the list tells of them if the message is a template.
func (r *taskRun) testEntries(ctx context.Context) (map[push.Shard][]task.Entry, error) {
	out := make(map[push.Shard][]task.Entry)
	for _, u := range r.spec.Test {
		shard := push.ShardOf(u, r.plan.shards)
		out[shard] = append(out[shard], task.Entry{User: u})
	}
	if r.req.template == nil || r.spec.List == 0 || r.plan.chunks == nil {
		return out, nil
	}
	for shard, entries := range out {
		for from := 0; ; {
			chunks, err := r.chunks(ctx, r.spec.List, shard, from)
			if err != nil {
				return nil, err
			}
			for _, ch := range chunks {
				for _, e := range ch.Entries {
					if at := slices.IndexFunc(entries, func(t task.Entry) bool { return t.User == e.User }); at >= 0 {
						entries[at].Values = e.Values
					}
				}
			}
			if from += len(chunks); len(chunks) < chunksAhead {
				break
			}
		}
	}
	return out, nil
}

func (r *taskRun) chunks(ctx context.Context, id push.MsgID, shard push.Shard, from int) (out []task.Chunk, err error) {
	err = r.again(ctx, func() error {
		out, err = r.c.cfg.Tasks.Chunks(ctx, task.ListRef{Product: r.ref.Product, ID: id}, shard, from, chunksAhead)
		return err
	})
	return out, err
}

// testBatches returns the batches of the test group.
func (r *taskRun) testBatches(ctx context.Context) (bs []*saver.Batch, err error) {
	byShard, err := r.testEntries(ctx)
	if err != nil {
		return nil, err
	}
	for shard := range push.Shard(r.plan.shards) {
		number := testNumbers
		for part := range slices.Chunk(byShard[shard], saver.BatchMost) {
			b, _ := r.batchOf(shard, number, part, true)
			bs = append(bs, b)
			number++
		}
	}
	return bs, nil
}

// shardWork is where a lane stands in one shard.
type shardWork struct {
	shard  push.Shard
	chunks []task.Chunk // read ahead
	end    bool         // there are no further ones behind them
}

// nextChunk returns the chunk of a number; ok is false if there is none. KindNotFound, "list_not_found": there was one, and the list is gone.
func (r *taskRun) nextChunk(ctx context.Context, w *shardWork, number int) (c task.Chunk, ok bool, err error) {
	for len(w.chunks) > 0 && w.chunks[0].Number < number {
		w.chunks = w.chunks[1:]
	}
	if len(w.chunks) == 0 && !w.end {
		if w.chunks, err = r.chunks(ctx, r.plan.list, w.shard, number); err != nil {
			return c, false, err
		}
		w.end = len(w.chunks) < chunksAhead
	}
	switch {
	case len(w.chunks) > 0:
		return w.chunks[0], true, nil
	case number < int(r.plan.chunks[w.shard]):
		return c, false, task.ErrListNotFound()
	}
	return c, false, nil
}

// commonBatch is the entry in the common slot of a shard.
func (r *taskRun) commonBatch(shard push.Shard) *saver.Batch {
	b := r.newBatch(shard, 0)
	b.Everyone, b.Filter = true, r.req.request.filter()
	return b
}

// inShard returns how many users and devices a shard is taken to have of those the task is for.
func (r *taskRun) inShard(shard push.Shard) counted {
	part := func(of int64) int64 {
		n, i := int64(max(r.plan.shards, 1)), int64(shard)
		return of*(i+1)/n - of*i/n
	}
	return counted{users: part(r.plan.users), devices: part(r.plan.reach)}
}

// batchAt returns the batch of a number as it was, or would be, written, and how many users of its chunk are left out; ok is false if there is none. Where the
// list is gone, what is on record says for whom it is.
func (r *taskRun) batchAt(ctx context.Context, w *shardWork, number int) (b *saver.Batch, skipped int, ok bool, err error) {
	if r.plan.common {
		return r.commonBatch(w.shard), 0, number == 0, nil
	}
	if r.plan.chunks != nil {
		c, ok, err := r.nextChunk(ctx, w, number)
		if err == nil || push.KindOf(err) != push.KindNotFound {
			if ok {
				b, skipped = r.batchOf(w.shard, number, c.Entries, false)
			}
			return b, skipped, ok, err
		}
	}
	var rs []*saver.BatchRecord
	ref := saver.BatchesRef{ShardRef: saver.ShardRef{Product: r.ref.Product, Shard: w.shard}, ID: r.ref.ID}
	err = r.again(ctx, func() (err error) {
		rs, err = r.c.cfg.Saver.BatchRecords(ctx, ref, []int{number})
		return err
	})
	if err != nil {
		return nil, 0, false, err
	}
	b = r.newBatch(w.shard, number)
	if rs[0] == nil { // not written, or all its users were left out
		return b, 0, number < int(r.now().Run.Next[w.shard]), nil
	}
	for _, p := range rs[0].Own {
		b.Own = append(b.Own, saver.Target{User: p.User, Filter: r.req.request.beside()})
	}
	return b, 0, true, nil
}
