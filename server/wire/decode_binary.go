package wire

import (
	"encoding/binary"
	"math"
	"unicode/utf8"

	"carillon/server/push"
)

func decodeBinary(from sentBy, b []byte) (Frame, error) {
	r := binaryReader{b: b}
	t := Type(r.octet())
	if r.err != nil || t == 0 {
		return nil, fail(CodeMalformed, "a frame begins with its type")
	}
	if err := t.check(from); err != nil {
		return nil, err
	}
	f := r.frame(t)
	if r.err != nil {
		return nil, r.err
	}
	return f, nil // what is left was appended by a later version
}

// binaryReader reads fields from the front of b. It keeps the first error; what it returns after one means nothing.
type binaryReader struct {
	b   []byte
	err error
}

func (r *binaryReader) frame(t Type) Frame {
	switch t {
	case TypeConnect:
		return &Connect{
			Version: uint32(r.number("version", 1, math.MaxUint32)), Token: r.text("token", MaxToken),
			Cursor: r.text("cursor", push.MaxCursorString), Client: r.text("client", MaxClient),
			After: push.SessionEpoch(r.number("after", 0, math.MaxUint64)),
		}
	case TypeWelcome:
		return r.welcome()
	case TypeMessage:
		return r.message()
	case TypeAck:
		return &Ack{Cursor: r.cursor()}
	case TypeCursor:
		return &Cursor{Cursor: r.cursor(), Reason: binaryName[CursorReason](r, "reason", cursorNames[:])}
	case TypePing:
		return &Ping{}
	case TypePong:
		return &Pong{}
	case TypeGap:
		return &Gap{
			Slot: r.slot(), From: push.Position(r.number("from", 0, maxNumber)),
			To: push.Position(r.number("to", 0, maxNumber)), Reason: binaryName[GapReason](r, "reason", gapNames[:]),
		}
	case TypeKick:
		return &Kick{
			Code: r.code(), Reason: r.text("reason", math.MaxInt), Detail: r.text("detail", math.MaxInt),
			By: push.DeviceID(r.text("by", math.MaxInt)), On: r.text("on", math.MaxInt),
		}
	case TypeGoaway:
		return &Goaway{
			Code: r.code(), Reason: r.text("reason", math.MaxInt),
			DelayMillis: uint32(r.number("delay_ms", 0, math.MaxUint32)), Address: r.text("address", math.MaxInt),
		}
	case TypeRecall:
		return &Recall{Slot: r.slot(), Pos: push.Position(r.number("pos", 0, maxNumber)), ID: r.id()}
	case TypeEvent:
		return &Event{Event: binaryName[EventKind](r, "event", eventNames[:]), ID: r.id(), Time: r.time("time")}
	case TypeRefresh:
		return &Refresh{Token: r.text("token", MaxToken), Expires: r.time("expires")}
	case TypeTags:
		return &Tags{Join: r.tags("join"), Leave: r.tags("leave"), Tags: r.tags("tags")}
	}
	return &Error{Code: r.needText("code", math.MaxInt), Detail: r.text("detail", math.MaxInt)}
}

func (r *binaryReader) welcome() *Welcome {
	return &Welcome{
		Version: uint32(r.number("version", 1, math.MaxUint32)),
		Session: push.SessionEpoch(r.number("session", 0, math.MaxUint64)), Cursor: r.cursor(),
		Own: binaryName[Start](r, "own", startNames[:]), Common: binaryName[Start](r, "common", startNames[:]),
		HeartbeatMillis: uint32(r.number("heartbeat_ms", 0, math.MaxUint32)),
		GraceMillis:     uint32(r.number("grace_ms", 0, math.MaxUint32)),
		FrameBytes:      uint32(r.number("frame_bytes", 0, math.MaxUint32)),
		FramesPerSecond: uint32(r.number("frames_per_second", 0, math.MaxUint32)),
		Time:            r.time("time"), Expires: r.time("expires"),
	}
}

