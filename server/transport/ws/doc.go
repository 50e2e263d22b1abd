// Package ws carries sessions over WebSocket (RFC 6455): GET /connect with an upgrade, frames as JSON text messages, our
// close codes in the closing handshake. It implements the contract of package transport as a dialect on package engine, which
// holds the connections, and on coder/websocket, which checks handshakes and reads frames:
//
//	net/http ── ServeHTTP: checks the handshake, asks the Acceptor for a session, hands the socket over and returns
//	client ──── engine: read ── cut into whole frames ── a borrowed websocket.Conn.Reader ── Session.Receive
//	session ─── Wake ── engine: Session.Take, wire.AppendOut, one write for all of it
//
// Invariants:
//
//   - websocket.Conn only reads, from bytes that have come. Whatever it wants to write (pongs, close frames) is swallowed, so
//     that the engine is the only writer and frames never interleave; pongs and close frames of ours take that same ordered
//     way.
//   - Messages in one frame, pings, pongs and plain goodbyes are read where they lie (whole.go); everything else is the
//     library's to judge.
//   - An idle connection has no library connection: between two messages that would know nothing, so those few that are in use
//     are lent out (parser.go).
//   - What has come of a frame is kept by its connection until the frame is whole, and refused before it is read where its
//     header gives it away (cut.go).
package ws
