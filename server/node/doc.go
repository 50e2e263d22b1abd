// Package node is how the nodes of a cluster speak to each other: one listener on each, closed to everybody who has not the
// cluster's secret, and one connection to each of the others.
//
// # Place in the flow
//
// Center stores a message and hands each room that holds its users a delivery ([Node.Deliver]): the room's own node gets it at
// once, others in batches. Sessions are asked for, ended, kicked and told of new tags through [Node], which is push.Rooms, and reach
// every room; rooms tell each other through it of sessions that were replaced. Which nodes there are the register says. A room that cannot renew its lease asks
// others through it whether they can ([Node.Elsewhere]).
//
// # The protocol
//
// HTTP/2 over TLS 1.3, both sides with a certificate. Two requests:
//
//	POST /deliver   a batch: for each delivery its length (uvarint) and its bytes (see appendDelivery)
//	POST /call      one JSON object that says what is to be done, answered by one
//
// Every request and answer names the version that its sender speaks (Carillon-Node). Nodes one version apart understand each other: a
// later version adds fields to the end of a delivery, and members to a call, which an earlier one passes over.
//
// # Invariants
//
//   - A delivery is a hint: what is persistent lies in slots already. So nothing is sent twice, nobody waits for it, a queue is
//     bounded, and what finds it full, or the other node away, is dropped and counted.
//   - To one room deliveries go in the order in which they were handed over, one batch at a time, so that a room that is slow is
//     slow for itself.
//   - What has to reach every room for certain (kicks, new tags) is written down as well ([Notices]), and a room looks there at each
//     renewal of its lease, before that counts. So a room that was not reached obeys within a second, or does not write.
//   - Nothing of a message's body, and no secret, reaches the log.
package node
