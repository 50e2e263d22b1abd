package saver

import (
	"context"

	"carillon/server/push"
)

// Batches are how a task writes its message: to many users, bit by bit, by whoever runs the task at the moment. All methods are safe for
// concurrent use and repeatable; what is said of [Store] holds here too. Every Store is a Batches.
//
// A task has one message under one id. Its batches are settled before the first is written: batch n of a shard is for the same users whoever writes it, and
// the store remembers with the entries, in one step, that it is written. So a batch that is written twice is written once. A token keeps out
// who was stopped, or taken for dead: a batch is written only if its token is the one that the fence of its shard holds at that moment.
//
// What is remembered of the batches lasts until their fence is over; a batch that comes after that is refused. Message and Recall of [Store] know nothing
// of a message that is written in batches; Read, Open and Ack see no difference.
type Batches interface {
	// Fence raises the token of a task in every shard, and stores what the batches under it share. When it has returned, no batch under an older token is written any
	// more. Repeating it is harmless. KindConflict, "fenced": a shard holds a higher token; others may have been raised.
	Fence(ctx context.Context, f Fence) error
	// Batches writes batches, each whole or not at all, in no order. Each has its own result; the slice of results is as long as the argument. Batches of
	// one call share flushes and round trips: 16 to 64 of different shards are a good number.
	Batches(ctx context.Context, bs []*Batch) []Batched
	// BatchRecords tells where the entries of batches came to lie. The result is as long as ns; nil: that batch is not written, or forgotten.
	BatchRecords(ctx context.Context, ref BatchesRef, ns []int) ([]*BatchRecord, error)
}

// BatchMost is how many users a batch has at most.
const BatchMost = 64

// Fence is the token under which a task's message is written from now on.
type Fence struct {
	Product push.ProductID
	Shards  int
	ID      push.MsgID
	Token   uint64         // at least 1
	Until   push.MilliTime // how long the store remembers it: no sooner than RecordKept after the message expires. A later fence may prolong it, and not shorten
	Message *push.Message  // with its body, if batches without bodies of their own are to follow; nil: nothing is to be written, or each has its body
}

// Batch is one part of a task's message: some users of one shard, or its common slot.
type Batch struct {
	Product push.ProductID
	Shards  int
	Limits  push.Limits   // with defaults filled in
	Message *push.Message // persistent, Created and Expires set: the same in all batches but for the body
	Token   uint64
	Shard   push.Shard
	Number  int // from 0 on; at most 1<<24. Those of the common slot and of own slots of one message do not share numbers in a shard

	Own    []Target // of the shard, each once, at most BatchMost
	Bodies [][]byte // by target, in place of the message's; nil: the message's for all. They lie in the entries, whatever their size. A recall needs none

	Everyone bool         // the common slot of the shard
	Filter   *push.Filter // with Everyone

	// Recall takes back what the batch wrote, as [Store.Recall] does, in place of writing it. Own, Everyone and Filter are as when it was written. One that was not written is
	// not taken back: it is Absent, and that is no error.
	Recall bool
}

// Batched is the result of one batch.
type Batched struct {
	Found   bool     // it had been written, or taken back, before; Own and Common are the places of that time, with the rooms of now
	Absent  bool     // of a recall: there was nothing to take back
	Own     []Placed // as Batch.Own
	Common  []Placed // one, if for everyone
	Lineage push.Lineage
	Now     push.MilliTime
	// KindConflict, "fenced": another token counts in the shard, or none. KindTooLarge: it fits in no slot. KindUnavailable: unknown, the same batch may be
	// given again. KindInvalid: it is no batch ("invalid_batch"), or another one was written under its number ("batch_differs").
	Err error
}

// BatchesRef names the batches of a message in a shard.
type BatchesRef struct {
	ShardRef
	ID push.MsgID
}

