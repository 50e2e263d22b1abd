package wire

import "unicode/utf8"

// member is one of the members that some JSON frame has.
type member uint8

// The members, in no order that matters.
const (
	mType member = iota
	mVersion
	mToken
	mCursor
	mClient
	mSession
	mOwn
	mCommon
	mHeartbeat
	mGrace
	mFrameBytes
	mFramesPerSecond
	mTime
	mExpires
	mSlot
	mPos
	mID
	mRef
	mCollapseKey
	mHeaders
	mBody
	mBodyBase64
	mReason
	mFrom
	mTo
	mCode
	mDetail
	mBy
	mOn
	mDelay
	mAddress
	mEvent
	mJoin
	mLeave
	mTags
	mAfter
	memberCount
)

var memberNames = [memberCount]string{
	mType: "type", mVersion: "version", mToken: "token", mCursor: "cursor", mClient: "client", mSession: "session",
	mOwn: "own", mCommon: "common", mHeartbeat: "heartbeat_ms", mGrace: "grace_ms", mFrameBytes: "frame_bytes",
	mFramesPerSecond: "frames_per_second", mTime: "time", mExpires: "expires", mSlot: "slot", mPos: "pos", mID: "id",
	mRef: "ref", mCollapseKey: "collapse_key", mHeaders: "headers", mBody: "body", mBodyBase64: "body_base64",
	mReason: "reason", mFrom: "from", mTo: "to", mCode: "code", mDetail: "detail", mBy: "by", mOn: "on",
	mDelay: "delay_ms", mAddress: "address", mEvent: "event", mJoin: "join", mLeave: "leave", mTags: "tags", mAfter: "after",
}

// memberOf returns the member of that name, memberCount if there is none. The switch compares without a copy and
// without a hash; a test holds it against memberNames.
func memberOf(name []byte) member {
	switch string(name) {
	case "type":
		return mType
	case "version":
		return mVersion
	case "token":
		return mToken
	case "cursor":
		return mCursor
	case "client":
		return mClient
	case "session":
		return mSession
	case "own":
		return mOwn
	case "common":
		return mCommon
	case "heartbeat_ms":
		return mHeartbeat
	case "grace_ms":
		return mGrace
	case "frame_bytes":
		return mFrameBytes
	case "frames_per_second":
		return mFramesPerSecond
	case "time":
		return mTime
	case "expires":
		return mExpires
	case "slot":
		return mSlot
	case "pos":
		return mPos
	case "id":
		return mID
	case "ref":
		return mRef
	}
	return rarerMemberOf(name)
}

func rarerMemberOf(name []byte) member {
	switch string(name) {
	case "collapse_key":
		return mCollapseKey
	case "headers":
		return mHeaders
	case "body":
		return mBody
	case "body_base64":
		return mBodyBase64
	case "reason":
		return mReason
	case "from":
		return mFrom
	case "to":
		return mTo
	case "code":
		return mCode
	case "detail":
		return mDetail
	case "by":
		return mBy
	case "on":
		return mOn
	case "delay_ms":
		return mDelay
	case "address":
		return mAddress
	case "event":
		return mEvent
	case "join":
		return mJoin
	case "leave":
		return mLeave
	case "tags":
		return mTags
	case "after":
		return mAfter
	}
	return memberCount
}

// object is one JSON frame taken apart: where the value of each member lies in b. A member that is null counts as
// absent, except body, where null is a body like another.
type object struct {
	b     []byte
	at    [memberCount]span
	has   uint64 // bit of each member that is there
	twice uint64 // bit of each member whose name stood more than once
}

// span is a value's place in the frame, quotes of a string included.
type span struct{ from, to int }

// bit returns the bit of a member in a set.
func bit(m member) uint64 { return 1 << m }

// raw returns the value of a member that is there.
func (o *object) raw(m member) []byte { return o.b[o.at[m].from:o.at[m].to] }

// scan checks that b is one JSON object in UTF-8 and takes it apart. It copies nothing. A body may nest deep in what
// servers send; clients send none.
func (o *object) scan(b []byte, from sentBy) error {
	if !utf8.Valid(b) {
		return fail(CodeMalformed, "a frame is UTF-8")
	}
	o.b = b
	s := scanner{b: b, bodyDepth: maxPassedDepth}
	if from == byServer {
		s.bodyDepth = MaxBodyDepth
	}
	s.space()
	if !s.members(o, maxPassedDepth) {
		return fail(CodeMalformed, s.why())
	}
	s.space()
	if s.i != len(b) {
		return fail(CodeMalformed, "a frame is one JSON object and nothing after it")
	}
	if o.has&bit(mType) == 0 || o.raw(mType)[0] != '"' {
		return fail(CodeMalformed, "a frame has a type, a string")
	}
	if o.twice&bit(mType) != 0 {
		return fail(CodeMalformed, "a frame has one type")
	}
	return nil
}