func (r *binaryReader) message() *Message {
	m := &Message{Slot: push.SlotKind(r.octet())}
	if m.Slot != push.NoSlot {
		m.Persistent = true
		if m.Slot > push.Common {
			r.fail(CodeInvalid, "slot is 0, 1 or 255")
		}
		m.Pos = push.Position(r.number("pos", 0, maxNumber))
	}
	m.ID, m.Created = r.id(), r.time("time")
	if t := r.time("expires"); m.Persistent {
		m.Expires = t
	}
	flags := r.octet()
	m.Ref = r.text("ref", math.MaxInt)
	m.CollapseKey = r.text("collapse_key", math.MaxInt)
	// A header has two bytes at least, so a lying count ends with the bytes and not with the memory.
	for n := r.number("header count", 0, math.MaxUint32); n > 0 && r.err == nil; n-- {
		h := push.Header{Name: r.text("header", math.MaxInt)}
		h.Value = r.text("header", math.MaxInt)
		m.Headers = append(m.Headers, h)
	}
	if !sortHeaders(m.Headers) {
		r.fail(CodeInvalid, "each header stands once")
	}
	body := r.take()
	if flags&flagBinaryBody != 0 {
		m.Kind = push.BodyBinary
	} else if len(body) > 0 && !(utf8.Valid(body) && isValue(body)) {
		r.fail(CodeInvalid, "body is one JSON value without white space around it")
	}
	if len(body) > 0 {
		m.Body = append(make([]byte, 0, len(body)), body...)
	}
	return m
}

func (r *binaryReader) fail(code, detail string) {
	if r.err == nil {
		r.err = fail(code, detail)
	}
}

func (r *binaryReader) octet() byte {
	if r.err == nil && len(r.b) == 0 {
		r.fail(CodeMalformed, "the frame is cut off")
	}
	if r.err != nil {
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

// varint reads a number. One of more bytes than it needs is refused, so that a number has one form.
func (r *binaryReader) varint() uint64 {
	if r.err != nil {
		return 0
	}
	n, k := binary.Uvarint(r.b)
	switch {
	case k == 0:
		r.fail(CodeMalformed, "the frame is cut off")
		return 0
	case k < 0 || k > 1 && r.b[k-1] == 0:
		r.fail(CodeMalformed, "a number has at most 64 bits, in as few bytes as it needs")
		return 0
	}
	r.b = r.b[k:]
	return n
}

func (r *binaryReader) number(name string, least, most uint64) uint64 {
	n := r.varint()
	if n < least || n > most {
		r.fail(CodeInvalid, name+" is out of range")
	}
	return n
}

// take reads a length and returns that many bytes of the frame, which stay the frame's.
func (r *binaryReader) take() []byte {
	n := r.varint()
	if r.err == nil && n > uint64(len(r.b)) {
		r.fail(CodeMalformed, "the frame is cut off")
	}
	if r.err != nil {
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *binaryReader) text(name string, limit int) string {
	b := r.take()
	if len(b) > limit {
		r.fail(CodeTooLong, name+" is too long")
	} else if !utf8.Valid(b) {
		r.fail(CodeMalformed, "text is UTF-8")
	}
	if r.err != nil {
		return ""
	}
	return string(b)
}

// tags reads a list of tags. Each has two bytes at least, so a lying count ends with the bytes and not with the memory.
func (r *binaryReader) tags(name string) (tags []push.Tag) {
	for n := r.varint(); n > 0 && r.err == nil; n-- {
		t := push.Tag(r.text(name, push.MaxTag))
		if r.err != nil {
			return nil
		}
		tags = append(tags, t)
		if code, detail := checkTags(name, tags); code != "" {
			r.fail(code, detail)
		}
	}
	return tags
}

func (r *binaryReader) needText(name string, limit int) string {
	s := r.text(name, limit)
	if s == "" {
		r.fail(CodeMissing, name+" is empty")
	}
	return s
}

func (r *binaryReader) cursor() string { return r.needText("cursor", push.MaxCursorString) }

func (r *binaryReader) id() push.MsgID { return push.MsgID(r.number("id", 1, math.MaxInt64)) }

func (r *binaryReader) code() CloseCode { return CloseCode(r.number("code", 1, math.MaxUint16)) }

func (r *binaryReader) time(name string) push.MilliTime {
	return push.MilliTime(r.number(name, 0, maxNumber))
}

func (r *binaryReader) slot() push.SlotKind {
	s := push.SlotKind(r.octet())
	if s > push.Common {
		r.fail(CodeInvalid, "slot is 0 or 1")
	}
	return s
}

// binaryName reads the number of an enumeration that has a name for it.
func binaryName[T ~uint8](r *binaryReader, name string, names []string) T {
	n := r.octet()
	if r.err == nil && (int(n) >= len(names) || names[n] == "") {
		r.fail(CodeInvalid, name+" is none of its numbers")
	}
	return T(n)
}
