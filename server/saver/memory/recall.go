package memory

import (
	"context"
	"fmt"
	"slices"

	"carillon/server/push"
	"carillon/server/saver"
)

// Recall takes the record first, then the locks of all its shards, so that it happens once and in one step.
func (s *Store) Recall(_ context.Context, r saver.Recall) (saver.Recalled, error) {
	if err := s.enter("recall"); err != nil {
		return saver.Recalled{}, err
	}
	defer s.calls.Done()
	out, err := s.recall(r)
	s.leave()
	if err != nil {
		return saver.Recalled{}, fmt.Errorf("saver: recall: %w", err)
	}
	if out.First {
		s.locate(r.Product, out.Own, out.Common)
	}
	return out, nil
}

func (s *Store) recall(r saver.Recall) (saver.Recalled, error) {
	rec := s.lookupRecord(recordRef{r.Product, r.ID})
	if rec == nil {
		return saver.Recalled{}, saver.ErrNoMessage()
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	now := s.now()
	if rec.r.Forgotten(now) {
		return saver.Recalled{}, saver.ErrNoMessage()
	}
	out := saver.Recalled{Message: rec.r.Message, Lineage: s.lineage, Now: now, First: rec.r.Recalled == 0}
	if rec.r.Everyone {
		out.Common = make([]saver.Placed, len(rec.r.Common))
		for i := range out.Common {
			out.Common[i] = saver.Placed{Shard: push.Shard(i), Filter: saver.CloneFilter(rec.r.Filter)}
		}
	} else {
		out.Own = make([]saver.Placed, len(rec.r.Own))
		for i := range out.Own {
			u := rec.r.Own[i].User
			out.Own[i] = saver.Placed{User: u, Shard: push.ShardOf(u, r.Shards), Filter: saver.CloneFilter(rec.r.Own[i].Filter)}
		}
	}
	places := out.Own
	if rec.r.Everyone {
		places = out.Common
	}
	if out.First {
		rec.r.Recalls = s.appendRecall(&rec.r.Record, r, places, now)
		rec.r.Recalled = now
	}
	for i := range places {
		places[i].Place = rec.r.Recalls[i]
	}
	return out, nil
}

// appendRecall makes holes of the message's entries and appends those that take it back; the places are returned as places.
func (s *Store) appendRecall(rec *saver.Record, r saver.Recall, places []saver.Placed, now push.MilliTime) []push.Place {
	e := recallOf(rec.Message, nil, now)
	shards := s.lockShards(r.Product, places)
	defer unlockShards(shards)
	recalls := make([]push.Place, len(places))
	for i := range places {
		sh := shardIn(shards, places[i].Shard)
		var sl *slot
		var was push.Place
		if rec.Everyone {
			sl, was, e.Filter = s.commonLocked(sh, now), rec.Common[i], rec.Filter
		} else {
			sl, was, e.Filter = s.ownLocked(sh.userLocked(places[i].User), now), rec.Own[i].Place, rec.Own[i].Filter
		}
		if old := sl.find(was.Pos); old != nil && old.ID == r.ID && sl.Epoch == was.Epoch {
			sl.remove(was.Pos)
		}
		recalls[i] = sl.append(e, s.lineage, now, r.Limits)
	}
	return recalls
}

// recallOf returns the entry that takes a message back.
func recallOf(m *push.Message, f *push.Filter, now push.MilliTime) saver.Stored {
	return saver.Stored{Kind: saver.EntryRecall, ID: m.ID, Expires: saver.RecallExpires(m, now), Size: saver.RecallSize, Filter: f}
}

// Message returns a copy of the record.
func (s *Store) Message(_ context.Context, p push.ProductID, id push.MsgID) (saver.Record, error) {
	if err := s.enter("message"); err != nil {
		return saver.Record{}, err
	}
	defer s.calls.Done()
	defer s.leave()
	rec := s.lookupRecord(recordRef{p, id})
	if rec == nil {
		return saver.Record{}, fmt.Errorf("saver: message: %w", saver.ErrNoMessage())
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	r := rec.r.Record
	if r.Now = s.now(); r.Forgotten(r.Now) {
		return saver.Record{}, fmt.Errorf("saver: message: %w", saver.ErrNoMessage())
	}
	r.Filter = saver.CloneFilter(r.Filter)
	r.Common = slices.Clone(r.Common)
	r.Own = slices.Clone(r.Own)
	for i := range r.Own {
		r.Own[i].Filter = saver.CloneFilter(r.Own[i].Filter)
	}
	return r, nil
}

func (s *Store) lookupRecord(ref recordRef) *record {
	stripe := s.recordStripe(ref)
	stripe.mu.Lock()
	defer stripe.mu.Unlock()
	return stripe.records[ref]
}
