package pebble

import (
	"context"
	"fmt"
	"hash/maphash"

	"carillon/server/embedded"
	"carillon/server/failpoint"
	"carillon/server/planted"
	"carillon/server/push"
	"carillon/server/saver"
)

// runMost bounds the publications of one batch, and so how long its stripes are held.
const runMost = 256

// item is one publication of a run.
type item struct {
	p       *saver.Publication
	out     *saver.Published
	hash    uint64 // of its key
	claimed bool   // its key is
	fresh   bool   // to be stored; otherwise it is answered already
}

// Publish stores the publications in runs, each one batch and one flush. Calls that come together share flushes.
func (s *Store) Publish(ctx context.Context, ps []*saver.Publication) []saver.Published {
	out := make([]saver.Published, len(ps))
	if err := s.enter("publish"); err != nil {
		for i := range out {
			out[i].Err = err
		}
		return out
	}
	defer s.calls.Done()
	for n := 0; n < len(ps); {
		n += s.publishRun(ctx, ps[n:], out[n:])
	}
	return out
}

// publishRun publishes as many as go in one batch, at least one, and returns how many. A run ends before a publication
// whose key somebody else is busy with, since nobody waits for that while holding keys of their own.
func (s *Store) publishRun(ctx context.Context, ps []*saver.Publication, out []saver.Published) (n int) {
	var buf [4]item
	items := buf[:0]
	for n < len(ps) && len(items) < runMost {
		it := item{p: ps[n], out: &out[n], fresh: true}
		if err := saver.CheckPublication(it.p); err != nil {
			s.fail(it.out, err)
			n++
			continue
		}
		if it.p.Key != "" {
			c := keyClaim(it.p)
			it.hash = maphash.Comparable(s.seed, c)
			busy := s.claims.try(it.hash, c)
			if busy != nil && len(items) > 0 {
				break
			}
			if busy != nil {
				if err := await(ctx, busy); err != nil {
					s.fail(it.out, err)
					n++
				}
				continue
			}
			it.claimed = true
		}
		items = append(items, it)
		n++
	}
	s.publishItems(ctx, items)
	return n
}

func keyClaim(p *saver.Publication) claim { return claim{product: keyProduct(p), key: p.Key} }

// keyProduct is the product within which an idempotency key is known.
func keyProduct(p *saver.Publication) push.ProductID {
	if planted.Is(planted.KeyWithoutProduct) {
		return ""
	}
	return p.Product
}

func (s *Store) fail(out *saver.Published, err error) {
	*out = saver.Published{Lineage: s.db.Lineage(), Now: s.now(), Err: fmt.Errorf("saver: publish: %w", err)}
}

// publishItems answers the repeats, stores the others, and releases the keys when that is flushed.
func (s *Store) publishItems(ctx context.Context, items []item) {
	fresh := 0
	for i := range items {
		if it := &items[i]; it.claimed {
			s.answerRepeat(it)
		}
		if items[i].fresh {
			fresh++
		}
	}
	if fresh == 0 {
		s.release(items)
		return
	}
	ticket, err := s.store(items)
	if err == nil {
		if failpoint.Enabled {
			_ = ticket.Applied()
			failpoint.Hit(failpoint.SaverPublishApplied)
		}
		if planted.Is(planted.AcknowledgeBeforeStore) {
			err = ticket.Applied()
		} else {
			err = ticket.Wait(ctx)
		}
	}
	if err != nil && ctx.Err() != nil && s.db.Health() == nil && ticket != (embedded.Ticket{}) {
		s.finishLater(ticket, items)
	} else {
		s.release(items)
	}
	for i := range items {
		switch it := &items[i]; {
		case !it.fresh:
		case err != nil:
			s.fail(it.out, err)
		default:
			failpoint.Hit(failpoint.SaverPublishSynced)
			s.locate(it.p.Product, it.out.Own, it.out.Common)
		}
	}
}

func (s *Store) release(items []item) {
	for i := range items {
		if items[i].claimed {
			s.claims.release(items[i].hash, keyClaim(items[i].p))
		}
	}
}

// finishLater does what Publish would have done, had its context not ended before the flush: the caller is told that
// the outcome is unknown, but rooms learn of the entries from their logs, and keys stay claimed until a repeat may be
// answered.
func (s *Store) finishLater(ticket embedded.Ticket, items []item) {
	later := make([]item, len(items))
	for i, it := range items {
		published := *it.out // the caller's own is about to be overwritten
		// The publication belongs to the caller, but for its names.
		later[i] = item{
			p:   &saver.Publication{Product: it.p.Product, Key: it.p.Key},
			out: &published, hash: it.hash, claimed: it.claimed, fresh: it.fresh,
		}
	}
	s.calls.Add(1)
	go func() {
		defer s.calls.Done()
		err := ticket.Wait(context.Background())
		s.release(later)
		for i := range later {
			if it := &later[i]; it.fresh && err == nil {
				s.locate(it.p.Product, it.out.Own, it.out.Common)
			}
		}
	}()
}

