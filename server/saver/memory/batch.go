package memory

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"carillon/server/planted"
	"carillon/server/push"
	"carillon/server/saver"
)

// fence is what is known of a message that is written in batches: its token, and the records of the batches. Its mutex is held for the whole
// of a batch, so that none comes after the token was raised, nor twice.
type fence struct {
	mu      sync.Mutex
	f       saver.StoredFence               // guarded by mu
	batches map[batchRef]*saver.StoredBatch // guarded by mu; what it leads to is immutable
}

type batchRef struct {
	shard  push.Shard
	number int
}

// Fence raises the token, of all shards at once.
func (s *Store) Fence(_ context.Context, f saver.Fence) error {
	if err := s.enter("fence"); err != nil {
		return err
	}
	defer s.calls.Done()
	defer s.leave()
	if err := s.raise(&f); err != nil {
		return fmt.Errorf("saver: fence: %w", err)
	}
	return nil
}

func (s *Store) raise(to *saver.Fence) error {
	if err := saver.CheckFence(to); err != nil {
		return err
	}
	ref := recordRef{to.Product, to.ID}
	s.fencesMu.Lock()
	defer s.fencesMu.Unlock()
	f := s.fences[ref]
	if f == nil {
		f = &fence{}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now := s.now()
	next, err := f.f.Raise(to, false, now)
	if err != nil {
		return err
	}
	if !f.f.Known(now) {
		f.batches = make(map[batchRef]*saver.StoredBatch)
	}
	f.f = next
	s.fences[ref] = f
	return nil
}

// lookupFence returns what is known of a message that is written in batches, nil if nothing is.
func (s *Store) lookupFence(ref recordRef) *fence {
	s.fencesMu.Lock()
	defer s.fencesMu.Unlock()
	return s.fences[ref]
}

// Batches writes each batch under the locks of its message and its shard. Rooms are looked up once all are written.
func (s *Store) Batches(_ context.Context, bs []*saver.Batch) []saver.Batched {
	out := make([]saver.Batched, len(bs))
	if err := s.enter("batches"); err != nil {
		for i := range out {
			out[i].Err = err
		}
		return out
	}
	defer s.calls.Done()
	for i, b := range bs {
		out[i].Lineage = s.lineage
		if err := s.batch(b, &out[i]); err != nil {
			out[i] = saver.Batched{Lineage: s.lineage, Now: s.now(), Err: fmt.Errorf("saver: batches: %w", err)}
		}
	}
	s.leave()
	for i, b := range bs {
		r := &out[i]
		s.lookupRooms(b.Product, r.Own, r.Common)
		if !r.Found {
			s.noteOwn(b.Product, r.Own)
		}
	}
	return out
}

func (s *Store) batch(b *saver.Batch, out *saver.Batched) error {
	if err := saver.CheckBatch(b); err != nil {
		return err
	}
	f := s.lookupFence(recordRef{b.Product, b.Message.ID})
	if f == nil {
		f = &fence{} // of nobody: it admits nothing
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now := s.now()
	out.Now = now
	if err := f.f.Admits(b.Token, now); err != nil {
		return err
	}
	ref := batchRef{b.Shard, b.Number}
	was := f.batches[ref]
	if planted.Is(planted.BatchUnmarked) && !b.Recall {
		was = nil
	}
	if was == nil && b.Recall {
		out.Absent = true
		return nil
	}
	if was != nil {
		if err := was.Of(b); err != nil {
			return err
		}
	}
	next := saver.StoredBatch{Everyone: b.Everyone}
	places := &next.Places
	switch {
	case was == nil:
		next.Places = s.writeBatch(b, now)
		for i := range b.Own {
			next.Users = append(next.Users, b.Own[i].User)
		}
	case b.Recall:
		next, places, out.Found = *was, &next.Recalls, was.Recalled != 0
		if !out.Found {
			next.Recalled, next.Recalls = now, s.recallBatch(b, was, now)
		}
	default:
		next, out.Found = *was, true
	}
	if f.batches == nil { // only a planted bug comes here
		f.batches = make(map[batchRef]*saver.StoredBatch)
	}
	f.batches[ref] = &next
	out.Own, out.Common = b.Placed(*places)
	return nil
}

// slotsOf calls do for each slot of a batch under the lock of the shard.
func (s *Store) slotsOf(b *saver.Batch, now push.MilliTime, do func(i int, sl *slot, f *push.Filter)) {
	sh := s.shard(saver.ShardRef{Product: b.Product, Shard: b.Shard})
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if b.Everyone {
		do(0, s.commonLocked(sh, now), saver.CloneFilter(b.Filter))
		return
	}
	for i := range b.Own {
		do(i, s.ownLocked(sh.userLocked(b.Own[i].User), now), saver.CloneFilter(b.Own[i].Filter))
	}
}

func (s *Store) writeBatch(b *saver.Batch, now push.MilliTime) (places []push.Place) {
	s.slotsOf(b, now, func(i int, sl *slot, f *push.Filter) {
		m := b.Message
		if len(b.Bodies) > 0 {
			m = b.MessageOf(i)
			m.Body = slices.Clone(m.Body)
		}
		places = append(places, sl.append(storedOf(m, f), s.lineage, now, b.Limits))
	})
	return places
}

func (s *Store) recallBatch(b *saver.Batch, was *saver.StoredBatch, now push.MilliTime) (places []push.Place) {
	s.slotsOf(b, now, func(i int, sl *slot, f *push.Filter) {
		at := was.Places[i]
		if old := sl.find(at.Pos); old != nil && old.ID == b.Message.ID && sl.Epoch == at.Epoch {
			sl.remove(at.Pos)
		}
		places = append(places, sl.append(recallOf(b.Message, f, now), s.lineage, now, b.Limits))
	})
	return places
}

// BatchRecords returns copies.
func (s *Store) BatchRecords(_ context.Context, ref saver.BatchesRef, ns []int) ([]*saver.BatchRecord, error) {
	if err := s.enter("batch records"); err != nil {
		return nil, err
	}
	defer s.calls.Done()
	defer s.leave()
	out := make([]*saver.BatchRecord, len(ns))
	f := s.lookupFence(recordRef{ref.Product, ref.ID})
	if f == nil {
		return out, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now := s.now()
	if !f.f.Known(now) {
		return out, nil
	}
	for i, n := range ns {
		if b := f.batches[batchRef{ref.Shard, n}]; b != nil {
			out[i] = b.Record(now)
		}
	}
	return out, nil
}

// sweepFences forgets what is known of messages whose fence is over.
func (s *Store) sweepFences() {
	s.world.RLock()
	defer s.world.RUnlock()
	s.fencesMu.Lock()
	defer s.fencesMu.Unlock()
	now := s.now()
	for ref, f := range s.fences {
		f.mu.Lock()
		if !f.f.Known(now) {
			delete(s.fences, ref)
		}
		f.mu.Unlock()
	}
}

// cloneFences returns a copy that shares only what is immutable; the caller holds world for writing, or is alone.
func cloneFences(from map[recordRef]*fence) map[recordRef]*fence {
	to := make(map[recordRef]*fence, len(from))
	for ref, f := range from {
		to[ref] = &fence{f: f.f, batches: maps.Clone(f.batches)}
	}
	return to
}
