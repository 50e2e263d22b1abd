// Package ws carries sessions over WebSocket (RFC 6455): GET /connect with an upgrade, frames as JSON text messages, our
// close codes in the closing handshake. It implements the contract of package transport on coder/websocket, in the form
// that runs on every system and under TLS: one goroutine reads each connection, and nobody waits to write to one.
//
// What flows through it:
//
//	net/http ── ServeHTTP: checks the handshake, asks the Acceptor for a session, takes the socket and returns
//	client ──── one goroutine a connection: websocket.Conn.Reader, wire.DecodeClient, Session.Receive
//	session ─── Wake ─ ready list ─ drain workers: Session.Take, wire.AppendOut, one write for all of it
//
// Invariants:
//
//   - websocket.Conn only reads. Whatever it wants to write (pongs, close frames) is swallowed on the way to the socket,
//     so that the drain is the only writer and frames never interleave; pongs and close frames of ours take that same
//     ordered way. It does not close the socket either.
//   - An idle connection holds one small stack, the state of websocket.Conn and two buffers of 16 bytes.
//   - No drain worker waits for a client. It writes what the kernel takes at once; the rest is handed to a goroutine that
//     lives until it is written or the connection ends, and the session is not taken from meanwhile. A connection that
//     can only be written to by waiting (TLS, systems other than Unix) is drained by such a goroutine from the start.
//   - No lock is held while another is taken, a session is called, or a socket is written to or closed.
//   - A connection's last call, Session.Closed, comes from whichever of its goroutines is the last to leave it.
//
// The library bounds the time between the header and the end of a control frame to five seconds, the one timer that is
// not the session's: a peer slower than that counts as lost.
package ws
