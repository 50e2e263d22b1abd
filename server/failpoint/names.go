// Package failpoint names the points at which tests make a node fail. Without the build tag `failpoints` every Hit is an
// empty function that the compiler removes; no release is built with it.
//
// With the tag, the environment variable CARILLON_FAILPOINT arms points from outside, and Set from inside a test:
//
//	CARILLON_FAILPOINT='saver.publish.applied=kill@3,center.publish.stored=error'
//
// kill ends the process with SIGKILL at the n-th hit (1 if not said), so that nothing is flushed or said goodbye to;
// error makes HitErr return an error from that hit on. A name that is not listed here is refused at start.
package failpoint

// Name is a failpoint. The constants below are all there are; the kill-point tests run each of them, and fail when one has
// no case.
type Name string

// The points, in the order in which a message meets them.
const (
	// IDsReserved: a block of ids is stored, none of it is used yet.
	IDsReserved Name = "ids.reserved"
	// SaverPublishApplied: a publication is applied and visible, but not yet flushed.
	SaverPublishApplied Name = "saver.publish.applied"
	// SaverPublishSynced: it is flushed, and nobody was told.
	SaverPublishSynced Name = "saver.publish.synced"
	// CenterPublishStored: center knows that it is stored; rooms were not notified, the sender not answered.
	CenterPublishStored Name = "center.publish.stored"
	// CenterPublishNotified: rooms were notified, the sender not answered.
	CenterPublishNotified Name = "center.publish.notified"
	// CenterRecallStored: a recall is stored; rooms were not notified.
	CenterRecallStored Name = "center.recall.stored"
	// RoomNotified: a room got a delivery and has done nothing with it.
	RoomNotified Name = "room.notified"
	// SaverOpenApplied: a device's cursors are applied, but not yet flushed.
	SaverOpenApplied Name = "saver.open.applied"
	// RoomOpened: a device is registered and opened; it was not welcomed.
	RoomOpened Name = "room.opened"
	// RoomAckTaken: an acknowledgement was taken from its session, and not given to the store.
	RoomAckTaken Name = "room.ack.taken"
	// SaverAckApplied: it is applied, and what it frees is freed, but neither is flushed.
	SaverAckApplied Name = "saver.ack.applied"
	// SaverRecallApplied: a recall is applied, but not yet flushed.
	SaverRecallApplied Name = "saver.recall.applied"
	// SaverSweepApplied: a part of the sweep of expired things is applied.
	SaverSweepApplied Name = "saver.sweep.applied"
	// CatalogWritten: a product, key or policy is applied, but not yet flushed.
	CatalogWritten Name = "catalog.written"
)

// Points that only stores on Redis have, in order.
const (
	// SaverKeyClaimed: the idempotency keys of a run are taken, and nothing else is stored.
	SaverKeyClaimed Name = "saver.key.claimed"
	// SaverBodyStored: the body of a publication to several slots is stored, and nothing points at it.
	SaverBodyStored Name = "saver.body.stored"
	// SaverIntentStored: such a publication is accepted, and no slot is written.
	SaverIntentStored Name = "saver.intent.stored"
	// SaverRecallStored: the recall of such a publication is accepted, and no slot is written.
	SaverRecallStored Name = "saver.recall.stored"
)

// Points that only nodes on Redis have, outside their saver.
const (
	// RedisAnswered: Redis has done what a batch of writes of several callers asked, and none of them knows.
	RedisAnswered Name = "redis.answered"
	// RegisterJoined: a room's lease is in the table, and the room does not know.
	RegisterJoined Name = "register.joined"
	// RegisterWritten: a change of a user's sessions is in the register; rooms that have to end some were not told.
	RegisterWritten Name = "register.written"
)

// Points that only a running task meets.
const (
	// SaverFenceApplied: the token of a task is raised in every shard, and the raise not flushed, or nobody told.
	SaverFenceApplied Name = "saver.fence.applied"
	// SaverBatchApplied: batches of a task are applied, and not flushed, or nobody was told.
	SaverBatchApplied Name = "saver.batch.applied"
	// TaskWritten: a task's record is applied, and nobody knows.
	TaskWritten Name = "task.written"
)

// All lists every point that a single node has.
func All() []Name {
	return []Name{
		IDsReserved, SaverPublishApplied, SaverPublishSynced, CenterPublishStored, CenterPublishNotified, CenterRecallStored,
		RoomNotified, SaverOpenApplied, RoomOpened, RoomAckTaken, SaverAckApplied, SaverRecallApplied, SaverSweepApplied, CatalogWritten,
	}
}

// OfCluster lists the points that only nodes on Redis have, outside their saver.
func OfCluster() []Name { return []Name{RedisAnswered, RegisterJoined, RegisterWritten} }

// OnRedis lists the points that only stores on Redis have.
func OnRedis() []Name {
	return []Name{SaverKeyClaimed, SaverBodyStored, SaverIntentStored, SaverRecallStored}
}

// OfTasks lists the points of tasks, on whatever store they lie.
func OfTasks() []Name { return []Name{SaverFenceApplied, SaverBatchApplied, TaskWritten} }
