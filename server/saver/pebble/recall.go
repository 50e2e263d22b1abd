package pebble

import (
	"context"
	"fmt"
	"hash/maphash"

	"carillon/server/embedded"
	"carillon/server/failpoint"
	"carillon/server/push"
	"carillon/server/saver"
)

// Recall claims the message, so that it happens once and is answered from only when it is flushed; then it writes one
// batch for all shards.
func (s *Store) Recall(ctx context.Context, r saver.Recall) (saver.Recalled, error) {
	if err := s.enter("recall"); err != nil {
		return saver.Recalled{}, err
	}
	defer s.calls.Done()
	out, err := s.recall(ctx, &r)
	if err != nil {
		return saver.Recalled{}, fmt.Errorf("saver: recall: %w", err)
	}
	return out, nil
}

func (s *Store) recall(ctx context.Context, r *saver.Recall) (saver.Recalled, error) {
	c := claim{product: r.Product, recall: r.ID}
	hash := maphash.Comparable(s.seed, c)
	if err := s.claims.take(ctx, hash, c); err != nil {
		return saver.Recalled{}, err
	}
	out, ticket, err := s.recallClaimed(r)
	if err != nil || !out.First {
		s.claims.release(hash, c)
		if err == nil {
			err = s.db.Health() // a repeat is answered only if the first one was flushed
		}
		return out, err
	}
	if failpoint.Enabled {
		_ = ticket.Applied()
		failpoint.Hit(failpoint.SaverRecallApplied)
	}
	finish := func(err error) {
		s.claims.release(hash, c)
		if err == nil {
			s.locate(r.Product, out.Own, out.Common)
		}
	}
	if err = ticket.Wait(ctx); err != nil && ctx.Err() != nil && s.db.Health() == nil {
		s.calls.Add(1)
		go func() { // as Publish: rooms are to find it in their logs, whether or not anybody waits for the answer
			defer s.calls.Done()
			finish(ticket.Wait(context.Background()))
		}()
		return saver.Recalled{}, err
	}
	finish(err)
	return out, err
}

// recallClaimed answers a repeat, or submits the recall.
func (s *Store) recallClaimed(r *saver.Recall) (saver.Recalled, embedded.Ticket, error) {
	now := s.now()
	rec, err := s.lookupRecord(r.Product, r.ID, now)
	if err != nil {
		return saver.Recalled{}, embedded.Ticket{}, err
	}
	out := saver.Recalled{Message: rec.Message, Lineage: s.db.Lineage(), Now: now, First: rec.Recalled == 0}
	places := recallPlaces(&rec.Record, r.Shards)
	if rec.Everyone {
		out.Common = places
	} else {
		out.Own = places
	}
	if !out.First {
		if len(rec.Recalls) != len(places) {
			return out, embedded.Ticket{}, push.Errorf(push.KindInternal, "corrupt_value", "a recalled message without its recalls")
		}
		for i := range places {
			places[i].Place = rec.Recalls[i]
		}
		return out, embedded.Ticket{}, nil
	}
	numbers := make([]int, len(places))
	for i := range places {
		numbers[i] = s.stripeOf(saver.ShardRef{Product: r.Product, Shard: places[i].Shard})
	}
	t := s.begin(numbers)
	if err := t.recall(r, &rec, places); err != nil {
		t.giveUp()
		return out, embedded.Ticket{}, err
	}
	out.Now = t.now
	ticket, err := t.submit(true)
	return out, ticket, err
}

// recallPlaces returns whom a recall concerns, in the order of the record.
func recallPlaces(rec *saver.Record, shards int) []saver.Placed {
	if rec.Everyone {
		places := make([]saver.Placed, len(rec.Common))
		for i := range places {
			places[i] = saver.Placed{Shard: push.Shard(i), Filter: rec.Filter}
		}
		return places
	}
	places := make([]saver.Placed, len(rec.Own))
	for i := range places {
		u := rec.Own[i].User
		places[i] = saver.Placed{User: u, Shard: push.ShardOf(u, shards), Filter: rec.Own[i].Filter}
	}
	return places
}

// recall makes holes of the message's entries and appends those that take it back.
func (t *tx) recall(r *saver.Recall, rec *saver.StoredRecord, places []saver.Placed) error {
	e := saver.Stored{
		Kind: saver.EntryRecall, ID: r.ID, Expires: saver.RecallExpires(rec.Message, t.now), Size: saver.RecallSize,
	}
	for i := range places {
		ref := saver.ShardRef{Product: r.Product, Shard: places[i].Shard}
		var sl *slot
		var was push.Place
		var err error
		if rec.Everyone {
			sl, err = t.common(ref)
			was, e.Filter = rec.Common[i], rec.Filter
		} else {
			var u *user
			if u, err = t.user(ref, places[i].User); err == nil {
				sl = &u.own
			}
			was, e.Filter = rec.Own[i].Place, rec.Own[i].Filter
		}
		if err != nil {
			return err
		}
		if sl.Epoch == was.Epoch {
			if _, err := sl.remove(t, was.Pos, r.ID); err != nil {
				return err
			}
		}
		if places[i].Place, err = sl.append(t, &e, r.Limits); err != nil {
			return err
		}
		rec.Recalls = append(rec.Recalls, places[i].Place)
	}
	rec.Recalled = t.now
	t.putRecord(r.Product, rec)
	return nil
}
