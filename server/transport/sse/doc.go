// Package sse carries sessions over Server-Sent Events: GET /connect/sse, an answer that does not end, one event a frame. It
// implements the contract of package transport on package engine, and shares with long-poll what package web holds. The
// client's direction carries nothing after the request.
//
//	net/http ── ServeHTTP: checks the request, asks the Acceptor for a session, hands it the connect that the request stands
//	            for, gives the socket to the engine and returns
//	session ─── Take ── appendEvent: event, id, data ── one write for all of it
//	client ──── anything it sends is a breach, the end of its direction the end of the session
//
// Invariants:
//
//   - Nothing of the answer is written before the session has said its first frame. If that is a refusal, the answer is a
//     problem with the status that says so, and curl and EventSource see it as what it is.
//   - The answer has neither length nor chunks. It ends with the connection, which serves no second request.
//   - An event's id is the cursor behind its frame, so that a client which keeps the last id has its cursor (Last-Event-ID).
//   - An idle parked connection is one object and a descriptor: no goroutine, no buffer, no handler of net/http.
//   - There is no timer. The session keeps the line warm; a peer that takes nothing is given up by the kernel after
//     Config.Grace, which is reported as a connection that broke.
package sse
