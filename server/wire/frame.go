package wire

import (
	"carillon/server/nextversion"
	"carillon/server/push"
)

// Version is the version of the frame schema that this code speaks. A peer one version away is understood: unknown
// JSON members and trailing bytes of a binary frame are passed over.
const Version = 1 + nextversion.Step

// Type says which frame it is. Its numbers are the first byte of a binary frame, its names the "type" of a JSON one.
type Type uint8

// The frames. Direction: C from the client, S from the server.
const (
	TypeConnect Type = 1  // C: first frame of every session
	TypeWelcome Type = 2  // S: answers it
	TypeMessage Type = 3  // S
	TypeAck     Type = 4  // C: everything up to the cursor is handled
	TypeCursor  Type = 5  // S: the cursor as it stands after everything sent so far
	TypePing    Type = 6  // both
	TypePong    Type = 7  // both: answers it
	TypeGap     Type = 8  // S: something is missing, and why
	TypeKick    Type = 9  // S: this session ends, and the client stays away or must change something
	TypeGoaway  Type = 10 // S: this session ends, come back later or elsewhere
	TypeRecall  Type = 11 // S: the sender took a message back
	TypeEvent   Type = 12 // C: a message was displayed or clicked
	TypeRefresh Type = 13 // C: a new token for this session; S: asks for one, or confirms one
	TypeError   Type = 14 // S: a frame was refused; the session goes on unless a close follows
	TypeTags    Type = 15 // C: joins and leaves tags; S: answers with those that the client has joined
)

// Frame is one of the frame structs below, as a pointer.
type Frame interface{ Type() Type }

// Connect begins a session.
type Connect struct {
	Version uint32 // of the schema, the client's
	Token   string // device token (JWT)
	Cursor  string // where to continue; empty: where the stored cursor stands
	Client  string // name/version of the software, for statistics; at most 64 bytes

	// After is the session that the client had before, over whichever transport; 0: none, or it is another run of the client. So a session
	// that a client comes back from is told from another client's of the same device.
	After push.SessionEpoch // in JSON a decimal string
}

// Start says where a slot begins for this session.
type Start uint8

// The starts; the numbers are on the wire.
const (
	Resumed   Start = 0 // continues at the cursor
	Beginning Start = 1 // from the first entry: a first device
	AtHead    Start = 2 // from now on
	Reset     Start = 3 // the cursor could not be understood (lost state, unknown lineage): everything retained comes again
)

// Welcome accepts a session.
type Welcome struct {
	Version         uint32
	Session         push.SessionEpoch // in JSON a decimal string
	Cursor          string            // the cursor as it stands now; the client builds on it
	Own, Common     Start
	HeartbeatMillis uint32 // a client sends something at least that often
	GraceMillis     uint32 // beyond it the server lets that much pass before it gives the client up
	FrameBytes      uint32 // largest frame a client may send
	FramesPerSecond uint32
	Time            push.MilliTime // the server's clock
	Expires         push.MilliTime // of the token; 0: not said
}

// Ack says that everything up to the cursor has been handled.
type Ack struct{ Cursor string }

// CursorReason says why a cursor frame came.
type CursorReason uint8

// The reasons; the numbers are on the wire.
const (
	CursorCaughtUp CursorReason = 0 // everything that waited has been sent
	CursorPassed   CursorReason = 1 // a thousand entries were passed over
	CursorGoodbye  CursorReason = 2 // the session ends
	CursorLineage  CursorReason = 3 // the store's state changed: positions below continue from here
)

// Cursor is the cursor after everything the server has sent so far on this session, entries passed over included.
type Cursor struct {
	Cursor string
	Reason CursorReason
}

// Ping asks for a Pong. Any frame counts as a sign of life.
type Ping struct{}

// Pong answers a Ping.
type Pong struct{}

// GapReason says why something is missing.
type GapReason uint8

// The reasons; the numbers are on the wire.
const (
	GapLimit GapReason = 0 // a limit of the slot dropped it
	GapReset GapReason = 1 // the slot's state was lost or is unknown: what is retained comes again, the rest cannot be known
	GapLost  GapReason = 2 // an entry was there without its body
)

// Gap says that entries of a slot in (From, To] may be missing.
type Gap struct {
	Slot     push.SlotKind
	From, To push.Position
	Reason   GapReason
}

// Kick ends the session for a reason that coming back alone does not cure.
type Kick struct {
	Code   CloseCode
	Reason string        // the code's name
	Detail string        // for people; may be empty
	By     push.DeviceID // the device that took its place, where that is why
	On     string        // that device's platform
}

// Goaway ends the session; the client comes back after Delay, to Address if there is one.
type Goaway struct {
	Code        CloseCode
	Reason      string
	DelayMillis uint32
	Address     string
}

// Recall takes back the message ID.
type Recall struct {
	Slot push.SlotKind
	Pos  push.Position
	ID   push.MsgID
}

// EventKind says what a person did with a message.
type EventKind uint8

// The kinds; the numbers are on the wire.
const (
	Displayed EventKind = 1
	Clicked   EventKind = 2
)

// Event reports it.
type Event struct {
	Event EventKind
	ID    push.MsgID
	Time  push.MilliTime // the client's clock; 0: not said
}

// Refresh renews the token. From the server without Token: with Expires 0 it asks for one, otherwise it confirms.
type Refresh struct {
	Token   string
	Expires push.MilliTime
}

// Error refuses a frame.
type Error struct {
	Code   string // stable
	Detail string // for people
}

// Tags changes the tags that the client itself has joined: first it leaves, then it joins. With neither it asks for them.
// The server answers with Tags, and never sends one unasked. The tags that a device has from elsewhere are not in it.
type Tags struct {
	Join, Leave []push.Tag
	Tags        []push.Tag // of the server
}

func (*Connect) Type() Type { return TypeConnect }
func (*Welcome) Type() Type { return TypeWelcome }
func (*Ack) Type() Type     { return TypeAck }
func (*Cursor) Type() Type  { return TypeCursor }
func (*Ping) Type() Type    { return TypePing }
func (*Pong) Type() Type    { return TypePong }
func (*Gap) Type() Type     { return TypeGap }
func (*Kick) Type() Type    { return TypeKick }
func (*Goaway) Type() Type  { return TypeGoaway }
func (*Recall) Type() Type  { return TypeRecall }
func (*Event) Type() Type   { return TypeEvent }
func (*Refresh) Type() Type { return TypeRefresh }
func (*Error) Type() Type   { return TypeError }
func (*Tags) Type() Type    { return TypeTags }
func (*Message) Type() Type { return TypeMessage }

// Message carries one message. Slot is push.NoSlot, and Pos 0, for a non-persistent one. Servers do not build it: they
// send an [Out] that shares the encoding; clients decode into it.
type Message struct {
	Slot push.SlotKind
	Pos  push.Position
	push.Message
}

// Encoding is one of the two ways to write a frame.
type Encoding uint8

const (
	JSON   Encoding = iota // one JSON object
	Binary                 // type byte, then fields
)

// Out is one frame on its way out of a session: either a message whose encoding is shared by all who receive it, or
// another frame. Exactly one of Shared and Frame is set.
type Out struct {
	Shared *Shared
	Frame  Frame
	Slot   push.SlotKind // with Shared: where it lies for this session
	Pos    push.Position
}
