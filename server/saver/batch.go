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
type Batches interface {
	// Fence raises the token of a task in every shard, and stores what the batches under it share. When it has returned, no batch under an older token is written any
	// more. Repeating it is harmless. KindConflict, "fenced": a shard holds a higher token.
	Fence(ctx context.Context, f Fence) error
	// Batches writes batches, each whole or not at all. Each has its own result; the slice of results is as long as the argument.
	Batches(ctx context.Context, bs []*Batch) []Batched
	// BatchRecords tells where the entries of batches came to lie. The result is as long as ns; nil: that batch is not written.
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
	Until   push.MilliTime // how long the store remembers it: no sooner than RecordKept after the message expires
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
	Bodies [][]byte // by target, in place of the message's; nil: the message's for all. They lie in the entries, whatever their size

	Everyone bool         // the common slot of the shard
	Filter   *push.Filter // with Everyone

	// Recall takes back what the batch wrote, as [Store.Recall] does, in place of writing it. Own, Bodies, Everyone and Filter are as when it was written. One that was not written is
	// not taken back: it is Absent, and that is no error.
	Recall bool
}

// Batched is the result of one batch.
type Batched struct {
	Found   bool     // it had been written, or taken back, before; Own and Common are the places of that time
	Absent  bool     // of a recall: there was nothing to take back
	Own     []Placed // as Batch.Own
	Common  []Placed // one, if for everyone
	Lineage push.Lineage
	Now     push.MilliTime
	Err     error // KindConflict, "fenced": another token counts in the shard. KindTooLarge: it fits in no slot. KindUnavailable: unknown, the same batch may be given again.
}

// BatchesRef names the batches of a message in a shard.
type BatchesRef struct {
	ShardRef
	ID push.MsgID
}

// BatchRecord is where the entries of one batch lie, or lay.
type BatchRecord struct {
	Own      []RecordPlace  // if for users. The filter is not told: whoever made the batch knows it
	Common   push.Place     // if for everyone
	Recalled push.MilliTime // when it was taken back; 0 if it was not
	Now      push.MilliTime
}

// ErrFenced returns the error of a batch, or a fence, whose token is not the one that counts.
func ErrFenced() error {
	return push.Errorf(push.KindConflict, "fenced", "somebody else has taken over, or the task was stopped")
}
