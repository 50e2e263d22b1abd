// Package tcp carries sessions over raw TCP, with or without TLS, for clients that want nothing else around their frames: apps
// on phones and desktops, devices, other servers. It implements the contract of package transport as a dialect on package
// engine, which holds the connections:
//
//	listener ── Serve: asks the Acceptor for a session, hands the socket over
//	client ──── engine: read ── cut into whole frames ── wire.DecodeClient ── Session.Receive
//	session ─── Wake ── engine: Session.Take, wire.AppendOut, one write for all of it
//
// # The stream
//
// Both directions are the same:
//
//	 0       4               4+n
//	+-------+---------------+-------+-----
//	|   n   | a frame of n  |   n   | ...
//	+-------+---------------+-------+-----
//
// n is the length of the frame, 4 bytes, the most significant first, at least 1; the frame is in the binary encoding of package
// wire. A client's first frame is connect. Nothing is said before it, but by a node that takes no more: a goaway, and the end;
// under TLS, where that would take a handshake, the end alone.
//
// A side says goodbye by ending its direction between two frames. The server does so behind everything that is queued, the last
// of which is a kick or a goaway, and then waits for the client to end its own. A client that ends its direction leaves: what it
// was not sent yet it is sent the next time. A stream that ends inside a frame is a loss.
//
// # Invariants
//
//   - A frame that is announced longer than it may be is refused at its announcement, and no memory is taken for what has been
//     announced, only for what has come.
//   - What has come of a frame is kept by its connection until the frame is whole; an idle connection keeps nothing.
//   - TLS is shaken hands for by the connection's reader, under the session's deadline for the first frame.
package tcp
