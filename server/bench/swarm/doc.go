// Package swarm is thousands of clients of a gateway in a process of their own, so cheap that the gateway, and not they, is
// what a benchmark measures.
//
// # Place in the flow
//
//	bench ── Fleet ── stdin, stdout: one JSON object a line ──> Serve, in each client process ── sockets ──> gateway
//
// Package bench starts a [Fleet] of processes and tells them whom to connect, what to count and when to report; in each of
// them [Serve] does it. A process may open only so many files, hence several.
//
// # How a client costs little
//
// Serve is one loop over one epoll. A client is a socket that does not block and sixteen bytes in a slice that is indexed by
// the socket's number; its next heartbeat is eight bytes in a wheel. What was received is cut where the read left it, in one
// buffer for all; only the beginning of a frame whose end did not come yet is kept, until it comes. No message is decoded
// beyond its mark (see [Mark]).
//
// # Invariants
//
//   - Clients answer nothing. They send their heartbeats at the interval that welcome names, where their transport has them do
//     so, and, where asked to, acknowledgements: cumulative, at most one a second.
//   - Times are CLOCK_MONOTONIC, so that what one process sent and another received can be compared.
//   - The process ends when its standard input does, whatever became of whoever started it.
//
// # Transports
//
// How a transport opens, cuts and speaks is a dialect; the loop knows none of the [Transports], only their manners. A client
// of SSE cannot speak on its connection: what it acknowledges is an errand, a short request beside it.
package swarm
