package center

import (
	"context"
	"slices"
	"sync"

	"carillon/server/planted"
	"carillon/server/push"
	"carillon/server/register"
	"carillon/server/saver"
	"carillon/server/task"
)

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

// countAll is count, which goes on when the run has ended meanwhile: what is written is counted.
func (r *taskRun) countAll(ctx context.Context, bs []*saver.Batch, done []*saver.Batched) (counted, error) {
	n, err := r.count(ctx, bs, done)
	if err != nil && ctx.Err() != nil {
		ctx, cancel := r.c.finishing(ctx)
		defer cancel()
		n, err = r.count(ctx, bs, done)
	}
	return n, err
}

// tell tells the rooms of what was written, or taken back. It is a hint, as ever.
func (r *taskRun) tell(ctx context.Context, bs []*saver.Batch, done []*saver.Batched) {
	var shared deliveries
	var held *holders
	var like *push.Delivery
	for i, b := range bs {
		d := done[i]
		if b.Recall && d.Absent {
			continue
		}
		if b.Bodies != nil && !b.Recall {
			r.tellEach(b, d)
			continue
		}
		if like == nil || like.Lineage != d.Lineage {
			r.c.deliver(shared)
			shared = nil
			like = &push.Delivery{Product: r.ref.Product, Message: r.message, Lineage: d.Lineage, Filter: b.Filter}
			if b.Recall {
				like.Message, like.Recall = nil, r.message.ID
			}
		}
		shared.addOwn(like, d.Own, func(k int) *push.Filter { return b.Own[k].Filter })
		shared.addCommon(like, d.Common)
		if b.Filter != nil && b.Filter.Tags != nil && held == nil && len(d.Common) > 0 && len(d.Common[0].Rooms) > 0 {
			if tags := asks([]*push.TagExpr{b.Filter.Tags}); len(tags) > 0 {
				held, _ = r.c.holdersOf(ctx, r.ref.Product, tags) // where the register does not answer all rooms are told all
			}
		}
	}
	if like != nil && like.Message != nil {
		shared.withhold(held, like.Filter)
	}
	r.c.deliver(shared)
}

// tellEach tells the rooms of a batch in which each user has a body.
func (r *taskRun) tellEach(b *saver.Batch, d *saver.Batched) {
	for i := range d.Own {
		if len(d.Own[i].Rooms) == 0 {
			continue
		}
		m := *r.message
		m.Body = b.Bodies[i]
		var ds deliveries
		ds.addOwn(&push.Delivery{Product: r.ref.Product, Message: &m, Lineage: d.Lineage}, d.Own[i:i+1], func(int) *push.Filter { return b.Own[i].Filter })
		r.c.deliver(ds)
	}
}

// count counts the devices of the users whom batches were written for, and those of them that are online.
func (r *taskRun) count(ctx context.Context, bs []*saver.Batch, done []*saver.Batched) (n counted, err error) {
	var refs []saver.UserRef
	var filters []*push.Filter
	var online []push.UserID
	var who []int // of online, the index in refs
	for i, b := range bs {
		for k := range b.Own {
			if k < len(done[i].Own) && len(done[i].Own[k].Rooms) > 0 {
				who, online = append(who, len(refs)), append(online, b.Own[k].User)
			}
			refs = append(refs, saver.UserRef{Product: b.Product, Shards: b.Shards, User: b.Own[k].User})
			filters = append(filters, b.Own[k].Filter)
		}
	}
	if len(refs) == 0 {
		return n, nil
	}
	n.users = int64(len(refs))
	var devices [][]push.DeviceFacts
	var found [][]register.Found
	err = r.again(ctx, func() (err error) {
		if devices, err = r.c.cfg.Saver.Devices(ctx, refs); err != nil || len(online) == 0 {
			return err
		}
		found, err = r.c.cfg.Register.Lookup(ctx, r.ref.Product, online)
		return err
	})
	if err != nil {
		return n, err
	}
	admitted := func(i int, d push.DeviceID) bool {
		for _, f := range devices[i] {
			if f.Device == d {
				return filters[i].AdmitsBesideTags(f)
			}
		}
		return false
	}
	for i := range devices {
		for _, d := range devices[i] {
			if filters[i].AdmitsBesideTags(d) {
				n.devices++
			}
		}
	}
	for k := range found {
		seen := make(map[push.DeviceID]bool, len(found[k]))
		for _, f := range found[k] {
			if !seen[f.Device] && admitted(who[k], f.Device) {
				seen[f.Device] = true
				n.online++
			}
		}
	}
	return n, nil
}