// answerRepeat answers a publication whose key is known. The claim is held, so whoever stored the key has been through
// the flush; if that failed, so has the database.
func (s *Store) answerRepeat(it *item) {
	now := s.now()
	k, found, err := s.lookupKey(it.p, it.hash, now)
	switch {
	case err != nil:
		s.fail(it.out, err)
	case !found:
		return
	default:
		*it.out = k.Repeat(it.p, s.db.Lineage(), now)
		if it.out.Err != nil {
			it.out.Err = fmt.Errorf("saver: publish: %w", it.out.Err)
		}
		if err := s.db.Health(); err != nil {
			s.fail(it.out, err)
		}
	}
	it.fresh = false
}

// store submits the fresh publications as one batch.
func (s *Store) store(items []item) (embedded.Ticket, error) {
	var buf [16]int
	numbers := buf[:0]
	for i := range items {
		p := items[i].p
		switch {
		case !items[i].fresh || !p.Message.Persistent:
		case p.Everyone:
			for n := range p.Shards {
				numbers = append(numbers, s.stripeOf(saver.ShardRef{Product: p.Product, Shard: push.Shard(n)}))
			}
		default:
			for j := range p.Own {
				ref := saver.ShardRef{Product: p.Product, Shard: push.ShardOf(p.Own[j].User, p.Shards)}
				numbers = append(numbers, s.stripeOf(ref))
			}
		}
	}
	t := s.begin(numbers)
	for i := range items {
		if !items[i].fresh {
			continue
		}
		if err := t.publish(&items[i]); err != nil {
			t.giveUp()
			return embedded.Ticket{}, err
		}
	}
	return t.submit(true)
}

// publish puts one publication into the batch.
func (t *tx) publish(it *item) error {
	p, out := it.p, it.out
	m := saver.Stamp(p, t.now)
	*out = saver.Published{Message: m, Lineage: t.lineage, Now: t.now}
	if p.Key != "" {
		t.putKey(p, it.hash, m)
	}
	if !m.Persistent {
		return nil
	}
	e := saver.Stored{
		Kind: saver.EntryMessage, ID: m.ID, Expires: m.Expires, Size: m.Size(), CollapseKey: m.CollapseKey,
	}
	rec := saver.StoredRecord{Record: saver.Record{Message: m, Everyone: p.Everyone}}
	if !p.Everyone && len(p.Own) == 1 {
		e.Message = m
	} else {
		t.putBucket(p.Product, m)
	}
	var err error
	if p.Everyone {
		rec.Filter = p.Filter
		err = t.publishCommon(p, &e, &rec, out)
	} else {
		err = t.publishOwn(p, &e, &rec, out)
	}
	if err != nil {
		return err
	}
	t.putRecord(p.Product, &rec)
	return nil
}

func (t *tx) publishCommon(p *saver.Publication, e *saver.Stored, rec *saver.StoredRecord, out *saver.Published) error {
	e.Filter = p.Filter
	out.Common = make([]saver.Placed, p.Shards)
	rec.Common = make([]push.Place, p.Shards)
	for i := range p.Shards {
		ref := saver.ShardRef{Product: p.Product, Shard: push.Shard(i)}
		sl, err := t.common(ref)
		if err != nil {
			return err
		}
		at, err := sl.append(t, e, p.Limits)
		if err != nil {
			return err
		}
		out.Common[i] = saver.Placed{Shard: ref.Shard, Place: at}
		rec.Common[i] = at
	}
	return nil
}

func (t *tx) publishOwn(p *saver.Publication, e *saver.Stored, rec *saver.StoredRecord, out *saver.Published) error {
	out.Own = make([]saver.Placed, len(p.Own))
	rec.Own = make([]saver.RecordPlace, len(p.Own))
	for i := range p.Own {
		target := &p.Own[i]
		ref := saver.ShardRef{Product: p.Product, Shard: push.ShardOf(target.User, p.Shards)}
		u, err := t.user(ref, target.User)
		if err != nil {
			return err
		}
		e.Filter = target.Filter
		at, err := u.own.append(t, e, p.Limits)
		if err != nil {
			return err
		}
		out.Own[i] = saver.Placed{User: target.User, Shard: ref.Shard, Place: at}
		rec.Own[i] = saver.RecordPlace{Target: *target, Place: at}
	}
	return nil
}
