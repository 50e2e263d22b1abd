package saver

import (
	"crypto/sha256"
	"iter"
	"slices"
	"time"

	"carillon/server/planted"
	"carillon/server/push"
)

// This file and devices.go hold what every store decides the same way and without I/O, so that stores differ only in how
// they keep bytes.

// Slot is a slot's state with what a store keeps beside it to judge limits without walking the entries.
type Slot struct {
	push.SlotState
	Freed  push.Position  // at or below lie only holes: where a walk over the entries may begin
	Count  int            // entries kept, those included that expired and were not removed yet
	Bytes  int            // what those count for
	Expiry push.MilliTime // no kept entry expires before; 0: there is none
	Used   push.MilliTime // creation or last append
}

// RecallSize is what a recall entry counts for in the limits of a slot.
const RecallSize = 64

// RecordKept is how long a message's record outlives the message, and the least time that a recall entry lives.
const RecordKept = time.Hour

// MaxNotes bounds the notes of a slot. Past it the oldest go, and a cursor so many lineages old is of an unknown one:
// everything retained is sent again. Only a store that is restarted twice a day for two months comes there.
const MaxNotes = 128

// slotGrace is how much longer than the cursors in it a slot's state is kept.
const slotGrace = 24 * time.Hour

// NewSlot returns the state of a slot that is made now, under the store's present lineage, with a fresh random epoch.
func NewSlot(epoch push.SlotEpoch, l push.Lineage, now push.MilliTime) Slot {
	origin := push.FirstPosition(now)
	if planted.Is(planted.PositionsFromOne) {
		origin = 0
	}
	return Slot{
		SlotState: push.SlotState{
			Epoch: epoch, Head: origin, Origin: origin,
			Notes: []push.Note{{Lineage: l, Start: origin, At: now}},
		},
		Freed: origin,
		Used:  now,
	}
}

// Append takes the slot's next position for an entry of that weight (Pos is ignored) and returns its place. The first
// append under a new lineage of the store notes it, and forgets notes that no cursor needs any more. Notes are
// replaced, never written into, so that copies of the state stay as they were.
func (s *Slot) Append(w Weight, l push.Lineage, now push.MilliTime, limits push.Limits) push.Place {
	if s.Lineage() != l {
		notes := make([]push.Note, 0, len(s.Notes)+1)
		notes = append(append(notes, s.Notes...), push.Note{Lineage: l, Start: s.Head, At: now})
		s.Notes = TrimNotes(notes, now, limits)
	}
	s.Head++
	s.Count++
	s.Bytes += w.Size
	s.Used = now
	if s.Expiry == 0 || w.Expires < s.Expiry {
		s.Expiry = w.Expires
	}
	return HeadOf(&s.SlotState)
}

// Removed takes a kept entry that became a hole out of the counts.
func (s *Slot) Removed(w Weight) {
	s.Count--
	s.Bytes -= w.Size
	if s.Count == 0 {
		s.Expiry, s.Freed = 0, s.Head
	}
}

// HeadOf returns the place of the newest entry there ever was; zero if the slot does not exist.
func HeadOf(s *push.SlotState) push.Place {
	return push.Place{Epoch: s.Epoch, Lineage: s.Lineage(), Pos: s.Head}
}

// TrimNotes returns the notes without those that no cursor needs: a lineage in which no cursor was written for longer
// than a device is remembered, because a later one was noted before that, and all above MaxNotes. The last one stays.
// The result shares the argument's memory.
func TrimNotes(notes []push.Note, now push.MilliTime, l push.Limits) []push.Note {
	keep := now.Add(-l.WithDefaults().DeviceUnseen - slotGrace)
	first := max(0, len(notes)-MaxNotes)
	for first < len(notes)-1 && notes[first+1].At < keep {
		first++
	}
	return notes[first:]
}

// Idle reports whether a slot's state may be forgotten: it keeps no entry, there is no device (of the user, or in the
// shard) with a cursor in it, and nothing was appended for longer than a device is remembered and a day more. A cursor
// that turns up later all the same is of an unknown epoch.
func (s *Slot) Idle(devices int, now push.MilliTime, l push.Limits) bool {
	return s.Count == 0 && devices == 0 && s.Used.Add(l.WithDefaults().DeviceUnseen+slotGrace) < now
}

// Weight is what an entry counts for in the limits of its slot.
type Weight struct {
	Pos     push.Position
	Size    int
	Expires push.MilliTime
}

