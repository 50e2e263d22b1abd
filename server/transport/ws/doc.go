// Package ws carries sessions over WebSocket (RFC 6455): GET /connect with an upgrade, frames as JSON text messages, our
// close codes in the closing handshake. It implements the contract of package transport on coder/websocket, which checks
// handshakes and reads frames, in two forms ([Engine]).
//
// Parked on an epoll, the form for plain TCP on Linux:
//
//	net/http ── ServeHTTP: checks the handshake, asks the Acceptor for a session, takes the descriptor and returns
//	client ──── poller loop: read, cut into whole frames, a borrowed websocket.Conn.Reader, Session.Receive
//	session ─── Wake ─ ready list ─ drain workers: Session.Take, wire.AppendOut, one write for all of it
//
// With a goroutine a connection, the form for TLS in this process and for other systems, the second line is
//
//	client ──── one goroutine a connection: a websocket.Conn.Reader of its own, Session.Receive
//
// Invariants:
//
//   - websocket.Conn only reads. Whatever it wants to write (pongs, close frames) is swallowed on the way to the socket,
//     so that the drain is the only writer and frames never interleave; pongs and close frames of ours take that same
//     ordered way. It does not close the socket either.
//   - An idle parked connection is one object of some 250 bytes and a descriptor. It has no library connection: between two
//     messages that would know nothing, so those few that are in use are lent out (parser.go). In the goroutine form it holds
//     one small stack, the state of websocket.Conn and two buffers of 16 bytes.
//   - What has come of a frame is kept by its connection until the frame is whole, and refused before it is read where its
//     header gives it away (cut.go).
//   - No drain worker waits for a client. It writes what the kernel takes at once. The rest stays with the connection until
//     the loop hears that there is room; in the goroutine form a goroutine writes it, and the session is not taken from
//     meanwhile. A connection that can only be written to by waiting (TLS, systems other than Unix) is drained by such a
//     goroutine from the start.
//   - Connections with something direct to write come before those with a part of a fan-out, which still have their turn
//     (ready.go).
//   - No lock is held while another is taken, a session is called, or a socket is written to or closed; but for the
//     descriptor's own, under which no system call waits (package poller).
//   - A connection's last call, Session.Closed, comes from whoever is the last to leave it: its reader, who drains it, or a
//     worker that was sent for that.
//
// The library bounds the time between the header and the end of a control frame to five seconds, the one timer that is
// not the session's: in the goroutine form a peer slower than that counts as lost.
package ws
