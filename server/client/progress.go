package client

import (
	"fmt"

	"carillon/server/planted"
	"carillon/server/push"
)

// RecentIDs is how many ids of persistent messages are kept to know a repeat by, with the cursor; recentLive is how many of others, in memory.
const (
	RecentIDs  = 1000
	recentLive = 256
)

// recent are the last ids handled: a ring, its oldest at next once it is full, and the same as a set.
type recent struct {
	most int // static
	ids  []push.MsgID
	next int
	set  map[push.MsgID]struct{}
}

func newRecent(most int) recent { return recent{most: most, set: make(map[push.MsgID]struct{})} }

// has reports whether the id is one of them.
func (r *recent) has(id push.MsgID) bool {
	_, ok := r.set[id]
	return ok
}

// note keeps an id, and forgets the oldest if there are too many.
func (r *recent) note(id push.MsgID) {
	if r.has(id) {
		return
	}
	r.set[id] = struct{}{}
	if len(r.ids) < r.most {
		r.ids = append(r.ids, id)
		return
	}
	delete(r.set, r.ids[r.next])
	r.ids[r.next] = id
	r.next = (r.next + 1) % r.most
}

// progress is how far a device has come: the pure part of a client, without I/O or time. It belongs to one goroutine.
type progress struct {
	highs planted.Highs // of a planted bug alone

	owner  push.CursorOwner
	cursor push.Cursor // everything up to here was handled
	known  bool        // there is a cursor: owner and cursor mean something

	acked      push.Cursor // the last one acknowledged, or the one the server itself named
	ackedKnown bool

	kept recent // persistent messages
	live recent // others: one of them may come over two rooms, to a device that moves from one to the other meanwhile
}

// restore begins from what was stored. A cursor that cannot be read counts as none, as it would for the server.
func (p *progress) restore(s State) {
	*p = progress{kept: newRecent(RecentIDs), live: newRecent(recentLive)}
	if owner, c, err := push.ParseCursor(s.Cursor); err == nil {
		p.owner, p.cursor, p.known = owner, c, true
	}
	for _, id := range s.IDs {
		p.kept.note(id)
	}
}

// state returns what is to be stored. The result shares nothing with p.
func (p *progress) state() State {
	k := &p.kept
	s := State{Cursor: p.string(), IDs: make([]push.MsgID, 0, len(k.ids))}
	s.IDs = append(s.IDs, k.ids[k.next:]...)
	s.IDs = append(s.IDs, k.ids[:k.next]...)
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

// owesAck reports whether something was handled that has not been acknowledged.
func (p *progress) owesAck() bool { return p.known && (!p.ackedKnown || p.acked != p.cursor) }

// noteAck notes that the cursor as it stands was acknowledged.
func (p *progress) noteAck() { p.acked, p.ackedKnown = p.cursor, true }
