// Package fleet runs a cluster on one machine: rooms and centers, each a process of the real binary, over a Redis that is there
// already, and a balancer in front of them.
//
// # Place in the flow
//
// `make cluster` shows one to a developer, and tests torment one: they kill, freeze and restart its nodes by name.
//
// # Invariants
//
//   - A node does not outlive us, however we end; Close ends all in peace.
//   - A node keeps its name over its lives, and its addresses for one of them.
//   - The balancer sends a request to a node that plays its role and is ready; one that nobody has taken goes to the next.
//   - Nothing listens but on loopback.
package fleet
