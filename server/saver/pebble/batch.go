package pebble

import (
	"context"
	"encoding/binary"
	"fmt"

	"carillon/server/embedded"
	"carillon/server/failpoint"
	"carillon/server/planted"
	"carillon/server/push"
	"carillon/server/saver"
)

// batchesMost bounds the batches of a task that are written in one step, and so how long their stripes are held.
const batchesMost = 8

func fenceKey(dst []byte, p push.ProductID, id push.MsgID) []byte {
	return embedded.AppendKeyUint64(embedded.AppendKeyString(appendSpace(dst, spaceFence), p), uint64(id))
}

// batchPrefix begins the keys of all records of a message's batches.
func batchPrefix(dst []byte, p push.ProductID, id push.MsgID) []byte {
	return embedded.AppendKeyUint64(embedded.AppendKeyString(appendSpace(dst, spaceBatch), p), uint64(id))
}

func batchKey(dst []byte, ref saver.ShardRef, id push.MsgID, n int) []byte {
	dst = embedded.AppendKeyUint16(batchPrefix(dst, ref.Product, id), uint16(ref.Shard))
	return binary.BigEndian.AppendUint32(dst, uint32(n))
}

// lookupFence returns the fence of a message; zero if there is none.
func (s *Store) lookupFence(p push.ProductID, id push.MsgID) (saver.StoredFence, error) {
	var kbuf, vbuf [128]byte
	v, found, err := s.db.Get(vbuf[:0], fenceKey(kbuf[:0], p, id))
	if err != nil || !found {
		return saver.StoredFence{}, err
	}
	return saver.DecodeFence(v)
}

// lookupBatch returns the record of a batch, nil if it is not written.
func (s *Store) lookupBatch(ref saver.ShardRef, id push.MsgID, n int) (*saver.StoredBatch, error) {
	var kbuf [128]byte
	v, found, err := s.db.Get(nil, batchKey(kbuf[:0], ref, id, n))
	if err != nil || !found {
		return nil, err
	}
	b, err := saver.DecodeBatch(v)
	return &b, err
}

// Fence raises the token, one for all shards. Batches look at it, and are submitted, while they hold the lock for reading: those of an older token
// are before it in the order in which the database applies things, or not at all.
func (s *Store) Fence(ctx context.Context, f saver.Fence) error {
	if err := s.enter("fence"); err != nil {
		return err
	}
	defer s.calls.Done()
	ticket, err := s.raise(&f)
	if err == nil {
		failpoint.Hit(failpoint.SaverFenceApplied)
		err = ticket.Wait(ctx)
	}
	if err != nil {
		return fmt.Errorf("saver: fence: %w", err)
	}
	return nil
}

// raise returns once every reader sees the token.
func (s *Store) raise(f *saver.Fence) (embedded.Ticket, error) {
	if err := saver.CheckFence(f); err != nil {
		return embedded.Ticket{}, err
	}
	s.fencing.Lock()
	defer s.fencing.Unlock()
	was, err := s.lookupFence(f.Product, f.ID)
	if err != nil {
		return embedded.Ticket{}, err
	}
	t := s.begin(nil)
	next, err := was.Raise(f, f.Message != nil, t.now)
	if err != nil {
		t.leave()
		return embedded.Ticket{}, err
	}
	if !was.Known(t.now) && was.Token > 0 { // not swept yet
		prefix := batchPrefix(nil, f.Product, f.ID)
		t.b.DeleteRange(prefix, embedded.PrefixEnd(prefix))
	}
	if f.Message != nil {
		s.msgGens.note(forgetHour(f.Message.Expires))
		t.putBucket(f.Product, f.Message)
	}
	t.key = fenceKey(t.key[:0], f.Product, f.ID)
	t.val = saver.AppendFence(t.val[:0], &next)
	t.b.Set(t.key, t.val)
	ticket, err := t.submit(true)
	if err == nil {
		err = ticket.Applied()
	}
	return ticket, err
}

// batchRun is some batches of a call that are written in one step.
type batchRun struct {
	bs     []*saver.Batch
	out    []saver.Batched
	ticket embedded.Ticket // zero: nothing was written
	err    error           // of those without an error of their own
}

// Batches writes the batches in runs, each one step; all wait for the same flush.
func (s *Store) Batches(ctx context.Context, bs []*saver.Batch) []saver.Batched {
	out := make([]saver.Batched, len(bs))
	if err := s.enter("batches"); err != nil {
		for i := range out {
			out[i].Err = err
		}
		return out
	}
	defer s.calls.Done()
	var runs []batchRun
	for n := 0; n < len(bs); {
		r := batchRun{bs: bs[n:], out: out[n:]}
		r.write(s)
		n += len(r.bs)
		runs = append(runs, r)
	}
	for i := range runs {
		runs[i].finish(ctx, s)
	}
	return out
}

