package wire

import (
	"sync"
	"sync/atomic"

	"carillon/server/push"
)

// Shared is a message on its way to many sessions. What all of them are sent alike, everything after slot and position,
// is encoded when the first session needs it, at most once for each [Encoding]. It is safe for concurrent use; the
// message it holds is immutable.
type Shared struct {
	// Static after construction.
	msg  *push.Message
	size int

	mu    sync.Mutex // held while a tail is made, so that it is made once
	tails [2]atomic.Pointer[[]byte]
}

// NewShared returns m ready to be sent. Nothing is encoded yet.
func NewShared(m *push.Message) *Shared { return &Shared{msg: m, size: messageSize(m)} }

// Message returns the message. Nobody changes it.
func (s *Shared) Message() *push.Message { return s.msg }

// Size returns how many bytes the message takes on the wire, estimated for JSON, the longer of the encodings. It is for
// limits of queues and batches, and was computed when s was made.
func (s *Shared) Size() int { return s.size }

// tail returns what every session is sent alike. The bytes are nobody's to change.
func (s *Shared) tail(enc Encoding) []byte {
	if b := s.tails[enc].Load(); b != nil {
		return *b
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.tails[enc].Load(); b != nil {
		return *b
	}
	b := appendTail(make([]byte, 0, s.size), enc, s.msg)
	s.tails[enc].Store(&b)
	return b
}

// AppendOut appends one frame of a session to dst: a shared message behind the slot and position that it has for this
// session, or any other frame. A message that is not persistent is written without slot and position, whatever o says.
func AppendOut(dst []byte, enc Encoding, o *Out) []byte {
	if o.Shared == nil {
		return Append(dst, enc, o.Frame)
	}
	dst = appendPrefix(dst, enc, o.Shared.msg.Persistent, o.Slot, o.Pos)
	return append(dst, o.Shared.tail(enc)...)
}

// Append appends the frame f to dst. Fields that JSON leaves out when they are empty are described in api/README.md.
// Enumerations, slots and times must be ones that a decoder takes: f comes from our own code.
func Append(dst []byte, enc Encoding, f Frame) []byte {
	if m, ok := f.(*Message); ok {
		dst = appendPrefix(dst, enc, m.Persistent, m.Slot, m.Pos)
		return appendTail(dst, enc, &m.Message)
	}
	if enc == Binary {
		return appendBinary(dst, f)
	}
	return appendJSON(dst, f)
}

func appendPrefix(dst []byte, enc Encoding, persistent bool, slot push.SlotKind, pos push.Position) []byte {
	if !persistent {
		slot = push.NoSlot
	}
	if enc == Binary {
		return appendBinaryPrefix(dst, slot, pos)
	}
	return appendJSONPrefix(dst, slot, pos)
}

func appendTail(dst []byte, enc Encoding, m *push.Message) []byte {
	if enc == Binary {
		return appendBinaryTail(dst, m)
	}
	return appendJSONTail(dst, m)
}

// Size returns how many bytes the frame takes on the wire, estimated as [Shared.Size] does.
func (o *Out) Size() int {
	if o.Shared != nil {
		return o.Shared.size
	}
	const few = 64 // type, member names and short numbers of a small frame
	switch f := o.Frame.(type) {
	case *Message:
		return messageSize(&f.Message)
	case *Connect:
		return 2*few + len(f.Token) + len(f.Cursor) + len(f.Client)
	case *Welcome:
		return 5*few + len(f.Cursor)
	case *Ack:
		return few + len(f.Cursor)
	case *Cursor:
		return few + len(f.Cursor)
	case *Gap, *Recall, *Event:
		return 2 * few
	case *Kick:
		return 2*few + len(f.Reason) + len(f.Detail) + len(f.By) + len(f.On)
	case *Goaway:
		return 2*few + len(f.Reason) + len(f.Address)
	case *Refresh:
		return few + len(f.Token)
	case *Error:
		return few + len(f.Code) + len(f.Detail)
	case *Tags:
		return few + tagsSize(f.Join) + tagsSize(f.Leave) + tagsSize(f.Tags)
	}
	return 16 // ping, pong
}

func tagsSize(tags []push.Tag) (n int) {
	for _, t := range tags {
		n += len(t) + len(`"",`)
	}
	return n
}

// messageSize estimates a message in JSON from above, as long as its strings need few escapes.
func messageSize(m *push.Message) int {
	n := 192 + len(m.Ref) + len(m.CollapseKey) // 192: all member names, slot, position, id and two times
	if m.Kind == push.BodyBinary {
		n += (len(m.Body) + 2) / 3 * 4
	} else {
		n += len(m.Body)
	}
	for _, h := range m.Headers {
		n += len(h.Name) + len(h.Value) + 6
	}
	return n
}
