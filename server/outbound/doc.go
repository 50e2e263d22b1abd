// Package outbound makes the HTTP client for requests to addresses that others named: where a product publishes its keys. A
// product must not be able to have the gateway ask what only the gateway's own network reaches.
//
// # Invariants
//
//   - What counts is the address that is connected to, judged at the moment of dialing: a name that meant something else when it
//     was checked is of no use. There is no proxy, which would dial instead.
//   - Addresses of private and local networks, and all that are for special purposes, are refused, unless the operator allowed
//     them.
//   - Redirects are not followed.
//   - A request ends in time, and the head of its answer is bounded. Whoever reads the body bounds it.
package outbound
