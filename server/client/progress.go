package client

import (
	"fmt"

	"carillon/server/planted"
	"carillon/server/push"
)

// RecentIDs is how many message ids are kept to know a repeat by.
const RecentIDs = 1000

// progress is how far a device has come: the pure part of a client, without I/O or time. It belongs to one goroutine.
type progress struct {
	highs planted.Highs // of a planted bug alone

	owner  push.CursorOwner
	cursor push.Cursor // everything up to here was handled
	known  bool        // there is a cursor: owner and cursor mean something

	acked      push.Cursor // the last one acknowledged, or the one the server itself named
	ackedKnown bool

	// The last ids handled: a ring, its oldest at next once it is full, and the same as a set.
	ids  []push.MsgID
	next int
	set  map[push.MsgID]struct{}
}

// restore begins from what was stored. A cursor that cannot be read counts as none, as it would for the server.
func (p *progress) restore(s State) {
	*p = progress{set: make(map[push.MsgID]struct{}, RecentIDs)}
	if owner, c, err := push.ParseCursor(s.Cursor); err == nil {
		p.owner, p.cursor, p.known = owner, c, true
	}
	for _, id := range s.IDs {
		p.note(id)
	}
}

// state returns what is to be stored. The result shares nothing with p.
func (p *progress) state() State {
	s := State{Cursor: p.string(), IDs: make([]push.MsgID, 0, len(p.ids))}
	s.IDs = append(s.IDs, p.ids[p.next:]...)
	s.IDs = append(s.IDs, p.ids[:p.next]...)
	return s
}

// string returns the cursor as the wire writes it, empty if there is none.
func (p *progress) string() string {
	if !p.known {
		return ""
	}
	return string(push.AppendCursor(nil, p.owner, p.cursor))
}

// replace takes the cursor that the server named: it stands after everything the server sent so far, all of which was
// handled.
func (p *progress) replace(s string) error {
	owner, c, err := push.ParseCursor(s)
	if err != nil {
		return fmt.Errorf("client: the server's cursor: %w", err)
	}
	p.owner, p.cursor, p.known = owner, c, true
	return nil
}

// welcome takes the cursor at which a session begins. If it is the one that was presented and more than the server knows
// to be acknowledged, it still has to be acknowledged; what the server came up with by itself has not.
func (p *progress) welcome(s string) error {
	before, had := p.cursor, p.known
	if err := p.replace(s); err != nil {
		return err
	}
	if !had || before != p.cursor {
		p.acked, p.ackedKnown = p.cursor, true
	}
	return nil
}

// pass notes that everything in the slot up to pos was handled. A slot without a place yet has no epoch to count
// under: it stays without, until a cursor frame names one. A position never moves back this way.
func (p *progress) pass(slot push.SlotKind, pos push.Position) {
	if slot != push.Own && slot != push.Common || p.cursor[slot].IsZero() {
		return
	}
	p.cursor[slot].Pos = max(p.cursor[slot].Pos, pos)
}

// isRepeat reports whether the message was handled before.
func (p *progress) isRepeat(id push.MsgID) bool {
	_, ok := p.set[id]
	return ok
}

// note keeps the id of a handled message, and forgets the oldest if there are too many.
func (p *progress) note(id push.MsgID) {
	if p.isRepeat(id) {
		return
	}
	p.set[id] = struct{}{}
	if len(p.ids) < RecentIDs {
		p.ids = append(p.ids, id)
		return
	}
	delete(p.set, p.ids[p.next])
	p.ids[p.next] = id
	p.next = (p.next + 1) % RecentIDs
}

// owesAck reports whether something was handled that has not been acknowledged.
func (p *progress) owesAck() bool { return p.known && (!p.ackedKnown || p.acked != p.cursor) }

// noteAck notes that the cursor as it stands was acknowledged.
func (p *progress) noteAck() { p.acked, p.ackedKnown = p.cursor, true }