// BatchRecord is where the entries of one batch lie, or lay.
type BatchRecord struct {
	Own      []RecordPlace  // if for users. The filters are not told: whoever made the batch knows them
	Common   push.Place     // if for everyone
	Recalled push.MilliTime // when it was taken back; 0 if it was not
	Now      push.MilliTime
}

// CheckFence reports what is wrong with a fence: KindInvalid.
func CheckFence(f *Fence) error {
	switch {
	case f.ID <= 0 || f.Token == 0 || f.Until <= 0 || f.Shards <= 0:
		return push.Errorf(push.KindInvalid, "invalid_fence", "a fence has an id, a token, an end, and shards")
	case f.Message != nil && f.Message.ID != f.ID:
		return push.Errorf(push.KindInvalid, "invalid_fence", "a fence has the message of its id")
	}
	return nil
}

// CheckBatch reports what is wrong with a batch before anything of it is stored: KindInvalid, or KindTooLarge if it fits in no slot of the kind that it is for.
func CheckBatch(b *Batch) error {
	m := b.Message
	wrong := ""
	switch {
	case m == nil || m.ID <= 0 || !m.Persistent || m.Created <= 0 || m.Expires <= m.Created:
		wrong = "a batch has a persistent message with an id, created before it expires"
	case b.Shards <= 0 || int(b.Shard) >= b.Shards || b.Number < 0 || b.Number > 1<<24:
		wrong = "a batch has a shard of its product, and a number"
	case b.Everyone == (len(b.Own) > 0) || len(b.Own) > BatchMost:
		wrong = "a batch is for some users, at most 64, or for everyone"
	case len(b.Bodies) > 0 && len(b.Bodies) != len(b.Own):
		wrong = "a batch has a body for each user, or none"
	case !canBeKept(b.Filter):
		wrong = "an expression over tags is within its limits and in canonical form"
	}
	for i := range b.Own {
		if wrong != "" {
			break
		}
		t := &b.Own[i]
		if push.ShardOf(t.User, b.Shards) != b.Shard {
			wrong = "the users of a batch are of its shard"
		}
		if !canBeKept(t.Filter) {
			wrong = "an expression over tags is within its limits and in canonical form"
		}
		for j := range i {
			if b.Own[j].User == t.User {
				wrong = "a batch has each user once"
			}
		}
	}
	if wrong != "" {
		return push.Errorf(push.KindInvalid, "invalid_batch", "%s", wrong)
	}
	k, size := push.Own, m.Size()
	if b.Everyone {
		k = push.Common
	}
	if len(b.Bodies) > 0 {
		size -= len(m.Body)
		longest := 0
		for _, body := range b.Bodies {
			longest = max(longest, len(body))
		}
		size += longest
	}
	if _, most := SlotLimits(k, b.Limits); size > most && !b.Recall {
		return push.Errorf(push.KindTooLarge, "message_too_large", "a message of more bytes than its slot may hold")
	}
	return nil
}

// MessageOf returns the message for the i-th target of a batch.
func (b *Batch) MessageOf(i int) *push.Message {
	if len(b.Bodies) == 0 {
		return b.Message
	}
	m := *b.Message
	m.Body = b.Bodies[i]
	return &m
}

// Placed returns the places of the batch that came to lie at some, as Batched has them: those of a recall have the filters of what it takes back.
func (b *Batch) Placed(places []push.Place) (own, common []Placed) {
	out := make([]Placed, len(places))
	for i := range out {
		pl := &out[i]
		pl.Shard, pl.Place = b.Shard, places[i]
		f := b.Filter
		if !b.Everyone {
			pl.User, f = b.Own[i].User, b.Own[i].Filter
		}
		if b.Recall {
			pl.Filter = CloneFilter(f)
		}
	}
	if b.Everyone {
		return nil, out
	}
	return out, nil
}

// ErrFenced returns the error of a batch, or a fence, whose token is not the one that counts.
func ErrFenced() error {
	return push.Errorf(push.KindConflict, "fenced", "somebody else has taken over, or the task was stopped")
}