// Weight returns what the entry counts for at that position.
func (e *Stored) Weight(pos push.Position) Weight { return Weight{pos, e.Size, e.Expires} }

// Expired reports whether an entry or message that expires at that moment is no longer live.
func Expired(expires, now push.MilliTime) bool { return expires <= now }

// SlotLimits returns the most entries and bytes that a slot of that kind keeps.
func SlotLimits(k push.SlotKind, l push.Limits) (entries, bytes int) {
	l = l.WithDefaults()
	if k == push.Common {
		return l.CommonMessages, l.CommonBytes
	}
	return l.OwnMessages, l.OwnBytes
}

// Over reports whether the slot is beyond its limits, so that there is something to shed.
func (s *Slot) Over(k push.SlotKind, l push.Limits) bool {
	maxEntries, maxBytes := SlotLimits(k, l)
	return s.Count > maxEntries || s.Bytes > maxBytes
}

// Shed decides, after an append, which entries have to go so that the slot is within its limits, takes them out of the
// counts and returns them in the order in which they go: those expired first, all of them, which is no loss; then the
// oldest, which raises the Floor. It returns nothing, and does not walk, while the slot is within its limits. The newest
// entry stays in any case. kept walks the kept entries in order of position; Shed may walk it twice and stops early
// where it can.
func (s *Slot) Shed(k push.SlotKind, l push.Limits, now push.MilliTime, kept iter.Seq[Weight]) []Weight {
	over := func() bool { return s.Over(k, l) }
	if !over() {
		return nil
	}
	var gone []Weight
	if s.Expiry <= now {
		gone = s.ShedExpired(now, kept)
	}
	if !over() {
		return gone
	}
	for w := range kept {
		if !over() || w.Pos == s.Head {
			break
		}
		if Expired(w.Expires, now) {
			continue // gone above
		}
		gone = append(gone, w)
		s.Removed(w)
		s.Floor = max(s.Floor, w.Pos)
		s.Freed = max(s.Freed, w.Pos)
	}
	return gone
}

// ShedExpired takes the expired entries out of the counts and returns them, oldest first. It raises no Floor.
func (s *Slot) ShedExpired(now push.MilliTime, kept iter.Seq[Weight]) []Weight {
	if s.Count == 0 || s.Expiry > now {
		return nil
	}
	var gone []Weight
	var next push.MilliTime
	for w := range kept {
		switch {
		case Expired(w.Expires, now):
			gone = append(gone, w)
		case next == 0 || w.Expires < next:
			next = w.Expires
		}
	}
	for _, w := range gone {
		s.Removed(w)
	}
	if s.Count > 0 {
		s.Expiry = next
	}
	return gone
}

// ShedAcknowledged takes the entries at or below a position out of the counts and returns them, oldest first: what every
// device of a user has acknowledged. It raises no Floor.
func (s *Slot) ShedAcknowledged(upTo push.Position, kept iter.Seq[Weight]) []Weight {
	upTo = min(upTo, s.Head)
	if s.Count == 0 || upTo <= s.Freed {
		return nil
	}
	var gone []Weight
	for w := range kept {
		if w.Pos > upTo {
			break
		}
		gone = append(gone, w)
	}
	for _, w := range gone {
		s.Removed(w)
	}
	s.Freed = max(s.Freed, upTo)
	return gone
}

// CollapseID identifies, within one slot, which entries collapse each other: those of the same key and filter.
type CollapseID [sha256.Size]byte

// CollapseOf returns the identity for a key and a filter; ok is false without a key: such an entry collapses nothing.
func CollapseOf(key string, f *push.Filter) (id CollapseID, ok bool) {
	if key == "" {
		return id, false
	}
	if planted.Is(planted.CollapseOverFilters) {
		f = nil
	}
	var buf [256]byte
	return sha256.Sum256(AppendFilter(appendString(buf[:0], key), f)), true
}

// RecallExpires returns when the recall entry of a message expires: with the message, and no sooner than RecordKept from
// now, so that a device that showed a short-lived message and is away for a moment takes it back too.
func RecallExpires(m *push.Message, now push.MilliTime) push.MilliTime {
	return max(m.Expires, now.Add(RecordKept))
}

// Forgotten reports whether a message's record is no longer answered.
func (r *Record) Forgotten(now push.MilliTime) bool { return r.Message.Expires.Add(RecordKept) <= now }