// write cuts the run to what goes in one step, and submits it. A run ends before a batch that it has already, so that nobody has to look for the
// record of a batch in what is not applied.
func (r *batchRun) write(s *Store) {
	n := 1
	for n < min(len(r.bs), batchesMost) && !r.has(n) {
		n++
	}
	r.bs, r.out = r.bs[:n], r.out[:n]
	var buf [batchesMost]int
	numbers := buf[:0]
	for i, b := range r.bs {
		if r.out[i].Err = saver.CheckBatch(b); r.out[i].Err == nil {
			numbers = append(numbers, s.stripeOf(shardOf(b)))
		}
	}
	s.fencing.RLock()
	defer s.fencing.RUnlock()
	t := s.begin(numbers)
	for i, b := range r.bs {
		if r.out[i].Err != nil {
			continue
		}
		if err := t.batch(b, &r.out[i]); err != nil {
			t.giveUp()
			r.err = err
			return
		}
	}
	if t.b.Empty() && len(t.slots) == 0 {
		t.leave()
		return
	}
	r.ticket, r.err = t.submit(true)
}

// has reports whether the n-th batch is among those before it.
func (r *batchRun) has(n int) bool {
	b := r.bs[n]
	for _, o := range r.bs[:n] {
		if o.Number == b.Number && o.Shard == b.Shard && o.Product == b.Product && o.Message != nil && b.Message != nil && o.Message.ID == b.Message.ID {
			return true
		}
	}
	return false
}

func shardOf(b *saver.Batch) saver.ShardRef {
	return saver.ShardRef{Product: b.Product, Shard: b.Shard}
}

// batch puts one batch into the step, or says in out why not. An error is that of all in the step.
func (t *tx) batch(b *saver.Batch, out *saver.Batched) error {
	id := b.Message.ID
	f, err := t.s.lookupFence(b.Product, id)
	if err != nil {
		return err
	}
	*out = saver.Batched{Lineage: t.lineage, Now: t.now}
	if out.Err = f.Admits(b.Token, t.now); out.Err != nil {
		return nil
	}
	ref := shardOf(b)
	if err := t.s.stripes[t.s.stripeOf(ref)].applied(); err != nil {
		return err
	}
	was, err := t.s.lookupBatch(ref, id, b.Number)
	if err != nil {
		return err
	}
	if planted.Is(planted.BatchUnmarked) && !b.Recall {
		was = nil
	}
	if was == nil && b.Recall {
		out.Absent = true
		return nil
	}
	if was != nil {
		if out.Err = was.Of(b); out.Err != nil {
			return nil
		}
	}
	if b.Recall && was.Recalled != 0 {
		out.Found = true
		out.Own, out.Common = b.Placed(was.Recalls)
		return nil
	}
	if !b.Recall && was != nil {
		out.Found = true
		out.Own, out.Common = b.Placed(was.Places)
		return nil
	}
	if was == nil {
		was = &saver.StoredBatch{Everyone: b.Everyone, Users: make([]push.UserID, len(b.Own))}
		for i := range b.Own {
			was.Users[i] = b.Own[i].User
		}
		was.Places, err = t.batchEntries(b, f.Body, nil)
		out.Own, out.Common = b.Placed(was.Places)
	} else {
		was.Recalled = t.now
		was.Recalls, err = t.batchEntries(b, false, was.Places)
		out.Own, out.Common = b.Placed(was.Recalls)
	}
	if err != nil {
		return err
	}
	t.key = batchKey(t.key[:0], ref, id, b.Number)
	t.val = saver.AppendBatch(t.val[:0], was)
	t.b.Set(t.key, t.val)
	return nil
}

// batchEntries appends the entries of a batch, and returns their places: with places those that take back what lies there, otherwise those of the message,
// which without a bucket hold its body.
func (t *tx) batchEntries(b *saver.Batch, bucket bool, was []push.Place) ([]push.Place, error) {
	m, ref := b.Message, shardOf(b)
	e := saver.Stored{Kind: saver.EntryMessage, ID: m.ID, Expires: m.Expires, Size: m.Size(), CollapseKey: m.CollapseKey}
	if b.Recall {
		e = saver.Stored{Kind: saver.EntryRecall, ID: m.ID, Expires: saver.RecallExpires(m, t.now), Size: saver.RecallSize}
	}
	places := make([]push.Place, max(len(b.Own), 1))
	for i := range places {
		var sl *slot
		var err error
		if b.Everyone {
			e.Filter = b.Filter
			sl, err = t.common(ref)
		} else {
			e.Filter = b.Own[i].Filter
			var u *user
			if u, err = t.user(ref, b.Own[i].User); err == nil {
				sl = &u.own
			}
		}
		if err != nil {
			return nil, err
		}
		switch {
		case b.Recall:
			if sl.Epoch == was[i].Epoch {
				if _, err := sl.remove(t, was[i].Pos, m.ID); err != nil {
					return nil, err
				}
			}
		case len(b.Bodies) > 0 || !bucket:
			e.Message = b.MessageOf(i)
			e.Size = e.Message.Size()
		}
		if places[i], err = sl.append(t, &e, b.Limits); err != nil {
			return nil, err
		}
	}
	return places, nil
}

