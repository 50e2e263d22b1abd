// Package longpoll carries sessions over HTTP long-poll: GET or POST /connect/poll, which is held until there is something
// to say, and answered with JSON. It implements the contract of package transport for transports that poll, for those who
// can do nothing but send one HTTP request after the other.
//
// A session outlives its polls, so the connection that it knows (conn) is no socket: it is what the polls of one client have
// in common. A poll is one request:
//
//	client ──── net/http ── ServeHTTP: which session (attach), one Take; nothing there: the poll waits
//	session ─── Wake ─ ready list ─ workers: Take, encode, and the poll that waits is answered
//	poll ────── answered ── Listener ── net/http, for the connection's next request
//
// A poll waits in one of two forms. Parked on an epoll, the form for plain TCP on Linux, it is a descriptor and some 80
// bytes: the connection is taken from net/http (hijacked), and comes back to it by way of the [Listener] once the answer is
// written. In the other form, for TLS in this process, for connections that have no descriptor and for other systems, its
// handler waits in the goroutine of net/http.
//
// # Which session a poll continues
//
// It shows the number of the session, the cursor with which the last answer ended, and the token of before. Everything else
// is a new session, which begins at the cursor that was shown; so a lost answer costs a connect and nothing else. What a
// number or a cursor says is no secret (they stand in logs), so a token that is another than before has to speak for the
// same device before the poll may wait for what the session has ([Config.Owner]).
//
// # Invariants
//
//   - Of one session one poll waits. A newer one takes its place, and the older is answered with nothing.
//   - Nothing is taken unless a poll waits, and what is taken is the answer of the poll that waits when it is encoded. If its
//     client left in between, the session ends, and the next poll shows an older cursor.
//   - The cursor that a poll has to show moves with the answer, under one lock: nobody continues a session from a cursor
//     that is no longer, or not yet, that of its last answer.
//   - Of a parked poll's connection nobody reads once its answer has begun, so that the client's next request is there for
//     net/http. What came before is kept, up to maxEarly, and is read first.
//   - No lock is held while a socket is written to or closed but the descriptor's own; conn.calls alone is held over calls
//     of the session, which come one after the other.
//   - The transport is not done before each of its requests is.
package longpoll
