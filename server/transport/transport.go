// Package transport is the contract between the ways a device can hold a connection (WebSocket, SSE, long-poll, raw
// TCP) and what is the same for all of them: the session, which server/room implements.
//
// It is event-driven, so that an idle session owns no goroutine and no buffer. A transport accepts a connection and
// calls [Acceptor.Accept]. From then on it calls the [Session]: Receive for each decoded frame of the client, Take when
// it is able to write, Closed once at the end. The session in turn calls the [Conn]: Wake when it has something to
// write, Close or Cut to end it.
//
// Invariants, held against every transport by transporttest:
//
//   - Receive, Refuse, Alive and Closed are never called at the same time for one session by its transport, and nothing
//     is called after Closed.
//   - Take is never called at the same time twice for one session; it may run beside Receive.
//   - After a Wake, a Take follows as soon as everything taken before is in the kernel's hands, unless Closed comes
//     first. Wakes before that Take fold into one.
//   - A transport takes again until Take returns nothing, so it never needs a second Wake for what is queued already.
//   - Everything that one Take returned leaves in one write where the transport can.
//   - No transport keeps a timer: deadlines (connect frame, silence, a client that does not read, the closing
//     handshake) are the session's, which ends the connection by Close, then Cut.
//   - The first frame of a client, which stands before authentication, has a lower limit of size than the others
//     ([MaxFirstFrame], [MaxFrame]). The transport refuses what is larger before it has read it all.
//
// # Transports with one direction
//
// Where the client cannot send on its connection (Duplex is false, as with SSE), what it asked for when it connected is
// handed over as one [wire.Connect], and nothing is received after it: neither Receive nor Alive is called again. What the
// client has to say later reaches the session past the transport, by requests of their own.
//
//   - The session keeps the line warm. Whenever nothing was taken for one heartbeat interval it queues a [wire.Ping], which
//     the transport writes in the form that its clients pass over.
//   - Silence is judged by the kernel, since the session hears nothing: the transport has the system give up a peer that
//     acknowledges no bytes for the grace, and reports it by Closed with wire.CloseLost.
//
// # Transports that poll
//
// Where each answer of the server ends (Polls is set, as with HTTP long-poll) a session is a [PollSession] and outlives its
// polls. The Conn that it knows is an object of the transport, not a socket. In order:
//
//  1. A poll that continues no session: Accept, Receive(&wire.Connect{...}) with the cursor that it shows and After the session that it
//     names (which has ended, or is another node's, or the answer with its cursor was lost), Poll with none. It waits for the first frame,
//     which is the welcome or a refusal, whatever else it said of waiting.
//  2. A poll that continues one: Receive(&wire.Refresh{...}) if it shows another token than the last, then Poll with the
//     cursor that it shows, which is its acknowledgement. No frame stands for the poll itself: Alive and an Ack are not
//     needed.
//  3. After each Poll, one Take, whether there was a wake or not. If that gave nothing and the poll does not end at once,
//     it waits, and each Wake is followed by a Take. A Wake while no poll waits needs nothing done: the Take after the
//     next Poll makes up for it. Nothing is taken while no poll waits.
//  4. As soon as a Take gave something the transport answers with it, and may take more first, up to what it puts into
//     one answer; what is left is the next poll's. A wire.Ping only ends the poll: it need not be written.
//  5. Once the answer is in the kernel's hands, or its writing failed, or the client left while it waited: PollOver.
//     What was taken for an answer that did not arrive is not taken again. It comes with the session that the client's next
//     poll begins, since that shows an older cursor.
//  6. A poll that arrives while another of the same session waits takes its place: Poll is called for the newer, and
//     PollOver for the newer alone. The older is answered with nothing.
//  7. A poll that shows another cursor than the one which the last answer ended with cannot continue the session: Closed with
//     wire.CloseLost, and then as under 1.
//
// Close and Cut mean what they always do. The goodbye of a Close is the answer of the poll that waits, or of the next one:
// the transport takes until Take returns nothing, answers, and calls Closed. Where no poll comes the session's patience ends
// with Cut, and Closed follows at once; a poll that waits at a Cut is answered with nothing. How long a poll is held, and
// how long a session lingers between two, are deadlines of the session: at the first it queues a wire.Ping, at the second
// it calls Cut with wire.CloseLost.
package transport

import (
	"net/netip"
	"time"

	"carillon/server/wire"
)

// Limits of the frames of a client, in bytes of the frame's encoding. They are the defaults of every transport.
const (
	MaxFirstFrame = 4 << 10
	MaxFrame      = 16 << 10
)

// CodeTooLarge is the code of the error with which a transport refuses a frame beyond those limits.
const CodeTooLarge = "frame_too_large"

// Kind names a transport. It is a metric label and part of a session's record.
type Kind string

// The transports.
const (
	WebSocket Kind = "ws"
	SSE       Kind = "sse"
	LongPoll  Kind = "poll"
	TCP       Kind = "tcp"
)

// Capabilities are what one transport can do and another cannot. Tests ask them instead of skipping.
type Capabilities struct {
	Encoding wire.Encoding // of frames in both directions
	Duplex   bool          // the client can send frames on the same connection
	Close    bool          // a close code reaches the client after the last frame
	Polls    bool          // each answer ends, and the client asks again: sessions are a [PollSession]; never with Duplex
}