// note keeps where a member lies.
func (o *object) note(name []byte, from, to int, seen *uint64) {
	if indexBackslash(name) >= 0 {
		name = []byte(unquote(name)) // rare: somebody escaped letters of a name
	} else {
		name = name[1 : len(name)-1]
	}
	m := memberOf(name)
	if m == memberCount {
		return
	}
	o.twice |= *seen & bit(m)
	*seen |= bit(m)
	if m == mBody || o.b[from] != 'n' {
		o.at[m] = span{from, to}
		o.has |= bit(m)
	}
}

// scanner passes over JSON text (RFC 8259) and checks it. Its methods report false at the first fault.
type scanner struct {
	b    []byte
	i    int
	deep bool // the fault is depth, not grammar

	bodyDepth int // levels that the member body of a frame may nest
}

func (s *scanner) why() string {
	if s.deep {
		return "nested too deep"
	}
	return "not a JSON object"
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

// take passes over the byte c, if it comes next.
func (s *scanner) take(c byte) bool {
	if s.i < len(s.b) && s.b[s.i] == c {
		s.i++
		return true
	}
	return false
}

// members passes over an object, down to depth levels below it; o, unless nil, is told where each member lies.
func (s *scanner) members(o *object, depth int) bool {
	if !s.take('{') {
		return false
	}
	s.space()
	if s.take('}') {
		return true
	}
	var seen uint64
	for {
		name := s.i
		if !s.text() {
			return false
		}
		end := s.i
		s.space()
		if !s.take(':') {
			return false
		}
		s.space()
		from, below := s.i, depth
		if o != nil && string(s.b[name:end]) == `"body"` {
			below = s.bodyDepth
		}
		if !s.value(below) {
			return false
		}
		if o != nil {
			o.note(s.b[name:end], from, s.i, &seen)
		}
		s.space()
		if s.take('}') {
			return true
		}
		if !s.take(',') {
			return false
		}
		s.space()
	}
}

// value passes over any value that nests at most depth levels.
func (s *scanner) value(depth int) bool {
	if s.i == len(s.b) {
		return false
	}
	switch c := s.b[s.i]; c {
	case '{', '[':
		if depth == 0 {
			s.deep = true
			return false
		}
		if c == '{' {
			return s.members(nil, depth-1)
		}
		return s.elements(depth - 1)
	case '"':
		return s.text()
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	}
	return s.number()
}

func (s *scanner) elements(depth int) bool {
	s.i++
	s.space()
	if s.take(']') {
		return true
	}
	for {
		if !s.value(depth) {
			return false
		}
		s.space()
		if s.take(']') {
			return true
		}
		if !s.take(',') {
			return false
		}
		s.space()
	}
}

func (s *scanner) word(w string) bool {
	if len(s.b)-s.i < len(w) || string(s.b[s.i:s.i+len(w)]) != w {
		return false
	}
	s.i += len(w)
	return true
}

// text passes over a string.
func (s *scanner) text() bool {
	if !s.take('"') {
		return false
	}
	for s.i < len(s.b) {
		c := s.b[s.i]
		s.i++
		switch {
		case c == '"':
			return true
		case c < 0x20:
			return false
		case c == '\\' && !s.escape():
			return false
		}
	}
	return false
}

// escape passes over what follows a backslash.
func (s *scanner) escape() bool {
	if s.i == len(s.b) {
		return false
	}
	c := s.b[s.i]
	s.i++
	switch c {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return true
	case 'u':
		if len(s.b)-s.i < 4 {
			return false
		}
		for _, h := range s.b[s.i : s.i+4] {
			if hexValue(h) < 0 {
				return false
			}
		}
		s.i += 4
		return true
	}
	return false
}

func (s *scanner) number() bool {
	s.take('-')
	if !s.take('0') && !s.digits() {
		return false
	}
	if s.take('.') && !s.digits() {
		return false
	}
	if s.take('e') || s.take('E') {
		if !s.take('+') {
			s.take('-')
		}
		return s.digits()
	}
	return true
}

// digits passes over one digit or more.
func (s *scanner) digits() bool {
	from := s.i
	for s.i < len(s.b) && s.b[s.i] >= '0' && s.b[s.i] <= '9' {
		s.i++
	}
	return s.i > from
}

// isValue reports whether b is one JSON value that a body may be, without white space around it: a JSON frame could not
// give that back.
func isValue(b []byte) bool {
	s := scanner{b: b}
	return s.value(MaxBodyDepth) && s.i == len(b)
}