// live hands a message that is not persistent to those users who are online. Before that reserve is called with what will have been done: so nobody gets it twice.
func (r *taskRun) live(ctx context.Context, to []saver.Target, bodies [][]byte, reserve func(counted) error) (n counted, err error) {
	users := make([]push.UserID, len(to))
	for i := range to {
		users[i] = to[i].User
	}
	var found [][]register.Found
	err = r.again(ctx, func() (err error) {
		found, err = r.c.cfg.Register.Lookup(ctx, r.ref.Product, users)
		return err
	})
	if err != nil {
		return n, err
	}
	n.users = int64(len(to))
	for i := range found {
		n.online += int64(len(found[i]))
	}
	n.devices = n.online
	if err := reserve(n); err != nil {
		return n, err
	}
	if bodies == nil {
		ds := ofUsers(r.ref.Product, to, found)
		for _, d := range ds {
			d.Message = r.message
		}
		r.c.deliver(ds)
		return n, nil
	}
	for i := range to {
		if len(found[i]) == 0 {
			continue
		}
		m := *r.message
		m.Body = bodies[i]
		ds := ofUsers(r.ref.Product, to[i:i+1], found[i:i+1])
		for _, d := range ds {
			d.Message = &m
		}
		r.c.deliver(ds)
	}
	return n, nil
}

// liveToList hands a message that is not persistent to the users of a list, one chunk after the other.
func (r *taskRun) liveToList(ctx context.Context) error {
	for i := range r.plan.shards {
		w := &shardWork{shard: push.Shard(i)}
		for {
			number := int(r.now().Run.Next[i])
			c, ok, err := r.nextChunk(ctx, w, number)
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			b, skipped := r.batchOf(w.shard, number, c.Entries, false)
			if err := r.pace.wait(ctx, len(b.Own), r.c.sleep); err != nil {
				return err
			}
			_, err = r.live(ctx, b.Own, b.Bodies, func(n counted) error {
				n.skipped = int64(skipped)
				r.c.metrics.taskUsers(n.users)
				return r.update(ctx, func(t *task.Task, _ push.MilliTime) error {
					t.Run.Next[i]++
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

// liveToAll hands a message that is not persistent to everyone, or to all who have some tags.
func (r *taskRun) liveToAll(ctx context.Context) error {
	if r.now().Run.Next[0] > 0 {
		return nil // whoever ran it before may have done it
	}
	q := r.req.request
	var tags []push.Tag
	if q.tags != nil {
		tags = asks([]*push.TagExpr{q.tags})
	}
	var rooms liveRooms
	err := r.again(ctx, func() (err error) {
		if rooms, err = r.c.roomsOf(ctx, r.ref.Product, nil, true, tags); err != nil {
			return unavailable(codeRoomsUnavailable, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	online := 0
	err = r.again(ctx, func() (err error) {
		online, err = r.c.cfg.Register.Count(ctx, r.ref.Product)
		return err
	})
	if err != nil {
		return err
	}
	err = r.update(ctx, func(t *task.Task, _ push.MilliTime) error {
		for i := range t.Run.Next {
			t.Run.Next[i] = 1
		}
		if q.tags == nil {
			addCounted(&t.Run, counted{devices: int64(online), online: int64(online)})
		}
		return nil
	})
	if err != nil {
		return err
	}
	ds := rooms.ofAll(r.ref.Product, q)
	for _, d := range ds {
		d.Message = r.message
	}
	r.c.deliver(ds)
	return nil
}

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

// tookBack notes that a batch of a shard is taken back from so many users.
func (r *taskRun) tookBack(shard push.Shard, users int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.t.Run.Back[shard]++
	r.t.Run.Returned += int64(users)
}
