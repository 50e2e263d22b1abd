// Package redis is the register of many nodes that share one Redis, in each of its forms.
//
// # Place in the flow
//
// Every node has a Register of its own. A room inserts its sessions through the one of its process; publishers look users up through
// theirs, and saver/redis, which stores a message and learns in the same step whose rooms are to be told, reads the same keys.
//
// # Keys
//
// Those of a shard, under its tag ([redisdb.ShardTag]):
//
//	s:               hash of sessions: user to all of the user's, one after the other (codec.go)
//	p:               hash of the rooms that hold anybody of the shard: room and life to the number of sessions
//	o:<room><life>   list of orders for a room
//
// Those of a room, under a tag of its own:
//
//	m:<room><life>   list of orders for the room, once more: what it fetches with each renewal
//	t:<room><life>   hash of the tags that its sessions may have: product and tag (tags.go)
//
// Those of all, under the tag "rooms":
//
//	r:               hash of leases: room to boot, life, end and address
//	n:<product>      hash of numbers: room to life and its sessions of that product, as of the room's last renewal
//
// # How it is kept
//
// A life is what begins when a room joins and ends when its lease is lost or given back; it has a random number. A session names the room and
// the life that holds it, and counts while the table of leases says that this is the room's present life and its lease has not run out. So
// a room that died is one line of the table, whatever it held. Each node keeps a view of the table. It is read anew with every renewal, when it is
// older than two of them, and at once when a session of a life comes up that it does not know: so of a
// room that just joined nothing is overlooked, and of one that just went something may count for two seconds.
//
// A user's sessions are read, decided about here, and written if they are still what was read; in the same step the numbers of
// the shard change and the orders are left. Orders stay in the shard until the room swept it, so none is lost with the node that
// gave it; a second copy, in the room's mail, is there to come fast.
//
// Count is the sum of what the rooms wrote with their last renewals, a look at each room; a room's own numbers are those of the
// moment. They follow from the answers of its writes, and are held against the numbers in the shard at each sweep.
//
// What the sessions of a dead life take is given back when their user comes again, or by a walk over the keys that a node begins when a
// sweep met such a life.
//
// # Invariants
//
//   - The number in p: is that of the sessions in s: with that room and life, at every moment: one step changes both.
//   - A session counts only by a life that is in the table. A life's number never comes again, so one that was once missing there is dead.
//   - No session is taken out for being dead while its lease could still be renewed.
//   - An order is in the shard before anybody is told that the session was replaced.
//   - Epochs follow the store's clock, and stand above all that this node has given or seen.
//   - A write that was made under one lineage is not done under another. If the store fell back, sessions may be gone that were
//     there: a room hears that its lease is lost, and puts them back.
package redis
