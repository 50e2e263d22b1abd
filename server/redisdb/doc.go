// Package redisdb is what all that lies on Redis shares: the connection to it in each of its three forms, the layout of keys, and
// two operations, one that reads several keys at one moment and one that changes them if they still are what was read.
//
// # Place in the flow
//
// saver/redis, register/redis, catalog/redis and idgenerator/redis are made of it, as the embedded ones are of package
// embedded. What they decide they decide in Go, by the code that every store shares; so they read, decide, and write on the condition that nobody
// was faster ([Write]), and begin again where somebody was. The functions that run in Redis (carillon.lua) know nothing of slots or sessions, but
// for one thing that has to happen in the same step as an append: telling the rooms (see [Announce]).
//
// # Invariants
//
//   - All keys of one unit of work carry the same hash tag, so that they lie on one node whatever form Redis has.
//   - Every reply carries the lineage of the data (the primary's replication id) and the time by the store's clock.
//   - A write that was made from what was read under one lineage is not applied under another.
//   - A write is applied whole or not at all, and says which. If its reply is lost nobody knows: KindUnavailable. Nothing is ever sent
//     twice behind the caller's back.
//   - At [push.DurabilityReplicated] a write is answered only after WAIT, on the same connection, has counted the configured number of
//     replicas. If it counts fewer the outcome is unknown, as after a lost reply.
//   - A replica is never read: the functions refuse there.
package redisdb
