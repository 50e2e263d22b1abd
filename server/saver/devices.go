package saver

import (
	"slices"
	"time"

	"carillon/server/planted"
	"carillon/server/push"
)

// Begin judges where a device begins in one slot. stored is its stored place and start, nil for a new device;
// presented is the place that it showed, zero if none; rule is the product's for a new device in this slot.
//
// What was presented decides, then what is stored, then the rule. A place of an unknown epoch or lineage begins at
// the origin, as Reset.
func Begin(s *push.SlotState, stored *push.Place, presented push.Place, rule push.StartAt) Start {
	st := Start{Head: s.Head, Floor: s.Floor}
	from := presented
	if from.IsZero() && stored != nil {
		from = *stored
	}
	switch {
	case !from.IsZero() || stored != nil:
		var known bool
		if st.At, known = s.Resolve(from); known {
			st.How = Resumed
		} else {
			st.How = Reset
		}
	case rule == push.StartBeginning:
		st.At, st.How = OriginOf(s), Beginning
	default:
		st.At, st.How = HeadOf(s), AtHead
	}
	return st
}

// OriginOf returns the place before every entry of the slot.
func OriginOf(s *push.SlotState) push.Place {
	return push.Place{Epoch: s.Epoch, Lineage: s.Lineage(), Pos: s.Origin}
}

// StartRule returns the rule that applies to a new device in a slot; first says that its user has no other device.
func StartRule(v push.FirstVisit, k push.SlotKind, first bool) push.StartAt {
	v = v.WithDefaults()
	switch {
	case k == push.Common:
		return v.Common
	case first:
		return v.First
	}
	return v.Later
}

// Arrive opens a device: it returns the device as it is to be stored, and where it begins. known is what was stored of it,
// nil for a new one; others is how many other devices the user has; both slots exist. Stored cursors are kept, rewritten
// in the slots' present lineages: what a client presents decides what it is sent, only an acknowledgement moves what is
// stored. A place that is no longer known is kept as it is until an acknowledgement replaces it.
func Arrive(o *Open, known *Device, others int, slots [2]*push.SlotState, now push.MilliTime) (Device, [2]Start) {
	var v Device
	var starts [2]Start
	if known != nil {
		v = *known
	} else {
		v.Since = now
	}
	v.DeviceFacts = o.Facts
	v.Seen = max(v.Seen, now)
	for k := range slots {
		var presented push.Place
		if o.Presented != nil {
			presented = o.Presented[k]
		}
		var stored *push.Place
		if known != nil {
			stored = &v.Cursors[k]
		}
		kind := push.SlotKind(k)
		starts[k] = Begin(slots[k], stored, presented, StartRule(o.FirstVisit, kind, others == 0))
		if known == nil {
			v.Cursors[k], v.Start[k] = starts[k].At, starts[k].At
		} else {
			v.Cursors[k] = refresh(slots[k], v.Cursors[k])
		}
		starts[k].Stored = knownPlace(slots[k], v.Cursors[k])
	}
	return v, starts
}

// refresh returns a known place rewritten in the slot's present lineage, any other unchanged. A device that stays
// connected for months without a message keeps a known cursor that way.
func refresh(s *push.SlotState, p push.Place) push.Place {
	if at, known := s.Resolve(p); known {
		return at
	}
	return p
}

// knownPlace returns a place rewritten in the slot's present lineage, the zero Place of one of which nothing is known.
func knownPlace(s *push.SlotState, p push.Place) push.Place {
	if at, known := s.Resolve(p); known {
		return at
	}
	return push.Place{}
}

// Acknowledge applies an acknowledgement to a device as it is stored, and reports whether its own cursor moved, so that
// something may be free. A slot that does not exist is nil or has a zero epoch. It tells a.Moved all but Done, and may be called again for the same
// acknowledgement of a device as it was before.
func Acknowledge(v *Device, a *Ack, slots [2]*push.SlotState, now push.MilliTime) (ownMoved bool) {
	a.tell(Moved{})
	if a.Seen {
		v.Seen = max(v.Seen, now)
	}
	v.Online += max(a.Online, 0)
	if v.Online < 0 {
		v.Online = maxOnline
	}
	for k, s := range slots {
		if s == nil || s.Epoch == 0 {
			continue
		}
		was := v.Cursors[k]
		v.Cursors[k] = refresh(s, was)
		moved := false
		if !a.Places[k].IsZero() {
			v.Cursors[k], moved = Advance(s, was, a.Places[k])
		}
		if k == int(push.Own) {
			ownMoved = moved
		}
		if a.Moved != nil {
			a.Moved.From[k], a.Moved.To[k] = knownPlace(s, was), knownPlace(s, v.Cursors[k])
		}
	}
	return ownMoved
}

