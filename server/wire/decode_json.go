package wire

import (
	"bytes"
	"math"
	"strings"

	"carillon/server/push"
)

func decodeJSON(from sentBy, b []byte) (Frame, error) {
	r := jsonReader{}
	if err := r.o.scan(b, from); err != nil {
		return nil, err
	}
	t := r.frameType()
	if err := t.check(from); err != nil {
		return nil, err
	}
	if err := r.checkMembers(t); err != nil {
		return nil, err
	}
	f := r.frame(t)
	if r.err != nil {
		return nil, r.err
	}
	return f, nil
}

// jsonReader reads members of one object. It keeps the first error; what it returns after one means nothing.
type jsonReader struct {
	o   object
	err error
}

// frameType returns the type that the object names, 0 if this version knows none of that name.
func (r *jsonReader) frameType() Type {
	t, _ := rawName[Type](typeNames[:], r.o.raw(mType))
	return t
}

// rawName finds the number of the name that a JSON string holds, without a copy where nothing is escaped.
func rawName[T ~uint8](names []string, raw []byte) (T, bool) {
	if indexBackslash(raw) >= 0 {
		return numberOf[T](names, unquote(raw))
	}
	for i, n := range names {
		if n != "" && string(raw[1:len(raw)-1]) == n {
			return T(i), true
		}
	}
	return 0, false
}

// checkMembers refuses a frame that lacks a member which its type needs, or has one of its members twice.
func (r *jsonReader) checkMembers(t Type) error {
	if forms[t].has&r.o.twice == 0 && forms[t].need&^r.o.has == 0 {
		return nil
	}
	for m := range memberCount {
		if forms[t].need&bit(m)&^r.o.has != 0 {
			return fail(CodeMissing, t.String()+" needs "+memberNames[m])
		}
		if forms[t].has&bit(m)&r.o.twice != 0 {
			return fail(CodeInvalid, memberNames[m]+" stands once")
		}
	}
	return nil
}

func (r *jsonReader) frame(t Type) Frame {
	switch t {
	case TypeConnect:
		return &Connect{
			Version: uint32(r.number(mVersion, 1, math.MaxUint32)),
			Token:   r.text(mToken, MaxToken),
			Cursor:  r.text(mCursor, push.MaxCursorString),
			Client:  r.text(mClient, MaxClient),
			After:   r.session(mAfter),
		}
	case TypeWelcome:
		return r.welcome()
	case TypeMessage:
		return r.message()
	case TypeAck:
		return &Ack{Cursor: r.needText(mCursor, push.MaxCursorString)}
	case TypeCursor:
		return &Cursor{
			Cursor: r.needText(mCursor, push.MaxCursorString),
			Reason: jsonName[CursorReason](r, mReason, cursorNames[:]),
		}
	case TypePing:
		return &Ping{}
	case TypePong:
		return &Pong{}
	case TypeGap:
		return &Gap{
			Slot: r.slot(), From: push.Position(r.number(mFrom, 0, maxNumber)),
			To: push.Position(r.number(mTo, 0, maxNumber)), Reason: jsonName[GapReason](r, mReason, gapNames[:]),
		}
	case TypeKick:
		return &Kick{
			Code: r.code(), Reason: r.text(mReason, math.MaxInt), Detail: r.text(mDetail, math.MaxInt),
			By: push.DeviceID(r.text(mBy, math.MaxInt)), On: r.text(mOn, math.MaxInt),
		}
	case TypeGoaway:
		return &Goaway{
			Code: r.code(), Reason: r.text(mReason, math.MaxInt),
			DelayMillis: uint32(r.number(mDelay, 0, math.MaxUint32)), Address: r.text(mAddress, math.MaxInt),
		}
	case TypeRecall:
		return &Recall{Slot: r.slot(), Pos: push.Position(r.number(mPos, 0, maxNumber)), ID: r.id()}
	case TypeEvent:
		return &Event{Event: jsonName[EventKind](r, mEvent, eventNames[:]), ID: r.id(), Time: r.time(mTime)}
	case TypeRefresh:
		return &Refresh{Token: r.text(mToken, MaxToken), Expires: r.time(mExpires)}
	case TypeTags:
		return &Tags{Join: r.tags(mJoin), Leave: r.tags(mLeave), Tags: r.tags(mTags)}
	}
	return &Error{Code: r.needText(mCode, math.MaxInt), Detail: r.text(mDetail, math.MaxInt)}
}

