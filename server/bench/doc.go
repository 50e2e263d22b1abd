// Package bench measures what the gateway costs: memory of a session, processor time of a connect, of a heartbeat and of a
// delivery, rates and latencies, each in a [Scenario].
//
// # Place in the flow
//
//	carillon bench ── Run ─┬─ carillon serve --dev      a server of its own, or a running one
//	                       ├─ swarm.Fleet               client processes that connect to it
//	                       └─ publisher                 requests to its REST interface
//
// The command line turns its flags into a [Config] and scenarios and prints the [Report]. The server is measured from
// outside, by its processor clock and /proc, so that what is measured is what an operator pays, and any build can be.
//
// # Invariants
//
//   - Only addresses of this machine alone are accepted: the bench loads whatever it is pointed at.
//   - Nothing stays behind, whichever way a run ends: no process, no directory.
//   - Every loop is bounded in count and in time.
//   - A figure is either what its description says, or there is an error: clients that were refused or lost, and messages
//     that did not arrive, are counted and told, never left out of a sum.
//   - The names of figures, in figures.go, are stable, and carry their unit.
package bench
