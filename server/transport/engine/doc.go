// Package engine holds connections for transports: it reads them, writes to them and ends them as package transport asks,
// and leaves to each transport what is its own, a [Dialect]. A transport is a dialect and a way to come by connections.
//
// # Place in the flow
//
// A dialect's connection embeds a [Conn], which is the transport.Conn that the session knows:
//
//	type conn struct {
//		engine.Conn
//		// what the dialect keeps
//	}
//
// A transport has one [Engine]. For each client it makes a connection, asks for its session ([Engine.Accept]), and hands the
// socket over ([Engine.Hijack] out of net/http, [Engine.Adopt] otherwise). From then on the engine drives it, in one of two
// forms:
//
//	parked     client ── poller loop: read ── Dialect.Feed ── Session.Receive
//	goroutine  client ── one goroutine a connection: read ── Dialect.Feed ── Session.Receive
//	both       session ── Wake ── ready list ── drain workers: Dialect.Collect (Session.Take), one write for all of it
//
// Connections over plain TCP are parked on Linux. TLS in this process, and other systems, have the goroutine form.
//
// # Invariants
//
//   - An idle parked connection is one object with its dialect (TestConn_IsSmall says how large), and a descriptor; in the
//     goroutine form it also holds a goroutine and a small buffer.
//   - A drain worker is the only one that writes, so what Collect gave leaves whole and in order. No worker waits for a
//     client: it writes what the kernel takes at once, and the rest stays with the connection until the kernel takes more. A
//     socket that can only be written to by waiting (TLS, systems other than Unix) is drained by a goroutine of its own while
//     there is something to write.
//   - Connections with something direct to write come before those with a part of a fan-out, which still have their turn
//     (package ready).
//   - While Conn.mu is held only the ready list's lock is taken. No session and no dialect is called under it, and no socket is
//     written to or closed.
//   - A connection's last call, Session.Closed, comes from whoever is the last to leave it: its reader, who drains it, or a
//     worker that was sent for that.
//   - There is no timer. Deadlines are the session's.
package engine
