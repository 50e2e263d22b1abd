// Package forwarded finds out who a client is behind proxies: what a proxy that is trusted says of the client's address, in a
// header of the request or in the PROXY protocol before it.
//
// # Place in the flow
//
//	listener ── Proxies.Listen (PROXY protocol alone): takes the proxy's words off the connection, which then has the client's address
//	request  ── Proxies.Remote: the client's address, for the session
//
// # Invariants
//
//   - What a peer says that is not trusted is never looked at: its address is that of its socket.
//   - Of a chain the right-most address counts that is not a trusted proxy's. Everything to the left of it was written by
//     whoever stands there, who may lie. So headers are read from the right, and what stands further left can neither change
//     the result nor hinder it, however it is written.
//   - What a trusted proxy wrote and nobody can read (unknown, a hidden name, nonsense) ends the search: the last address
//     that is known counts.
package forwarded