// finish waits for the flush and fills in the results.
func (r *batchRun) finish(ctx context.Context, s *Store) {
	err := r.err
	wrote := err == nil && r.ticket != (embedded.Ticket{})
	if wrote {
		if failpoint.Enabled {
			_ = r.ticket.Applied()
			failpoint.Hit(failpoint.SaverBatchApplied)
		}
		err = r.ticket.Wait(ctx)
	}
	if err == nil {
		for i := range r.out {
			if r.out[i].Found || r.out[i].Absent { // what was seen may be somebody else's, and not flushed yet
				err = s.db.Flushed(ctx)
				break
			}
		}
	}
	if err != nil && wrote && ctx.Err() != nil && s.db.Health() == nil {
		r.tellLater(s)
	}
	for i, b := range r.bs {
		out := &r.out[i]
		if out.Err == nil {
			out.Err = err
		}
		if out.Err != nil {
			*out = saver.Batched{Lineage: s.db.Lineage(), Now: s.now(), Err: fmt.Errorf("saver: batches: %w", out.Err)}
			continue
		}
		if out.Found {
			s.lookupRooms(b.Product, out.Own, out.Common)
		} else {
			s.locate(b.Product, out.Own, out.Common)
		}
	}
}

// tellLater tells the rooms what the run appended, though the caller does not wait for the flush any more.
func (r *batchRun) tellLater(s *Store) {
	type told struct {
		product push.ProductID
		own     []saver.Placed
	}
	var all []told
	for i := range r.out {
		if out := &r.out[i]; out.Err == nil && !out.Found && len(out.Own) > 0 {
			all = append(all, told{r.bs[i].Product, out.Own})
		}
	}
	ticket := r.ticket
	s.calls.Add(1)
	go func() {
		defer s.calls.Done()
		if ticket.Wait(context.Background()) != nil {
			return
		}
		for _, o := range all {
			s.locate(o.product, o.own, nil)
		}
	}()
}

// BatchRecords looks each batch up, and waits until what it saw is flushed.
func (s *Store) BatchRecords(ctx context.Context, ref saver.BatchesRef, ns []int) ([]*saver.BatchRecord, error) {
	if err := s.enter("batch records"); err != nil {
		return nil, err
	}
	defer s.calls.Done()
	out, err := s.batchRecords(ref, ns)
	if err == nil {
		err = s.db.Flushed(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("saver: batch records: %w", err)
	}
	return out, nil
}

func (s *Store) batchRecords(ref saver.BatchesRef, ns []int) ([]*saver.BatchRecord, error) {
	out := make([]*saver.BatchRecord, len(ns))
	now := s.now()
	f, err := s.lookupFence(ref.Product, ref.ID)
	if err != nil || !f.Known(now) {
		return out, err
	}
	for i, n := range ns {
		b, err := s.lookupBatch(ref.ShardRef, ref.ID, n)
		if err != nil {
			return nil, err
		}
		if b != nil {
			out[i] = b.Record(now)
		}
	}
	return out, nil
}

// sweepFences forgets the fences that are over, and the records of the batches under them.
func (s *Store) sweepFences() error {
	over, err := s.fencesOver()
	if err != nil || len(over) == 0 {
		return err
	}
	s.fencing.Lock()
	defer s.fencing.Unlock()
	b := s.db.NewBatch()
	for _, o := range over {
		f, err := s.lookupFence(o.product, o.id)
		if err != nil {
			s.db.Discard(b)
			return err
		}
		if f.Known(s.now()) { // prolonged meanwhile
			continue
		}
		prefix := batchPrefix(nil, o.product, o.id)
		b.DeleteRange(prefix, embedded.PrefixEnd(prefix))
		b.Delete(fenceKey(nil, o.product, o.id))
	}
	return s.db.CommitNoSync(b)
}

type fenceRef struct {
	product push.ProductID
	id      push.MsgID
}

func (s *Store) fencesOver() (over []fenceRef, err error) {
	it, err := s.db.ScanPrefix(appendSpace(nil, spaceFence))
	if err != nil {
		return nil, err
	}
	defer it.Close()
	now := s.now()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.Value()
		if err != nil {
			return nil, err
		}
		f, err := saver.DecodeFence(v)
		if err != nil {
			return nil, err
		}
		if f.Known(now) {
			continue
		}
		product, rest, err := embedded.CutKeyString(it.Key()[2:])
		if err != nil {
			return nil, err
		}
		id, _, err := embedded.CutKeyUint64(rest)
		if err != nil {
			return nil, err
		}
		over = append(over, fenceRef{push.ProductID(product), push.MsgID(id)})
	}
	return over, it.Err()
}
