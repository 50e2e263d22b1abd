// Package planted names bugs that tests put into the gateway, to see that its judges find them. Without the build tag
// `planted` every Is is a constant false, and the compiler removes what stands behind it; no release is built with it.
//
// With the tag, one bug at a time is on: the one that the environment variable CARILLON_PLANTED names, or Choose from
// inside a test. A name that is not listed here is refused.
//
// A judge that finds nothing is worth what it finds here: server/simulation has a case for each name but those of Redis, which
// server/saver/redis has, and their tests fail when a bug is not found, or a name has no case.
package planted

// Bug is a planted bug. The constants below are all there are; None is none of them.
type Bug string

// None is what is chosen when nothing is wrong.
const None Bug = ""

// The bugs, each with what is right.
const (
	// AcknowledgeBeforeStore: a publication is answered before it is flushed.
	AcknowledgeBeforeStore Bug = "acknowledge-before-store"
	// CursorByMessageID: a read goes on behind the id of the message at the cursor. Ids name messages, positions order them.
	CursorByMessageID Bug = "cursor-by-message-id"
	// RepeatsByPosition: a client takes what lies at a position that it handled for a repeat. Another message may lie there.
	RepeatsByPosition Bug = "repeats-by-position"
	// PositionsFromOne: a new slot, or one whose state was lost, begins at position 1. Positions never come again.
	PositionsFromOne Bug = "positions-from-one"
	// AcknowledgementsAsTheyCome: an acknowledgement is not judged by the lineage that it was given under.
	AcknowledgementsAsTheyCome Bug = "acknowledgements-as-they-come"
	// TailOverLineage: a room's cached tail outlives the lineage that it was read under.
	TailOverLineage Bug = "tail-over-lineage"
	// RegisterDelete: a session's end removes whatever session its device has. It may remove its own alone.
	RegisterDelete Bug = "register-delete"
	// NoSweep: nobody looks for notifications that were lost.
	NoSweep Bug = "no-sweep"
	// RemovalOnPush: what was written to a client counts as acknowledged.
	RemovalOnPush Bug = "removal-on-push"
	// IDsBeforeBound: ids are used while the bound that keeps them from being given again is on its way to the disk.
	IDsBeforeBound Bug = "ids-before-bound"
	// KickInRegisterOnly: a session that was replaced leaves the register and stays in its room.
	KickInRegisterOnly Bug = "kick-in-register-only"
	// PlacesByRoom: a session policy counts the sessions in the newcomer's room alone. A user's places are those in all rooms.
	PlacesByRoom Bug = "places-by-room"
	// KeyWithoutProduct: an idempotency key is known by its text, whichever product gave it.
	KeyWithoutProduct Bug = "key-without-product"
	// BlockingSend: a message that is not persistent waits for room in the queue of a slow client.
	BlockingSend Bug = "blocking-send"
	// FlushErrorIgnored: a flush that failed counts as one that did not.
	FlushErrorIgnored Bug = "flush-error-ignored"
	// AnswerAcknowledges: what a poll was answered with counts as acknowledged. The cursor of the next poll acknowledges.
	AnswerAcknowledges Bug = "answer-acknowledges"
	// KickUnheard: a kick is answered as if it was done, and the sessions that it names go on.
	KickUnheard Bug = "kick-unheard"
	// ContinuedIsReplaced: a session whose client goes on in another room is told that it was replaced, so that a client which comes
	// back to it, since the other room's answer was lost, stays away.
	ContinuedIsReplaced Bug = "continued-is-replaced"
	// MoveFromHead: a device that comes back over another transport begins at the heads of its slots, whatever cursor it shows.
	MoveFromHead Bug = "move-from-head"

	// TokenIDIgnored: a revocation of one token ends all sessions of its user.
	TokenIDIgnored Bug = "token-id-ignored"
	// TokenIDUnheard: a revocation of a token is stored, and finds no session.
	TokenIDUnheard Bug = "token-id-unheard"
	// TagsUnheard: a room that is told that tags were changed does not look at them.
	TagsUnheard Bug = "tags-unheard"
	// JoinedForSet: what a client joins is kept with what the product's server set.
	JoinedForSet Bug = "joined-for-set"
	// TagsNotRead: what is read from a slot is judged by device, platform and class alone, not by tags.
	TagsNotRead Bug = "tags-not-read"
	// CollapseOverFilters: a message takes the place of an older one of its key that was for others.
	CollapseOverFilters Bug = "collapse-over-filters"

	// TagsUntold: a room tells the register of no tag, and takes what it is told without a body for what concerns nobody here.
	TagsUntold Bug = "tags-untold"

	// Those below are of Redis alone; see OnRedis.

	// NoWait: a write counts as replicated when the primary has answered, and no replica is asked for.
	NoWait Bug = "no-wait"
	// WaitElsewhere: replicas are waited for on another connection than the write went over, and so for what there was when that one said
	// something last.
	WaitElsewhere Bug = "wait-elsewhere"
	// ReplicaRead: what is read is read from a replica, which may be behind.
	ReplicaRead Bug = "replica-read"
	// ClientRetries: the Redis client sends again by itself what it got no answer to, though it may have been executed.
	ClientRetries Bug = "client-retries"

	// Those below were there: the simulation, or the work on it, found them first.

	// TailOverGap: a cached tail covers what a limit had dropped before it was read, so that nobody is told of the gap.
	TailOverGap Bug = "tail-over-gap"
	// LeaseForgotten: a room that had lost its lease does not look for what was sent meanwhile.
	LeaseForgotten Bug = "lease-forgotten"
	// OpenBeforeFlush: a device that connects is told a lineage that is not flushed, and shows it when the power took it back.
	OpenBeforeFlush Bug = "open-before-flush"
	// DeviceForgotten: a room leaves a device alone that a store which fell back does not know any more.
	DeviceForgotten Bug = "device-forgotten"
)

