// Package torture runs the gateway as it is released, on a real store, while a fault injector breaks it, and has what publishers and
// devices saw judged by package history: layer 4 of the proof.
//
// # Place in the flow
//
// `make torture` and a step of `make test` run it, through cmd/torture. It starts nodes by package fleet and Redis by package
// redistest, and knows the gateway from outside alone: its processes, its REST interface, its transports.
//
// # A run
//
// Devices connect and are caught up; then senders send and the injector breaks things, both drawn from the seed, until the time is over.
// Then everything is healed, each sender learns the outcome of its last message, and the devices have half a minute to get what they miss.
//
// # Invariants
//
//   - A device writes a delivery down before it acknowledges it; a sender writes down that it sends before it does. All on one clock.
//   - What was broken is healed by whoever broke it, also when the run is cut short.
//   - A node that ends without having been ended is a violation.
//   - Nothing is excused but what a failover takes back under a durability that does not outlive it, and that is counted and shown.
package torture