// Meta describes a connection. It does not change.
type Meta struct {
	Kind         Kind
	Capabilities Capabilities
	Remote       netip.AddrPort // the client's address, behind trusted proxies the one they name; may be invalid
	UserAgent    string         // at most 256 bytes; may be empty
}

// Share says whose share of a node's writing a wake takes. Transports serve both, so that a broadcast to a million
// sessions delays neither pongs nor unicasts by more than a few writes, and is not starved by them either.
type Share uint8

// The shares, the more urgent first.
const (
	Direct Share = iota // to this session: unicasts, pongs, welcomes, what it catches up with
	Bulk                // fan-out to many sessions at once
)

// Conn is a connection as its session sees it. All methods are safe for concurrent use, never block, never call the
// session from inside the call, and do nothing once the connection is closed.
type Conn interface {
	// Wake says that Take has something to return, and for whom the connection asks its turn to write. Of two wakes before
	// one Take the more urgent counts, so a session wakes again when what it queues is more urgent than what it woke for.
	Wake(Share)
	// Close takes what is still queued, writes it, tells the client the code in the transport's own way, and ends the
	// connection when the peer has answered or gone. It waits for the peer as long as the peer lives: the session calls
	// Cut when its patience ends. Only the first code counts.
	Close(code wire.CloseCode)
	// Cut ends the connection at once: what is queued or half written is lost, and nothing more is sent. Closed follows
	// with this code, or with the one of an earlier Close.
	Cut(code wire.CloseCode)
}

// Flusher is a [Conn] that can be written to where somebody is at work already.
type Flusher interface {
	// Flush is Wake(Direct), and where nobody else is at it, the caller takes and writes before it returns: to hand a
	// connection to another goroutine costs more than its welcome. It calls Take, and so comes with no lock of the session's;
	// it does not wait for the kernel.
	Flush()
}

// Acceptor takes connections. server/room implements it.
type Acceptor interface {
	// Accept makes the session of a new connection. It does not block and is safe for concurrent use. An error means
	// that the node takes no more; it is a *push.Error whose After says when to come back, and the transport refuses the
	// connection in its own way (over HTTP 503, or 429 with push.KindLimited, and Retry-After).
	//
	// Nothing is written before Accept returned, nor while the transport still answers the handshake. A Wake, Close or
	// Cut in that time is kept and acts as soon as the connection stands; if it never does, Closed follows with
	// wire.CloseLost or with the code that was given.
	Accept(c Conn, m Meta) (Session, error)
}

// Session is what a transport drives. server/room implements it.
type Session interface {
	// Receive hands over one frame of the client, in the client's order. The frame is the session's to keep. It never
	// blocks for long: what needs a store runs elsewhere. Frames still arrive after Close, until the peer has answered:
	// a last acknowledgement is worth having.
	Receive(f wire.Frame)
	// Refuse says that the client sent what is no frame: malformed, too large, not UTF-8, the wrong message type. err
	// is a *push.Error whose Code is sent to the client. The session answers and closes; the transport reads no further.
	// Only after code unknown_frame (well formed, of a type that is not known here: a newer client) it goes on reading,
	// and the session may answer and stay.
	Refuse(err error)
	// Alive says that the peer gave a sign of life which is no frame (a WebSocket ping or pong). What comes before a
	// message is complete is none, so that a client which never ends a message falls silent and is given up.
	Alive()
	// Take moves what is queued into b, in order, at most b's limits, and returns whether it put anything there. b is
	// empty at the call.
	Take(b *Batch) bool
	// Closed says that the connection is gone: by code if it was closed from here, wire.CloseNormal if the peer said
	// goodbye in the transport's way, wire.CloseLost otherwise. It is the last call.
	Closed(code wire.CloseCode)
}

// PollSession is the Session of a connection whose Capabilities say that it polls: the transport asserts what Accept
// returned. Poll and PollOver are called one at a time, in the order in which it happened, never after Closed; they may run
// beside Take, and beside Receive. They never block and may call the Conn, as Receive may.
type PollSession interface {
	Session
	// Poll says that a poll has arrived, and waits for its answer for at most wait; the session holds it no longer than
	// it has decided for itself, and not to the moment. cursor is what the poll acknowledges; empty: nothing. A wait of 0
	// says that the transport answers at once with what the next Take gives.
	//
	// A poll that was answered with something costs the client nothing of its frames a second; others count as a frame,
	// so that a client which asks without pause is ended as a flood.
	Poll(cursor string, wait time.Duration)
	// PollOver says that no poll waits any more: it was answered, or its client left. Until the next Poll the session
	// lingers, and its client counts as slow no more.
	PollOver()
}

// Batch is what one Take returned. A transport's workers keep one each and use it again.
type Batch struct {
	Outs []wire.Out
	Size int // estimated bytes on the wire

	MaxOuts int // at most that many; at least 1
	MaxSize int // no further one once Size reached it
}

// Reset empties the batch and drops its references.
func (b *Batch) Reset() {
	clear(b.Outs)
	b.Outs, b.Size = b.Outs[:0], 0
}

// Full reports whether the batch takes no more.
func (b *Batch) Full() bool { return len(b.Outs) >= b.MaxOuts || b.Size >= b.MaxSize }