// All lists every bug, but for those of OfTasks and of OfRunners.
func All() []Bug {
	return []Bug{
		AcknowledgeBeforeStore, CursorByMessageID, RepeatsByPosition, PositionsFromOne, AcknowledgementsAsTheyCome,
		TailOverLineage, RegisterDelete, NoSweep, RemovalOnPush, IDsBeforeBound, KickInRegisterOnly, PlacesByRoom,
		KeyWithoutProduct, BlockingSend, FlushErrorIgnored, AnswerAcknowledges, KickUnheard, MoveFromHead, TailOverGap, LeaseForgotten,
		OpenBeforeFlush, DeviceForgotten, TokenIDIgnored, TokenIDUnheard, TagsUnheard, JoinedForSet,
		TagsNotRead, CollapseOverFilters, ContinuedIsReplaced, TagsUntold,
		NoWait, WaitElsewhere, ReplicaRead, ClientRetries,
	}
}

// The bugs of tasks, each with what is right.
const (
	// BatchWithoutFence: a batch of a task is written whatever its token is.
	BatchWithoutFence Bug = "batch-without-fence"
	// BatchUnmarked: nobody looks whether a batch of a task is written already.
	BatchUnmarked Bug = "batch-unmarked"
)

// OfTasks lists those of tasks. The suites of the stores find them, and the simulation.
func OfTasks() []Bug { return []Bug{BatchWithoutFence, BatchUnmarked} }

// The bugs of whoever runs tasks, each with what is right.
const (
	// TaskCheckpointFirst: a batch counts as written before it is. Whoever takes the task over goes on behind it.
	TaskCheckpointFirst Bug = "task-checkpoint-first"
	// TaskTokenKept: a task that is paused, stopped or recalled keeps its token, so that whoever writes it at that moment may go on.
	TaskTokenKept Bug = "task-token-kept"
)

// OfRunners lists those of whoever runs tasks.
func OfRunners() []Bug { return []Bug{TaskCheckpointFirst, TaskTokenKept} }

// OnRedis lists those that only a real Redis can show. The simulation has none.
func OnRedis() []Bug { return []Bug{NoWait, WaitElsewhere, ReplicaRead, ClientRetries} }
