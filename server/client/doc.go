// Package client is a Carillon client in Go: it holds one device's session, over any number of connections, and hands
// each message to the application once. The command line's listen is a thin shell around it, and end-to-end and crash
// tests drive it to see what a device sees.
//
// # Place in the flow
//
// A [Client] dials a gateway through a [Dialer], presents its token and the cursor that it stored, and then takes frames
// in order: a message goes to the application's handler, after that its position and id go to [Storage], and after that
// an acknowledgement goes to the server, at most once a second. When the connection ends, the close code says what to
// do: come back with backoff, come back with another token, or stay away.
//
// There is a dialer for each transport, [WebSocket], [SSE], [LongPoll] and [TCP], and a device may come back over another
// one: its cursor holds everywhere. What is odd about one stays in its file; only that a long-poll reads in batches, each of
// which is acknowledged by the next request, is known to the client (batch.go).
//
// # Invariants
//
//   - Messages are handled one at a time, in the order of the wire. So the position of the last one handled is the
//     highest below which everything was handled, and that is what is acknowledged, never more.
//   - Handle, then save, then acknowledge: a crash after the handler and before the save repeats that one message, and
//     a crash anywhere else repeats none. What was acknowledged had been flushed.
//   - Repeats are known by message id, from the last [RecentIDs] of them, kept with the cursor. Positions never decide
//     it: after a failover another message may lie at a position that was already delivered.
//   - The cursor is the server's word: the one of the welcome, or of the last cursor frame, moved on by the positions of
//     the frames that followed.
//   - All callbacks come from the goroutine that called [Client.Run], one at a time, and none comes after Run returned.
//   - Run waits for every goroutine that it started.
package client
