package redis

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"carillon/server/failpoint"
	"carillon/server/planted"
	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/saver"
)

const (
	// batchesMost bounds the batches of a task that are written together.
	batchesMost = 64
	// fenceSlack is how much longer than it is remembered a fence lies there, with the records of the batches under it.
	fenceSlack = time.Hour
)

// batchesKey is the hash of a message that is written in batches: its token in this shard, and the records of the shard's batches by number. It
// expires as a whole, some time after the fence is over.
func batchesKey(t redisdb.Tag, id push.MsgID) string {
	var buf [16]byte
	return t.Key(kindBatches, string(strconv.AppendInt(buf[:0], int64(id), 36)))
}

// Fence raises the token in every shard, all shards in one round trip of reads and one of writes. With them goes the body, if it is to be shared: nobody writes
// a batch under the token before all of that is answered.
func (s *Store) Fence(ctx context.Context, f saver.Fence) error {
	if err := s.enter("fence"); err != nil {
		return err
	}
	defer s.calls.Done()
	err := saver.CheckFence(&f)
	if err == nil {
		err = s.raise(ctx, &f)
	}
	if err != nil {
		return fmt.Errorf("saver: fence: %w", err)
	}
	return nil
}

func (s *Store) raise(ctx context.Context, f *saver.Fence) error {
	ops := make([]op, 0, f.Shards+1)
	fences := make([]fenceOp, f.Shards)
	bucket := f.Message != nil && len(f.Message.Body) > s.inline
	for i := range fences {
		o := &fences[i]
		o.f, o.bucket = f, bucket
		o.tag = tagOf(saver.ShardRef{Product: f.Product, Shard: push.Shard(i)})
		o.key = batchesKey(o.tag, f.ID)
		ops = append(ops, o)
	}
	body := bucketOp{f: f}
	if bucket {
		ops = append(ops, &body)
	}
	s.run(ctx, ops, nil)
	failpoint.Hit(failpoint.SaverFenceApplied)
	err := body.err
	for i := range fences {
		if e := fences[i].err; e != nil && (err == nil || push.KindOf(e) == push.KindConflict) {
			err = e
		}
	}
	return err
}

// fenceOp raises the token in one shard.
type fenceOp struct {
	f      *saver.Fence
	bucket bool
	tag    redisdb.Tag
	key    string
	r      redisdb.Read
	w      redisdb.Write
	err    error
}

// askFence asks the hash of a message for its token. Nobody changes it.
var askFence = []any{fieldFence}

func (o *fenceOp) ask() *redisdb.Read {
	o.r = redisdb.Read{Tag: o.tag, Do: []redisdb.Command{{Name: "HGET", Key: o.key, Args: askFence}}}
	return &o.r
}

func (o *fenceOp) decide() (*redisdb.Write, *redisdb.Read, error) {
	raw, now := o.r.Replies[0], o.r.Now
	was, err := decodeFence(raw)
	if err != nil {
		return nil, nil, err
	}
	next, err := was.Raise(o.f, o.bucket, now)
	if err != nil {
		return nil, nil, err
	}
	o.w = redisdb.Write{Tag: o.tag, Frees: raw != nil, If: []redisdb.Condition{redisdb.IfField(o.key, fieldFence, raw)}}
	if raw != nil && !was.Known(now) { // what lies there belongs to a fence that is over
		o.w.Do = append(o.w.Do, redisdb.Command{Name: "DEL", Key: o.key})
	}
	lives := max(next.Until-now, 0).Add(fenceSlack)
	o.w.Do = append(o.w.Do,
		redisdb.Command{Name: "HSET", Key: o.key, Args: []any{fieldFence, saver.AppendFence(nil, &next)}},
		redisdb.Command{Name: "PEXPIRE", Key: o.key, Args: []any{int64(lives)}})
	return &o.w, nil, nil
}

func (o *fenceOp) wrote(*redisdb.Write) {}
func (o *fenceOp) fail(err error)       { o.err = err }

// decodeFence reads a fence as it lies there; one that does not is zero.
func decodeFence(raw any) (saver.StoredFence, error) {
	v, ok := raw.(string)
	if !ok {
		return saver.StoredFence{}, nil
	}
	return saver.DecodeFence([]byte(v))
}

// bucketOp stores the body that the batches under a fence share.
type bucketOp struct {
	f   *saver.Fence
	r   redisdb.Read
	w   redisdb.Write
	err error
}

