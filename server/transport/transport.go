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
//   - Receive and Closed are never called at the same time for one session, and nothing is called after Closed.
//   - Take is never called at the same time twice for one session; it may run beside Receive.
//   - After a Wake, a Take follows as soon as everything taken before is in the kernel's hands, unless Closed comes
//     first. Wakes before that Take fold into one.
//   - A transport takes again until Take returns nothing, so it never needs a second Wake for what is queued already.
//   - Everything that one Take returned leaves in one write where the transport can.
//   - No transport keeps a timer: deadlines (connect frame, silence, a client that does not read, the closing
//     handshake) are the session's, which ends the connection by Close, then Cut.
//   - The first frame of a client, which stands before authentication, has a lower limit of size than the others
//     ([MaxFirstFrame], [MaxFrame]). The transport refuses what is larger before it has read it all.
package transport

import (
	"net/netip"

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

// Acceptor takes connections. server/room implements it.
type Acceptor interface {
	// Accept makes the session of a new connection. It does not block and is safe for concurrent use. An error means
	// that the node takes no more; it is a *push.Error whose After says when to come back, and the transport refuses the
	// connection in its own way (HTTP 503 with Retry-After).
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
