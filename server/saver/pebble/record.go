package pebble

import (
	"context"
	"fmt"
	"slices"

	"carillon/server/push"
	"carillon/server/saver"
)

// putKey notes a publication's idempotency key, of that hash.
func (t *tx) putKey(p *saver.Publication, hash uint64, m *push.Message) {
	k := saver.KeyRecordOf(p, m)
	h := hourAfter(k.Until)
	if g := t.s.keyGens.note(h); g.filter != nil {
		g.filter.add(hash)
	}
	t.key = idempotencyKey(t.key[:0], h, keyProduct(p), p.Key)
	t.val = saver.AppendKey(t.val[:0], &k)
	t.b.Set(t.key, t.val)
}

// lookupKey returns what is remembered of a publication's key.
func (s *Store) lookupKey(p *saver.Publication, hash uint64, now push.MilliTime) (saver.KeyRecord, bool, error) {
	var kbuf, vbuf [128]byte
	for _, g := range s.keyGens.from(hourOf(now) + 1) {
		if g.filter != nil && !g.filter.mayHave(hash) {
			continue
		}
		v, found, err := s.db.Get(vbuf[:0], idempotencyKey(kbuf[:0], g.hour, keyProduct(p), p.Key))
		if err != nil {
			return saver.KeyRecord{}, false, err
		}
		if !found {
			continue
		}
		k, err := saver.DecodeKey(v)
		if err != nil {
			return saver.KeyRecord{}, false, err
		}
		if k.Known(now) {
			return k, true, nil
		}
	}
	return saver.KeyRecord{}, false, nil
}

// putBucket stores a body that several slots share.
func (t *tx) putBucket(p push.ProductID, m *push.Message) {
	t.key = messageKey(t.key[:0], spaceBucket, forgetHour(m.Expires), p, m.ID)
	t.val = saver.AppendMessage(t.val[:0], m)
	t.b.Set(t.key, t.val)
}

// bucket returns the message in a bucket, nil if it is gone.
func (s *Store) bucket(p push.ProductID, id push.MsgID, expires push.MilliTime) (*push.Message, error) {
	v, found, err := s.db.Get(nil, messageKey(nil, spaceBucket, forgetHour(expires), p, id))
	if err != nil || !found {
		return nil, err
	}
	return saver.DecodeMessage(v)
}

// putRecord stores a message's record, or replaces it.
func (t *tx) putRecord(p push.ProductID, r *saver.StoredRecord) {
	h := forgetHour(r.Message.Expires)
	t.s.msgGens.note(h)
	t.key = messageKey(t.key[:0], spaceMessage, h, p, r.Message.ID)
	t.val = saver.AppendRecord(t.val[:0], r)
	t.b.Set(t.key, t.val)
}

// lookupRecord returns a message's record, or ErrNoMessage.
func (s *Store) lookupRecord(p push.ProductID, id push.MsgID, now push.MilliTime) (saver.StoredRecord, error) {
	for _, g := range slices.Backward(s.msgGens.from(hourOf(now) + 1)) {
		v, found, err := s.db.Get(nil, messageKey(nil, spaceMessage, g.hour, p, id))
		if err != nil {
			return saver.StoredRecord{}, err
		}
		if !found {
			continue
		}
		r, err := saver.DecodeRecord(v)
		if err == nil && r.Forgotten(now) {
			err = saver.ErrNoMessage()
		}
		return r, err
	}
	return saver.StoredRecord{}, saver.ErrNoMessage()
}

// Message looks into each hour in which a message's record may be forgotten, the last one first.
func (s *Store) Message(_ context.Context, p push.ProductID, id push.MsgID) (saver.Record, error) {
	if err := s.enter("message"); err != nil {
		return saver.Record{}, err
	}
	defer s.calls.Done()
	now := s.now()
	r, err := s.lookupRecord(p, id, now)
	if err != nil {
		return saver.Record{}, fmt.Errorf("saver: message: %w", err)
	}
	r.Now = now
	return r.Record, nil
}
