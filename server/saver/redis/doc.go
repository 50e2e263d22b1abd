// Package redis keeps slots, cursors, tags and records on Redis, for any number of nodes at once. It is made of package
// redisdb: everything is read, decided in Go by the code that all stores share, and written if it still is what was read.
//
// # Place in the flow
//
// It stands where pebble stands on a single node. It asks no register who is online: the register's keys lie beside the
// slots, and an append reads them, and notes the change for the rooms, in its own step.
//
// # What lies where
//
// All of a shard carries the shard's tag (redisdb.ShardTag):
//
//	u:<user>  hash     own slot: field "o" its state (see packed.go), a field "d"+id a device
//	e:<user>  list     entries of the own slot, dense: the last is the one at the head, an empty element is a hole
//	x:<user>  hash     entries that were kept when the list was cut before them: position -> entry
//	k:<user>  hash     collapse identity -> position, size and expiry of the newest entry that has it
//	t:<user>  string   kept tags
//	g:<tag>   set      users for whom, or for a device of whom, the tag is kept
//	n:<id>       hash  a message that a task writes in batches: "f" its token in the shard, and by number the records of the batches; expires
//	S: E: X: K:        the same for the common slot of the shard; "v" in S: is the day on which a device was last seen
//	r:<id/2^25>  hash  records of messages of some seconds, by id (and ":n" for the n-th chunk of users)
//
// What is of no shard has tags of its own, by hash:
//
//	keys<n>     i:<hash>         string  record of an idempotency key; expires
//	bodies<n>   b:<product/id>   string  the body that several slots share, if it is not small; expires
//	intents<n>  w:<product/id>   string  a publication to several slots, whole; expires
//	            P:               hash    those not finished yet -> until when somebody is busy with it
//
// # Invariants
//
//   - A slot's state changes whenever its list does, and no state comes twice. So a write on the condition that the state is
//     still what was read knows the list too.
//   - The list holds exactly the positions above the state's base, so an entry's index is known from its position. The
//     elements before base that are still kept lie in x. Each entry is moved there at most once, so a slot of few entries and
//     many holes costs what its entries cost.
//   - A collapse identity is in k exactly while the entry it names is kept.
//   - A device comes or goes together with a change of the own slot's state. So whoever frees what all devices acknowledged knows
//     them all.
//   - A message's record is written in the step of its append. Where the append may be tried again under the same id (by a repeat under
//     its idempotency key, or by whoever finishes the publication of a node that died) the record is looked for, after the
//     states of the slots: whoever appends the message changes those. So an append happens once.
//   - A publication to several slots is stored as a whole, durably, before the first slot is written. It is accepted then: whatever
//     happens, somebody finishes it ([Store.Run]), and nobody is told of an error.
//   - A body is durable before the first entry that needs it, and lives longer.
//   - A batch of a task is written on the condition that the token of its shard, and its record, are what was read. Both lie in one hash, which
//     expires as a whole: a batch whose record is gone is refused.
//   - Times to live of keys only free memory. Whether something is expired or forgotten is judged by its value.
//   - Locks (package-private turns) only keep writers of one node from getting in each other's way; nothing relies on them.
package redis