func (o *bucketOp) ask() *redisdb.Read {
	t, key := bodyKey(o.f.Product, o.f.ID)
	o.r = redisdb.Read{Tag: t, Do: []redisdb.Command{{Name: "EXISTS", Key: key}}}
	return &o.r
}

func (o *bucketOp) decide() (*redisdb.Write, *redisdb.Read, error) {
	until := max(o.f.Until, o.f.Message.Expires.Add(saver.RecordKept)).Add(intentSlack)
	o.w = redisdb.Write{Tag: o.r.Tag, Do: []redisdb.Command{{Name: "SET", Key: o.r.Do[0].Key,
		Args: []any{saver.AppendMessage(nil, o.f.Message), "PX", int64(max(until-o.r.Now, 1))}}}}
	return &o.w, nil, nil
}

func (o *bucketOp) wrote(*redisdb.Write) {}
func (o *bucketOp) fail(err error)       { o.err = err }

// Batches writes the batches, each in a step of its own, all in the same round trips: one reads the states of the slots, one writes.
func (s *Store) Batches(ctx context.Context, bs []*saver.Batch) []saver.Batched {
	out := make([]saver.Batched, len(bs))
	if err := s.enter("batches"); err != nil {
		for i := range out {
			out[i].Err = err
		}
		return out
	}
	defer s.calls.Done()
	for n := 0; n < len(bs); n += batchesMost {
		end := min(n+batchesMost, len(bs))
		s.batches(ctx, bs[n:end], out[n:end])
	}
	for i := range out {
		if err := out[i].Err; err != nil {
			out[i] = saver.Batched{Lineage: out[i].Lineage, Now: out[i].Now, Err: fmt.Errorf("saver: batches: %w", err)}
		}
	}
	return out
}

func (s *Store) batches(ctx context.Context, bs []*saver.Batch, out []saver.Batched) {
	parts := make([]part, len(bs))
	ops := make([]op, 0, len(bs))
	var numbers []uint64
	for i, b := range bs {
		if out[i].Err = saver.CheckBatch(b); out[i].Err != nil {
			continue
		}
		p := &parts[i]
		p.ofBatch(b)
		for j := range p.slots() {
			numbers = append(numbers, s.turns.of(p.slotKeys(j)))
		}
		o := &partsOp{many: make([]slot, p.slots()-1)}
		s.beginPartsOp(o, p.tag)
		o.slots = make([]*slot, 0, p.slots())
		o.parts = append(o.parts, p)
		ops = append(ops, o)
	}
	held, err := s.turns.take(ctx, numbers)
	if err == nil {
		s.run(ctx, ops, nil)
		s.turns.release(held)
	}
	failpoint.Hit(failpoint.SaverBatchApplied)
	for i, b := range bs {
		p, r := &parts[i], &out[i]
		if r.Err == nil {
			r.Err = err
		}
		if r.Err == nil {
			r.Err = p.err
		}
		r.Lineage, r.Now = p.answer.Lineage, p.answer.Now
		if r.Err != nil || p.absent {
			r.Absent = r.Err == nil
			continue
		}
		r.Found = p.found
		r.Own, r.Common = b.Placed(p.places)
		for j := range r.Own {
			r.Own[j].Rooms = p.rooms[j]
		}
		for j := range r.Common {
			r.Common[j].Rooms = p.rooms[j]
		}
	}
}

// ofBatch makes the part of a batch.
func (p *part) ofBatch(b *saver.Batch) {
	p.batch = b
	p.tag, p.shard, p.limits = tagOf(saver.ShardRef{Product: b.Product, Shard: b.Shard}), b.Shard, b.Limits
	p.everyone, p.filter, p.targets, p.message = b.Everyone, b.Filter, b.Own, b.Message
	p.recall, p.accepted, p.marked = b.Recall, b.Recall, true
	p.recordKey, p.recordField, p.named = batchesKey(p.tag, b.Message.ID), strconv.Itoa(b.Number), b.Message.ID
}

// askBatch asks for the token and for the record, behind the states of the slots: whoever writes the batch changes those.
func (p *part) askBatch() redisdb.Command {
	p.recordArgs = [2]any{fieldFence, &p.recordField}
	return redisdb.Command{Name: "HMGET", Key: p.recordKey, Args: p.recordArgs[:]}
}

// tookBatch takes the reply to askBatch.
func (p *part) tookBatch(reply any) (err error) {
	list, ok := reply.([]any)
	if !ok || len(list) != 2 {
		return corrupt("what is known of a batch")
	}
	p.fenceRaw, p.raw, p.was = list[0], list[1], nil
	if p.fence, err = decodeFence(p.fenceRaw); err != nil {
		return err
	}
	if v, ok := p.raw.(string); ok {
		was, err := saver.DecodeBatch([]byte(v))
		if err != nil {
			return err
		}
		p.was = &was
	}
	if planted.Is(planted.BatchUnmarked) && !p.recall {
		p.was = nil
	}
	return nil
}

