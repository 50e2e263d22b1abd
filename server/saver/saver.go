// Package saver is the contract over what is stored per user: slots, the buckets they point at, the cursors of devices,
// the tags of users and devices, and the change logs that tell a room what it may have missed.
//
// # Place in the flow
//
// Center calls Publish, and afterwards notifies the rooms that the answer names. A room calls Open when a device
// connects, Read to catch up, Ack for what devices handled, and Changes every few seconds: a notification is a hint, the
// slot is the truth. Implementations are memory, pebble and (on several nodes) redis, all behind the suite savertest.
//
// # Invariants
//
//   - What Publish answered without error is stored at the store's [push.Durability], whole: in every slot it was meant
//     for, or, if the store cannot write them in one step, as a record that will be finished.
//   - A slot is an ordered log of positions. Positions rise by one with every append, recalls included. Holes appear
//     below the head (expiry, recall, collapse, acknowledgement by all, limits) and are never filled.
//   - A slot's epoch, head and notes outlive its entries and every cursor in it.
//   - A cursor place is judged by [push.SlotState.Resolve], whoever presents it, before it moves or frees anything.
//   - Entries are freed when every device of the user acknowledged them, when they expire, are recalled or collapsed, or
//     by a limit; only the last raises the slot's Floor. For a while after a lineage began acknowledgements free nothing that
//     came under it (ReopenWithin), since some of the devices may have been forgotten.
//   - Limits count what is live: holes count nothing, and an expired entry gives way before a live one.
//   - Expiry is judged by the store's clock, which every reply carries.
//   - The same idempotency key with the same digest stores one message, however often and however concurrently it comes.
//   - An entry's body is stored before the entry can be read, and lives longer.
//   - A batch of a task is written once, and only under the token that its shard holds then (see [Batches]).
//
// Bodies shared by several slots are stored once, in a bucket named by the message id; a body for one user lies in the
// entry. Read resolves both, so that callers see no difference.
package saver

import (
	"context"
	"time"

	"carillon/server/push"
)