func (a *Ack) tell(m Moved) {
	if a.Moved != nil {
		*a.Moved = m
	}
}

// Unknown says that the device of an acknowledgement is not known.
func (a *Ack) Unknown() { a.tell(Moved{}) }

// Done says that an acknowledgement was carried out.
func (a *Ack) Done() {
	if a.Moved != nil {
		a.Moved.Done = true
	}
}

// Advance judges an acknowledged place and a stored one and returns what is to be stored, and whether it moved. It
// never moves back. An acknowledged place of an unknown epoch or lineage moves nothing; one that is known replaces a
// stored one that is not.
func Advance(s *push.SlotState, stored, acked push.Place) (push.Place, bool) {
	to, known := s.Resolve(acked)
	if planted.Is(planted.AcknowledgementsAsTheyCome) && acked.Epoch == s.Epoch {
		to.Pos, known = acked.Pos, true
	}
	if !known {
		return refresh(s, stored), false
	}
	at, known := s.Resolve(stored)
	if known && to.Pos <= at.Pos {
		return at, false
	}
	return to, true
}

// ReopenWithin is how long after a slot's first append under another lineage acknowledgements free nothing that was appended
// since: a store that fell back may have forgotten devices whose sessions go on, and their rooms have to find that and open them
// again. What is kept for it goes with the next acknowledgement after that time, or expires.
const ReopenWithin = time.Minute

// Acknowledged returns the position up to which entries of the own slot may go, since every one of a user's devices has
// acknowledged them, judged as the slot is now. None may, if there is no device: what is sent to a user before anybody signed in
// waits.
func Acknowledged(s *push.SlotState, devices []Device, now push.MilliTime) push.Position {
	if len(devices) == 0 {
		return 0
	}
	least := s.Head
	// The first note is of the slot's beginning: what was forgotten then, was forgotten with the slot.
	for i := len(s.Notes) - 1; i > 0 && s.Notes[i].At.Add(ReopenWithin) > now; i-- {
		least = min(least, s.Notes[i].Start)
	}
	for i := range devices {
		at, _ := s.Resolve(devices[i].Cursors[push.Own])
		least = min(least, at.Pos)
	}
	return least
}

// MakeRoom returns which devices of a user have to be forgotten so that one more fits: the longest unseen of those that
// are offline. KindLimited, code "too_many_devices", if those do not suffice; none is to be forgotten then. It returns
// nothing while there is room; online is asked for only otherwise.
func MakeRoom(devices []Device, l push.Limits, online func() []push.DeviceID) ([]push.DeviceID, error) {
	excess := len(devices) + 1 - l.WithDefaults().DevicesPerUser
	if excess <= 0 {
		return nil, nil
	}
	on := online()
	var offline []*Device
	for i := range devices {
		if !slices.Contains(on, devices[i].Device) {
			offline = append(offline, &devices[i])
		}
	}
	if len(offline) < excess {
		return nil, push.Errorf(push.KindLimited, "too_many_devices",
			"the user has as many devices as the limits allow, all online")
	}
	slices.SortFunc(offline, func(a, b *Device) int {
		if a.Seen != b.Seen {
			return int(max(-1, min(1, a.Seen-b.Seen)))
		}
		if a.Device < b.Device {
			return -1
		}
		return 1
	})
	out := make([]push.DeviceID, excess)
	for i := range out {
		out[i] = offline[i].Device
	}
	return out, nil
}

// Unseen reports whether a device was not seen for so long that it is forgotten.
func (v *Device) Unseen(now push.MilliTime, l push.Limits) bool {
	return v.Seen.Add(l.WithDefaults().DeviceUnseen) < now
}