func (r *jsonReader) welcome() *Welcome {
	return &Welcome{
		Version: uint32(r.number(mVersion, 1, math.MaxUint32)),
		Session: r.session(mSession),
		Cursor:  r.needText(mCursor, push.MaxCursorString),
		Own:     jsonName[Start](r, mOwn, startNames[:]), Common: jsonName[Start](r, mCommon, startNames[:]),
		HeartbeatMillis: uint32(r.number(mHeartbeat, 0, math.MaxUint32)),
		GraceMillis:     uint32(r.number(mGrace, 0, math.MaxUint32)),
		FrameBytes:      uint32(r.number(mFrameBytes, 0, math.MaxUint32)),
		FramesPerSecond: uint32(r.number(mFramesPerSecond, 0, math.MaxUint32)),
		Time:            r.time(mTime), Expires: r.time(mExpires),
	}
}

// message reads a message. Slot and position stand together or not at all; without them it is not persistent.
func (r *jsonReader) message() *Message {
	m := &Message{Slot: push.NoSlot}
	switch r.o.has & (bit(mSlot) | bit(mPos)) {
	case bit(mSlot):
		r.fail(CodeMissing, "a message with a slot needs pos")
	case bit(mPos):
		r.fail(CodeMissing, "a message with a pos needs slot")
	case bit(mSlot) | bit(mPos):
		m.Slot, m.Persistent = r.slot(), true
		m.Pos = push.Position(r.number(mPos, 0, maxNumber))
		m.Expires = r.time(mExpires)
	}
	m.ID, m.Created = r.id(), r.time(mTime)
	m.Ref = r.text(mRef, math.MaxInt)
	m.CollapseKey = r.text(mCollapseKey, math.MaxInt)
	m.Headers = r.headers()
	switch r.o.has & (bit(mBody) | bit(mBodyBase64)) {
	case bit(mBody):
		m.Body = bytes.Clone(r.o.raw(mBody))
	case bit(mBodyBase64):
		m.Kind, m.Body = push.BodyBinary, r.bytes(mBodyBase64)
	case bit(mBody) | bit(mBodyBase64):
		r.fail(CodeInvalid, "a message has body or body_base64")
	}
	return m
}

func (r *jsonReader) fail(code, detail string) {
	if r.err == nil {
		r.err = fail(code, detail)
	}
}

// number reads an integer, 0 if the member is absent.
func (r *jsonReader) number(m member, least, most uint64) uint64 {
	if r.o.has&bit(m) == 0 {
		return 0
	}
	n, ok := parseDigits(r.o.raw(m), most)
	if !ok || n < least {
		r.fail(CodeInvalid, memberNames[m]+" is an integer in its range")
	}
	return n
}

// quoted reads an integer that stands in a string.
func (r *jsonReader) quoted(m member, least, most uint64) uint64 {
	raw := r.o.raw(m)
	if raw[0] != '"' {
		r.fail(CodeInvalid, memberNames[m]+" is a string of digits")
		return 0
	}
	n, ok := parseDigits(raw[1:len(raw)-1], most)
	if !ok || n < least {
		r.fail(CodeInvalid, memberNames[m]+" is a string of digits in its range")
	}
	return n
}

// session reads the number of a session, 0 if the member is absent.
func (r *jsonReader) session(m member) push.SessionEpoch {
	if r.o.has&bit(m) == 0 {
		return 0
	}
	return push.SessionEpoch(r.quoted(m, 0, math.MaxUint64))
}