// Store keeps what is stored per user. All methods are safe for concurrent use. They never retry by themselves. A
// [push.Error] of KindUnavailable means that nothing is known about the outcome of a write: the caller repeats it with
// the same idempotency key, or answers 503. After Close every method fails with KindClosed. Arguments belong to the store
// during the call only, except messages, which it may keep (they are immutable); results belong to the caller.
type Store interface {
	// Publish stores publications, in the order given where two meet in a slot. Each has its own result; the slice of
	// results is as long as the argument. Publications of one call share flushes and round trips, so callers batch.
	Publish(ctx context.Context, ps []*Publication) []Published

	// Recall makes every entry of a message a hole and appends an entry of kind EntryRecall to each slot it was in, in
	// one step a shard. Repeating it appends nothing and answers the same. KindNotFound: no such message is on record.
	// A recall entry has the filter of the original, counts for RecallSize in the limits, and expires as RecallExpires says.
	Recall(ctx context.Context, r Recall) (Recalled, error)

	// Message returns what is on record about a persistent message, until it expired or an hour longer. KindNotFound
	// if nothing is.
	Message(ctx context.Context, p push.ProductID, id push.MsgID) (Record, error)

	Batches

	// Open is a device's arrival: it creates the device if it is new, stores its cursor entries, notes that it was seen,
	// and judges where each slot begins for it. KindLimited, code "too_many_devices": the user has as many devices as the
	// limits allow and all of them are online.
	Open(ctx context.Context, o Open) (Opened, error)

	// Read returns entries after a place. Reading is repeatable and changes nothing. Each request has its own result.
	Read(ctx context.Context, rs []Read) ([]Tail, error)

	// Ack moves stored cursors forward, never back, and frees what all devices of a user have acknowledged; it also notes
	// devices as seen. A place is judged first; one of an unknown epoch or lineage, and an unknown device, is passed over.
	// It returns which of the acknowledgements, by index and rising, were of unknown devices; nil if none was. One without
	// places that notes nothing asks just that.
	Ack(ctx context.Context, as []Ack) (unknown []int, err error)

	// User returns the devices of a user with their stored cursors, and the state of both slots. A user of whom nothing
	// is stored has no devices; that is no error.
	User(ctx context.Context, u UserRef) (User, error)

	// Devices returns what devices users have, of each by id. The result is as long as us; a user of whom nothing is stored has
	// none. It is for many users at once: round trips do not depend on how many.
	Devices(ctx context.Context, us []UserRef) ([][]push.DeviceFacts, error)

	// DeleteDevice forgets a device, its cursors and its tags, and reports whether there was one.
	DeleteDevice(ctx context.Context, u UserRef, d push.DeviceID) (bool, error)

	// Tags returns the tags that are kept for users and their devices. The result is as long as us; a user of whom nothing
	// is kept has none.
	Tags(ctx context.Context, us []UserRef) ([]UserTags, error)

	// ChangeTags changes tags of users and devices, in the order given where two meet. Each change has its own result and is
	// made whole or not at all; the slice of results is as long as the argument. One that is answered without error is
	// stored at the store's Durability, also if it changed nothing. A user needs no device to have tags, and keeps them
	// until they are removed; a device's tags go with the device. A device has at most push.MaxTags, its user's among them, and as many
	// of its token.
	ChangeTags(ctx context.Context, cs []TagChange) []TagsChanged

	// Tagged tells, for each of the product's shards by its number, who has a tag that is kept for them or for one of their
	// devices. It names at most most users of each shard, no matter which; most is at least 1. What it tells may be a moment old.
	Tagged(ctx context.Context, p push.ProductID, shards int, tag push.Tag, most int) ([]TaggedUsers, error)

	// Changes returns what was appended, since the given points, to slots that matter to a room. See ChangeLog.
	Changes(ctx context.Context, room push.RoomID, qs []ChangeQuery) ([]ChangeLog, error)

	// Heads returns where the own slots of users of one shard end: what a room compares when a change log was trimmed.
	// The result is as long as users; a user without a slot has the zero Place.
	Heads(ctx context.Context, s ShardRef, users []push.UserID) ([]push.Place, error)

	// Lineage returns the lineage of the store's present state.
	Lineage(ctx context.Context) (push.Lineage, error)

	// Durability returns what an accepted message survives. It does not change.
	Durability() push.Durability

	// Health returns nil if the store can accept a publish now, or why not.
	Health(ctx context.Context) error

	// Close releases the store. Calls under way fail or finish before it returns. Calling it again does nothing.
	Close() error
}

// Locator tells which rooms hold sessions of users. Stores that keep no register of their own (memory, pebble) are given
// one, and ask it after an append is stored and before Publish returns: whoever registered a session before that is
// named, whoever registers later reads the slot. register's implementations satisfy it.
type Locator interface {
	// RoomsOf returns the rooms with live sessions of each user; the result is as long as users.
	RoomsOf(p push.ProductID, users []push.UserID) [][]push.RoomID
	// RoomsIn returns the rooms with live sessions of any user of the shard.
	RoomsIn(p push.ProductID, s push.Shard) []push.RoomID
	// OnlineDevices returns the devices of a user that have a live session.
	OnlineDevices(p push.ProductID, u push.UserID) []push.DeviceID
}

// ShardRef names one shard of a product. UserRef names a user and carries the number of shards of the product, so that
// the user's shard can be told.
type (
	ShardRef struct {
		Product push.ProductID
		Shard   push.Shard
	}
	UserRef struct {
		Product push.ProductID
		Shards  int
		User    push.UserID
	}
)

// Shard returns the user's shard.
func (u UserRef) Shard() ShardRef { return ShardRef{u.Product, push.ShardOf(u.User, u.Shards)} }

// IdempotencyKey is the sender's name for one request, at most 255 bytes; empty means none. It is per product.
// Digest is a SHA-256 over what the request asked for.
type (
	IdempotencyKey string
	Digest         [32]byte
)

