// Package redisdb is what all that lies on Redis shares: the connection to it in each of its three forms, the layout of keys, and
// two operations, one that reads several keys at one moment and one that changes them if they still are what was read.
//
// # Place in the flow
//
// saver/redis, register/redis, catalog/redis and idgenerator/redis are made of it, as the embedded ones are of package
// embedded. What they decide they decide in Go, by the code that every store shares; so they read, decide, and write on the condition that nobody
// was faster ([Write]), and begin again where somebody was. The functions that run in Redis (carillon.lua) know nothing of slots or sessions, but
// for one thing that has to happen in the same step as an append: telling the rooms (see [Tag.Announce]).
//
// A caller packs its units of work and hands them to lanes: each primary has some for reads, for writes, and for writes that wait for no
// replica. A lane has one pipeline under way; what arrives meanwhile, from whomever, goes together in the next one. So a thousand
// callers with one unit each cost as many round trips as one caller with a thousand. Then the caller takes its own part of the answer
// apart.
//
// # Invariants
//
//   - All keys of one unit of work carry the same hash tag, so that they lie on one node whatever form Redis has; and all that a unit touches is
//     named in the call, so that a node of a cluster knows what it is asked for while a slot moves.
//   - Every reply carries the lineage of the data (the primary's replication id) and the time by the store's clock.
//   - A write that was made from what was read under one lineage is not applied under another.
//   - A write is applied whole or not at all, and says which. If its reply is lost nobody knows: KindUnavailable, store_unavailable. What
//     surely was not executed (nobody listens, another node has the slot, the functions are missing) is sent again for a while, where it
//     belongs; nothing else ever is. The Redis client repeats nothing and follows nothing by itself.
//   - At [push.DurabilityReplicated] a write is answered only after WAIT, on the same connection, has counted the configured number of
//     replicas. If it counts fewer the outcome is unknown, as after a lost reply.
//   - Writes are sent only over connections to a server whose settings keep what the durability promises, which was looked at when the
//     connection came to be. A look every second finds out if they changed since, who is primary, and how much memory is left.
//   - A replica is never read: the functions refuse there, and a pipeline of plain commands ([DB.Peek]) begins with one of them.
//   - Everything that waits is bounded, in bytes and in time.
//
// # Kinds of keys
//
// "l" is the log of changes of a shard, "s" the sessions in a shard (which the register writes), "-" never exists. The packages that use this one
// tell theirs.
package redisdb