// CheckPublication reports what is wrong with a publication before anything of it is stored: KindInvalid, or
// KindTooLarge if its message fits in no slot of the kind that it is for.
func CheckPublication(p *Publication) error {
	switch {
	case p.Message == nil || p.Message.ID <= 0:
		return push.Errorf(push.KindInvalid, "invalid_publication", "a publication has a message with an id")
	case p.Shards <= 0:
		return push.Errorf(push.KindInvalid, "invalid_publication", "a product has at least one shard")
	case p.Everyone && len(p.Own) > 0:
		return push.Errorf(push.KindInvalid, "invalid_publication", "a publication is for users or for everyone, not both")
	case p.Message.Persistent && p.TTL < time.Millisecond:
		return push.Errorf(push.KindInvalid, "invalid_publication", "a persistent message lives for at least a millisecond")
	case !canBeKept(p.Filter) || slices.ContainsFunc(p.Own, func(t Target) bool { return !canBeKept(t.Filter) }):
		return push.Errorf(push.KindInvalid, "invalid_publication", "an expression over tags is within its limits and in canonical form")
	}
	if !p.Message.Persistent {
		return nil
	}
	k := push.Own
	if p.Everyone {
		k = push.Common
	}
	if _, most := SlotLimits(k, p.Limits); p.Message.Size() > most {
		return push.Errorf(push.KindTooLarge, "message_too_large", "a message of more bytes than its slot may hold")
	}
	return nil
}

// canBeKept reports whether what is written of the filter can be read again.
func canBeKept(f *push.Filter) bool {
	return f == nil || f.Tags == nil || f.Tags.Check() == nil && f.Tags.IsCanonical()
}

// Stamp returns the copy of a publication's message that is stored: created now, and expiring if it is persistent.
func Stamp(p *Publication, now push.MilliTime) *push.Message {
	m := *p.Message
	m.Created, m.Expires = now, 0
	if m.Persistent {
		m.Expires = now.Add(p.TTL)
	}
	return &m
}

// WithoutBody returns the message itself if it has no body, otherwise a copy without.
func WithoutBody(m *push.Message) *push.Message {
	if m.Body == nil {
		return m
	}
	c := *m
	c.Body = nil
	return &c
}

// KeyRecordOf returns what is remembered of a publication's idempotency key once its message is stored.
func KeyRecordOf(p *Publication, stamped *push.Message) KeyRecord {
	return KeyRecord{
		Digest: p.Digest, ID: stamped.ID, Created: stamped.Created, Expires: stamped.Expires,
		Until:      stamped.Created.Add(p.Limits.WithDefaults().KeyTTL),
		Persistent: stamped.Persistent, Finished: true,
	}
}

// Repeat returns the result of a publication whose key is known: the first one's id and times, or KindKeyReused if it
// was for another request. The message has the attributes that the request repeats, and no body.
func (k *KeyRecord) Repeat(p *Publication, l push.Lineage, now push.MilliTime) Published {
	if k.Digest != p.Digest {
		err := push.Errorf(push.KindKeyReused, "idempotency_key_reused", "the idempotency key came with another request before")
		return Published{Lineage: l, Now: now, Err: err}
	}
	m := *p.Message
	m.ID, m.Created, m.Expires, m.Persistent, m.Body = k.ID, k.Created, k.Expires, k.Persistent, nil
	return Published{Message: &m, Repeated: true, Lineage: l, Now: now}
}

// CloneFilter returns a copy that shares nothing with f, its tags in canonical form; nil for the zero filter.
func CloneFilter(f *push.Filter) *push.Filter {
	if f.IsZero() {
		return nil
	}
	return &push.Filter{Devices: slices.Clone(f.Devices), Platforms: f.Platforms, Classes: slices.Clone(f.Classes), Tags: f.Tags.Canonical()}
}

// CloneState returns a copy that shares nothing with s.
func CloneState(s push.SlotState) push.SlotState {
	s.Notes = slices.Clone(s.Notes)
	return s
}

// ErrClosed returns the error of every call after Close.
func ErrClosed() error { return push.Errorf(push.KindClosed, "closed", "the store is closed") }

// ErrNoMessage returns the error for a message that is not on record.
func ErrNoMessage() error {
	return push.Errorf(push.KindNotFound, "message_not_found", "no such message is on record")
}
