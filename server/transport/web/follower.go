package web

import (
	"carillon/server/push"
	"carillon/server/wire"
)

// Follower knows the cursor that stands behind each frame of a session: what a client of another transport works out by
// itself (api/README.md, section 4) is here written beside the frames. The zero value knows none. It takes 64 bytes and
// belongs to whoever writes the session's frames.
type Follower struct {
	cursor push.Cursor
	owner  push.CursorOwner
	known  bool
}

// Pass notes that the frame is sent, and reports whether it moved the cursor, or named it: then the cursor is worth telling.
func (f *Follower) Pass(o *wire.Out) bool {
	if o.Shared != nil {
		if !o.Shared.Message().Persistent {
			return false
		}
		return f.pass(o.Slot, o.Pos)
	}
	switch m := o.Frame.(type) {
	case *wire.Welcome:
		return f.replace(m.Cursor)
	case *wire.Cursor:
		return f.replace(m.Cursor)
	case *wire.Message:
		return m.Persistent && f.pass(m.Slot, m.Pos)
	case *wire.Recall:
		return f.pass(m.Slot, m.Pos)
	case *wire.Gap:
		// After a reset everything retained comes again, at positions that the gap may span.
		return m.Reason != wire.GapReset && f.pass(m.Slot, m.To)
	}
	return false
}

// pass moves a slot's place forward. A slot without a place yet has no epoch to count under, and stays without until a
// frame names one.
func (f *Follower) pass(slot push.SlotKind, pos push.Position) bool {
	if slot != push.Own && slot != push.Common {
		return false
	}
	at := &f.cursor[slot]
	if !f.known || at.IsZero() || pos <= at.Pos {
		return false
	}
	at.Pos = pos
	return true
}

// replace takes the cursor that a frame names. The server wrote it; one that cannot be read leaves none, since whatever
// were told in its place would be wrong.
func (f *Follower) replace(s string) bool {
	owner, c, err := push.ParseCursor(s)
	if err != nil {
		*f = Follower{}
		return false
	}
	f.owner, f.cursor, f.known = owner, c, true
	return true
}

// Append appends the cursor as the wire writes it, nothing while none is known.
func (f *Follower) Append(dst []byte) []byte {
	if !f.known {
		return dst
	}
	return push.AppendCursor(dst, f.owner, f.cursor)
}

// Owner returns whose cursor it is, 0 while none is known.
func (f *Follower) Owner() push.CursorOwner { return f.owner }

// Is reports whether s is the cursor as it stands.
func (f *Follower) Is(s string) bool {
	owner, c, err := push.ParseCursor(s)
	return err == nil && f.known && owner == f.owner && c == f.cursor
}