// Publication is one message and whom it is for: some users' own slots, or everyone's common slots, not both.
type Publication struct {
	Product push.ProductID
	Shards  int
	Limits  push.Limits // with defaults filled in

	Message *push.Message // with a fresh ID; Created and Expires are set by the store on a copy
	TTL     time.Duration // above 0, at most Limits.TTL; ignored if not persistent

	Key    IdempotencyKey
	Digest Digest

	Own      []Target // users, each once
	Found    bool     // whom it is for was found out by what users have now: of a repeat the first one's Own, or Everyone, counts. Own may be empty
	Everyone bool
	Filter   *push.Filter // with Everyone
}

// Target is one user's own slot, and which of the user's devices are meant.
type Target struct {
	User   push.UserID
	Filter *push.Filter // nil: all devices
}

// Published is the result of one publication. A publication that is not persistent writes its idempotency record, if it
// has a key, and no slot; Own and Common are nil then.
type Published struct {
	Message  *push.Message // as stored: the first one's id and times if it was a repeat (then without body)
	Repeated bool          // the key was known, with the same digest: nothing was appended again
	Own      []Placed      // as Publication.Own; nil if Repeated
	Common   []Placed      // by shard, if for everyone; nil if Repeated
	Lineage  push.Lineage  // of the store at the append
	Now      push.MilliTime
	Err      error // KindKeyReused: the key came with another digest. KindTooLarge: it fits in no slot. KindUnavailable.
}

// Placed is where a message came to lie in one slot, and the rooms that may hold readers of it.
type Placed struct {
	User  push.UserID // of an own slot
	Shard push.Shard
	Place push.Place // epoch, lineage and position of the entry; zero: it is accepted, and somebody appends it later
	Rooms []push.RoomID

	Filter *push.Filter // of a recall: that of the message it takes back; nil in what Publish returns, which the caller knows
}

// Recall asks to take a message back.
type Recall struct {
	Product push.ProductID
	Shards  int
	Limits  push.Limits
	ID      push.MsgID
}

// Recalled says which recall entries were appended, as Placed. First is false if it had been recalled before; the places
// are then those of the first time, and nobody needs to be notified.
type Recalled struct {
	First   bool
	Message *push.Message // without body
	Own     []Placed
	Common  []Placed
	Lineage push.Lineage
	Now     push.MilliTime
}

// Record is what is known of a stored message.
type Record struct {
	Message  *push.Message  // without body
	Recalled push.MilliTime // when it was; 0 if it was not
	Everyone bool
	Filter   *push.Filter  // with Everyone
	Own      []RecordPlace // if for users
	Common   []push.Place  // by shard, if for everyone
	Now      push.MilliTime
}

// RecordPlace is where a message lies, or lay, in one user's own slot. A place of zero, here and in Record.Common: it is not appended yet.
type RecordPlace struct {
	Target
	Place push.Place
}

// EntryKind says what an entry is.
type EntryKind uint8

// The kinds; they are stored.
const (
	EntryMessage EntryKind = 0
	EntryRecall  EntryKind = 1 // takes the message ID back
)

// Entry is one entry of a slot as Read returns it: live, its body resolved.
type Entry struct {
	Pos     push.Position
	Kind    EntryKind
	ID      push.MsgID
	Expires push.MilliTime
	Filter  *push.Filter
	Message *push.Message // nil for a recall, and if Lost
	Lost    bool          // the entry's bucket is gone before its time: a fault, to be told as a gap and alarmed
}

// Open is a device that arrives.
type Open struct {
	UserRef
	Facts      push.DeviceFacts
	Limits     push.Limits
	FirstVisit push.FirstVisit
	Presented  *push.Cursor // what the client showed; nil if it showed none, another's, or an unreadable one
}

// How says how a slot begins for a session.
type How uint8

// The ways.
const (
	Resumed   How = iota // at the presented cursor, or the stored one
	Beginning            // a new device, from the oldest entry
	AtHead               // a new device, from now on
	Reset                // the cursor was of an unknown epoch or lineage: everything retained comes again
)