func (r *jsonReader) id() push.MsgID { return push.MsgID(r.quoted(mID, 1, math.MaxInt64)) }

func (r *jsonReader) code() CloseCode { return CloseCode(r.number(mCode, 1, math.MaxUint16)) }

func (r *jsonReader) time(m member) push.MilliTime { return push.MilliTime(r.number(m, 0, maxNumber)) }

func (r *jsonReader) slot() push.SlotKind {
	return push.SlotKind(r.number(mSlot, 0, uint64(push.Common)))
}

// text reads a string of at most limit bytes, the empty one if the member is absent.
func (r *jsonReader) text(m member, limit int) string {
	if r.o.has&bit(m) == 0 {
		return ""
	}
	raw := r.o.raw(m)
	if raw[0] != '"' {
		r.fail(CodeInvalid, memberNames[m]+" is a string")
		return ""
	}
	s := unquote(raw)
	if len(s) > limit {
		r.fail(CodeTooLong, memberNames[m]+" is too long")
	}
	return s
}

// needText reads a string that may not be empty.
func (r *jsonReader) needText(m member, limit int) string {
	s := r.text(m, limit)
	if s == "" {
		r.fail(CodeMissing, memberNames[m]+" is empty")
	}
	return s
}

// jsonName reads a name of an enumeration, from a member that is there.
func jsonName[T ~uint8](r *jsonReader, m member, names []string) T {
	raw := r.o.raw(m)
	if raw[0] == '"' {
		if n, ok := rawName[T](names, raw); ok {
			return n
		}
	}
	r.fail(CodeInvalid, memberNames[m]+" is none of its names")
	return 0
}

// bytes reads a string in base64.
func (r *jsonReader) bytes(m member) []byte {
	s := r.text(m, math.MaxInt)
	out := make([]byte, strictBase64.DecodedLen(len(s)))
	n, err := strictBase64.Decode(out, []byte(s))
	if err != nil || strings.ContainsAny(s, "\r\n") { // the decoder passes over line breaks
		r.fail(CodeInvalid, memberNames[m]+" is base64 with padding")
		return nil
	}
	return out[:n]
}

// tags reads a list of tags. The list was checked when the frame was taken apart.
func (r *jsonReader) tags(m member) []push.Tag {
	if r.o.has&bit(m) == 0 {
		return nil
	}
	s := scanner{b: r.o.raw(m)}
	if !s.take('[') {
		r.fail(CodeInvalid, memberNames[m]+" is a list of tags")
		return nil
	}
	var tags []push.Tag
	for s.space(); !s.take(']'); s.space() {
		from := s.i
		if !s.text() {
			r.fail(CodeInvalid, memberNames[m]+" is a list of tags")
			return nil
		}
		tags = append(tags, push.Tag(unquote(s.b[from:s.i])))
		if code, detail := checkTags(memberNames[m], tags); code != "" {
			r.fail(code, detail)
			return nil
		}
		s.space()
		s.take(',')
	}
	return tags
}

// headers reads the headers of a message. The object was checked when the frame was taken apart.
func (r *jsonReader) headers() []push.Header {
	if r.o.has&bit(mHeaders) == 0 {
		return nil
	}
	s := scanner{b: r.o.raw(mHeaders)}
	if !s.take('{') {
		r.fail(CodeInvalid, "headers is an object")
		return nil
	}
	var hs []push.Header
	for s.space(); !s.take('}'); s.space() {
		name := s.i
		s.text()
		h := push.Header{Name: unquote(s.b[name:s.i])}
		s.space()
		s.take(':')
		s.space()
		value := s.i
		if !s.text() {
			r.fail(CodeInvalid, "the value of a header is a string")
			return nil
		}
		h.Value = unquote(s.b[value:s.i])
		hs = append(hs, h)
		s.space()
		s.take(',')
	}
	if !sortHeaders(hs) {
		r.fail(CodeInvalid, "each header stands once")
	}
	return hs
}
