// Package web is what the transports over plain HTTP (SSE, long-poll) and the paths beside them (frames, tickets) have in
// common; WebSocket shares what comes before its upgrade: the refusals, and what is known of the client. It stands between
// net/http and those transports, keeps no state of its own, and never sees a socket:
//
//	request ── Parse: credential, cursor and the rest of the query ── wire.Connect, or a Problem
//	session ── the first frame that it sends ── RefusalOf ── a Problem instead of a stream
//	session ── every frame that it sends ── Follower.Pass ── the cursor that stands behind it
//
// Invariants:
//
//   - A device token never stands in a URL, where logs would keep it: there it is refused and not used, good or not.
//   - Each parameter is held to its limit before anything is done with it. A refusal names the parameter and repeats
//     nothing of what was sent.
//   - A one-time ticket is redeemed last, so that a request which is refused for anything else does not spend it.
//   - A client that was refused reads the same from the status as from a close code: 401 another token, 400 and 403 stay
//     away, 429 and 503 come back after Retry-After.
package web
