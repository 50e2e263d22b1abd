package wire

import (
	"slices"
	"strings"

	"carillon/server/push"
)

// sentBy says which side may send a frame.
type sentBy uint8

const (
	byClient sentBy = 1 << iota
	byServer
)

// form is what a decoder knows of a frame before it looks at its fields.
type form struct {
	from sentBy
	has  uint64 // the members of its JSON form, type apart
	need uint64 // those without which it means nothing
}

// forms holds each frame's, at the index of its type.
var forms = [...]form{
	TypeConnect: {byClient, 1<<mVersion | 1<<mToken | 1<<mCursor | 1<<mClient | 1<<mAfter, 1 << mVersion},
	TypeWelcome: {
		byServer,
		needWelcome | 1<<mExpires,
		needWelcome,
	},
	TypeMessage: {
		byServer,
		1<<mSlot | 1<<mPos | 1<<mID | 1<<mTime | 1<<mExpires | 1<<mRef | 1<<mCollapseKey | 1<<mHeaders | 1<<mBody |
			1<<mBodyBase64,
		1<<mID | 1<<mTime,
	},
	TypeAck:     {byClient, 1 << mCursor, 1 << mCursor},
	TypeCursor:  {byServer, 1<<mCursor | 1<<mReason, 1<<mCursor | 1<<mReason},
	TypePing:    {byClient | byServer, 0, 0},
	TypePong:    {byClient | byServer, 0, 0},
	TypeGap:     {byServer, 1<<mSlot | 1<<mFrom | 1<<mTo | 1<<mReason, 1<<mSlot | 1<<mFrom | 1<<mTo | 1<<mReason},
	TypeKick:    {byServer, 1<<mCode | 1<<mReason | 1<<mDetail | 1<<mBy | 1<<mOn, 1 << mCode},
	TypeGoaway:  {byServer, 1<<mCode | 1<<mReason | 1<<mDelay | 1<<mAddress, 1 << mCode},
	TypeRecall:  {byServer, 1<<mSlot | 1<<mPos | 1<<mID, 1<<mSlot | 1<<mPos | 1<<mID},
	TypeEvent:   {byClient, 1<<mEvent | 1<<mID | 1<<mTime, 1<<mEvent | 1<<mID},
	TypeRefresh: {byClient | byServer, 1<<mToken | 1<<mExpires, 0},
	TypeError:   {byServer, 1<<mCode | 1<<mDetail, 1 << mCode},
	TypeTags:    {byClient | byServer, 1<<mJoin | 1<<mLeave | 1<<mTags, 0},
}

const needWelcome = 1<<mVersion | 1<<mSession | 1<<mCursor | 1<<mOwn | 1<<mCommon | 1<<mHeartbeat | 1<<mGrace |
	1<<mFrameBytes | 1<<mFramesPerSecond | 1<<mTime

// DecodeClient reads a frame that a client sent: connect, ack, ping, pong, event, refresh or tags. The frame does not alias b.
// An error is a *[push.Error] of kind invalid with one of the codes of this package; with [CodeUnknown] the frame was
// well formed, and its session can go on.
func DecodeClient(enc Encoding, b []byte) (Frame, error) {
	f, err := decode(enc, byClient, b)
	if r, ok := f.(*Refresh); ok && r.Token == "" {
		return nil, fail(CodeMissing, "refresh needs a token")
	}
	return f, err
}

// DecodeServer reads a frame that a server sent, every one but connect, ack and event, under the same terms as
// [DecodeClient].
func DecodeServer(enc Encoding, b []byte) (Frame, error) { return decode(enc, byServer, b) }

func decode(enc Encoding, from sentBy, b []byte) (Frame, error) {
	if enc == Binary {
		return decodeBinary(from, b)
	}
	return decodeJSON(from, b)
}

// check reports whether that side may send a frame of the type.
func (t Type) check(from sentBy) error {
	if t == 0 || int(t) >= len(forms) {
		return fail(CodeUnknown, "this version knows no frame of that type")
	}
	if forms[t].from&from == 0 {
		return fail(CodeUnexpected, "only the other side sends "+t.String())
	}
	return nil
}

// checkTags reports what is wrong with a list of tags to which the last was added, and the code that it is refused with.
func checkTags(name string, tags []push.Tag) (code, detail string) {
	switch last := tags[len(tags)-1]; {
	case len(tags) > push.MaxTags:
		return CodeTooLong, name + " has too many tags"
	case len(last) > push.MaxTag:
		return CodeTooLong, name + " has a tag that is too long"
	case last.Check() != nil:
		return CodeInvalid, name + " has a tag that is empty or holds control characters"
	}
	return "", ""
}

// sortHeaders orders the headers of a decoded message by name, and reports false if a name stands twice.
func sortHeaders(hs []push.Header) bool {
	slices.SortFunc(hs, func(a, b push.Header) int { return strings.Compare(a.Name, b.Name) })
	for i := 1; i < len(hs); i++ {
		if hs[i].Name == hs[i-1].Name {
			return false
		}
	}
	return true
}
