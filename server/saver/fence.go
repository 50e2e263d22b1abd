package saver

import (
	"carillon/server/planted"
	"carillon/server/push"
)

// This file holds what every store decides the same way of the batches of a task, as slots.go does of slots.

// StoredFence is a fence as stores keep it, under a key that names the message.
type StoredFence struct {
	Token uint64
	Until push.MilliTime
	Body  bool // the message's body lies in a bucket
}

// Known reports whether a fence is still remembered. Nothing that was written under one that is not counts any more.
func (f *StoredFence) Known(now push.MilliTime) bool { return f.Token > 0 && now < f.Until }

// Admits returns nil if batches under a token are written.
func (f *StoredFence) Admits(token uint64, now push.MilliTime) error {
	if planted.Is(planted.BatchWithoutFence) {
		return nil
	}
	if !f.Known(now) || f.Token != token {
		return ErrFenced()
	}
	return nil
}

// Raise returns what takes the place of a fence, which is zero if there is none, when to comes. body says that the message's body was put in a bucket for it.
func (f *StoredFence) Raise(to *Fence, body bool, now push.MilliTime) (StoredFence, error) {
	if !f.Known(now) {
		return StoredFence{to.Token, to.Until, body}, nil
	}
	if f.Token > to.Token {
		return StoredFence{}, ErrFenced()
	}
	return StoredFence{to.Token, max(f.Until, to.Until), f.Body || body}, nil
}

// StoredBatch is the record of a batch as stores keep it, under a key that names message, shard and number. All of Places are of one lineage, and so are
// all of Recalls.
type StoredBatch struct {
	Everyone bool
	Users    []push.UserID // if not for everyone
	Places   []push.Place  // by user, or one
	Recalled push.MilliTime
	Recalls  []push.Place // as Places, if it was taken back
}

// Of returns nil if the record is of this batch. KindInvalid, "batch_differs": another batch was written under its number.
func (s *StoredBatch) Of(b *Batch) error {
	same := s.Everyone == b.Everyone && len(s.Users) == len(b.Own)
	for i := 0; same && i < len(s.Users); i++ {
		same = s.Users[i] == b.Own[i].User
	}
	if !same {
		return push.Errorf(push.KindInvalid, "batch_differs", "another batch was written under that number")
	}
	return nil
}

// Record returns what is told of the batch.
func (s *StoredBatch) Record(now push.MilliTime) *BatchRecord {
	r := &BatchRecord{Recalled: s.Recalled, Now: now}
	if s.Everyone {
		r.Common = s.Places[0]
		return r
	}
	r.Own = make([]RecordPlace, len(s.Users))
	for i, u := range s.Users {
		r.Own[i] = RecordPlace{Target: Target{User: u}, Place: s.Places[i]}
	}
	return r
}
