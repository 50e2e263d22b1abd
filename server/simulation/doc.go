// Package simulation lives through whole worlds of one gateway: rooms, center, stores, publishers and devices in one process,
// on a virtual clock and a network in memory, all of it driven by one seed. A world that breaks the promise is lived through
// again by its seed.
//
// # Place in the flow
//
// Tests call [Simulate] inside a testing/synctest bubble. It puts real parts together the way the gateway does: two rooms,
// center's HTTP handler, the catalog, token and key checks, the register, the ids, and the memory store (which outlives
// processes, as a Redis would) or the embedded one on a file system that forgets what was not flushed. Only what lies outside
// of them is made up: sockets, disks, clocks, and the people. Devices are server/client, over its Dialer. What publishers
// and devices saw goes to server/history, which judges it.
//
// # How a seed decides everything
//
// All that happens later is an event in one schedule. The driver takes the next event, lets it happen, and waits until every
// goroutine of the bubble is blocked before it takes another, so goroutines never race for what comes first. Timers are
// events too: every component has a clock of its own, and of two timers that run out at the same moment one is first, always
// the same. Randomness comes in lanes, named by what they are for and used by one goroutine at a time, so that what is drawn
// does not depend on who drew before.
//
// # Invariants
//
//   - Session.Receive, Take and Closed are called by the driver alone, as the contract of transports asks.
//   - A killed process changes nothing any more: its way to the store and the register is cut in the same event.
//   - Nothing is judged that a fault excuses, and nothing is excused that no fault explains: history names both.
//   - When everything has healed, all that is owed arrives within 30 virtual seconds, and then every goroutine ends.
//
// What is not covered stands in docs/simulation.md.
package simulation