// Opened is where a device begins.
type Opened struct {
	New       bool // the device was not known before
	Starts    [2]Start
	Forgotten []push.DeviceID // devices that had to make room
	Tags      KeptTags        // of the device that arrived
	Lineage   push.Lineage
	Now       push.MilliTime
}

// Start is where a device begins in one slot. If Floor is above At.Pos, entries in (At.Pos, Floor] were dropped by a limit.
type Start struct {
	At     push.Place
	How    How
	Head   push.Position
	Floor  push.Position
	Stored push.Place // the device's stored cursor, as the slot is now; zero: nothing is known of it
}

// Read asks for the entries of one slot after a place.
type Read struct {
	ShardRef
	Slot       push.SlotKind
	User       push.UserID // with push.Own
	From       push.Place
	MaxEntries int // at most that many; at least 1
	MaxBytes   int // no further one once their messages' Size reached it; at least 1
}

// Tail is what a read found. It covers (Start.Pos, Through]: what is in that range and not among Entries is a hole.
// A slot that does not exist has the zero State and Known false.
type Tail struct {
	State   push.SlotState
	Start   push.Place // From as judged by Resolve
	Known   bool       // false: epoch or lineage of From are unknown, Start is the origin
	Entries []Entry    // in order of position
	Through push.Position
	Lineage push.Lineage // of the store
	Now     push.MilliTime
}

// More reports whether the slot goes on after this tail.
func (t *Tail) More() bool { return t.Through < t.State.Head }

// Ack is one device's acknowledgement.
type Ack struct {
	UserRef
	Device push.DeviceID
	Places push.Cursor   // a zero Place leaves that slot's cursor where it is
	Seen   bool          // note the device as seen now
	Online time.Duration // added to the time the device was online in all
	Moved  *Moved        // if not nil, the store says there what became of it
}

// Moved is what an acknowledgement did to a device's stored cursors. Of several acknowledgements of a device, at once or one after the other, no two moved a
// cursor over the same position, as long as the store does not fall back. So whoever counts what a device acknowledged counts the entries in (From, To].
type Moved struct {
	Done bool // it was carried out for certain, also if the call failed because of others; without it the rest says nothing
	// Where the cursors stood before and after, as the slots were then; the same where nothing moved. Zero: the device or its place is unknown.
	From, To push.Cursor
}

// User is what is stored of a user.
type User struct {
	Devices []Device          // by id
	Slots   [2]push.SlotState // zero Epoch: the slot does not exist
	Lineage push.Lineage
	Now     push.MilliTime
}

// Device is one device with its stored cursors. Start is where it first began: what lies at or below it was not meant
// for this device.
type Device struct {
	push.DeviceFacts
	Since   push.MilliTime // first connect
	Seen    push.MilliTime // last time it was noted as seen
	Online  time.Duration  // in all, finished sessions only
	Cursors push.Cursor
	Start   push.Cursor
}

// TaggedUsers are the users of one shard who have a tag.
type TaggedUsers struct {
	Count int           // how many there are; counting stops at TaggedMost
	Users []push.UserID // some of them, each once: all, if there are no more than were asked for
}

// TaggedMost is where counting the users of a shard who have a tag stops.
const TaggedMost = 1 << 16

// ChangeQuery asks one shard's log for a room. The zero After asks from the oldest that is kept.
type ChangeQuery struct {
	ShardRef
	After uint64
}

// ChangeLog tells what was appended in a shard since the query's point, for one room. A log is capped: Trimmed means
// that some of it is gone and the room compares Heads. The common slot is not logged: its head alone is told.
type ChangeLog struct {
	Own     []Change
	Common  push.Place // the common slot's head; zero: there is no slot yet
	Next    uint64     // After of the next query
	Trimmed bool
	Lineage push.Lineage
}

// Change is one append to a user's own slot.
type Change struct {
	User  push.UserID
	Place push.Place
}