// applyBatch does a batch to the slots.
func (o *partsOp) applyBatch(p *part, where []int, a redisdb.Answer) error {
	b := p.batch
	p.answer, p.absent, p.stored = a, false, p.message
	if err := p.fence.Admits(b.Token, a.Now); err != nil {
		return err
	}
	if p.was != nil {
		if err := p.was.Of(b); err != nil {
			return err
		}
	}
	switch {
	case p.was == nil && p.recall:
		p.absent = true
		return nil
	case p.was == nil:
		p.inline = len(b.Bodies) > 0 || len(p.message.Body) <= o.s.inline || !p.fence.Body
		o.append(p, where, a)
		return nil
	case p.recall && p.was.Recalled == 0:
		o.appendRecalls(p, where, p.was.Places, a)
		return nil
	}
	p.found = true
	if places := p.was.Places; p.recall {
		copy(p.places, p.was.Recalls)
	} else {
		copy(p.places, places)
	}
	return nil
}

// writeBatch writes the record of a batch, on the condition that token and record still are what was read. What was done before, or was not
// there to be taken back, is written as it was, so that it is confirmed before anybody is told.
func (o *partsOp) writeBatch(p *part, a redisdb.Answer) {
	w, key := &o.w, p.recordKey
	w.If = append(w.If, redisdb.IfField(key, fieldFence, p.fenceRaw), redisdb.IfField(key, p.recordField, p.raw))
	if p.absent {
		w.Do = append(w.Do, redisdb.Command{Name: "HSET", Key: key, Args: []any{fieldFence, p.fenceRaw}})
		return
	}
	next := saver.StoredBatch{Everyone: p.everyone, Places: p.places}
	switch {
	case p.was != nil:
		next = *p.was
		if p.recall && !p.found {
			next.Recalled, next.Recalls = a.Now, p.places
		}
	default:
		next.Users = make([]push.UserID, len(p.targets))
		for i := range p.targets {
			next.Users[i] = p.targets[i].User
		}
	}
	p.recordAs = saver.AppendBatch(make([]byte, 0, 64+32*len(p.places)), &next)
	p.recordArgs = [2]any{&p.recordField, &p.recordAs}
	w.Do = append(w.Do, redisdb.Command{Name: "HSET", Key: key, Args: p.recordArgs[:]})
}

// recordsAsked is how many records one command asks for at most.
const recordsAsked = 256

// BatchRecords asks for all in one round trip.
func (s *Store) BatchRecords(ctx context.Context, ref saver.BatchesRef, ns []int) ([]*saver.BatchRecord, error) {
	if err := s.enter("batch records"); err != nil {
		return nil, err
	}
	defer s.calls.Done()
	out, err := s.batchRecords(ctx, ref, ns)
	if err != nil {
		return nil, fmt.Errorf("saver: batch records: %w", err)
	}
	return out, nil
}

func (s *Store) batchRecords(ctx context.Context, ref saver.BatchesRef, ns []int) ([]*saver.BatchRecord, error) {
	t := tagOf(ref.ShardRef)
	key := batchesKey(t, ref.ID)
	r := &redisdb.Read{Tag: t, Do: []redisdb.Command{{Name: "HGET", Key: key, Args: askFence}}}
	for from := 0; from < len(ns); from += recordsAsked {
		var fields []any
		for _, n := range ns[from:min(from+recordsAsked, len(ns))] {
			fields = append(fields, strconv.Itoa(n))
		}
		r.Do = append(r.Do, redisdb.Command{Name: "HMGET", Key: key, Args: fields})
	}
	if s.read(ctx, r); r.Err != nil {
		return nil, r.Err
	}
	out := make([]*saver.BatchRecord, len(ns))
	f, err := decodeFence(r.Replies[0])
	if err != nil || !f.Known(r.Now) {
		return out, err
	}
	for i := range ns {
		list, _ := r.Replies[1+i/recordsAsked].([]any)
		if i%recordsAsked >= len(list) {
			continue
		}
		if v, ok := list[i%recordsAsked].(string); ok {
			b, err := saver.DecodeBatch([]byte(v))
			if err != nil {
				return nil, err
			}
			out[i] = b.Record(r.Now)
		}
	}
	return out, nil
}
