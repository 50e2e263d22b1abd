package register

import "carillon/server/push"

// Seat is what a session policy asks about a session.
type Seat struct {
	Device   push.DeviceID
	Platform push.Platform
	Epoch    push.SessionEpoch // 0: of a newcomer, which is younger than all
	Row      push.SessionEpoch // see [Session]
	Goes     bool              // set by Admit: it has to go for the newcomer
}

// olderThan reports whether the session began before the other. Of one epoch, which only two registers could have given, the
// device decides, so that everybody decides alike.
func (s *Seat) olderThan(other *Seat) bool {
	switch {
	case s.Epoch == other.Epoch:
		return s.Device < other.Device
	case s.Epoch == 0 || other.Epoch == 0:
		return other.Epoch == 0
	}
	return s.Epoch < other.Epoch
}

// Admit decides whether a session may come in, and marks those of others that have to go for it. others are the sessions of
// the same user that count, without that of the newcomer's own device: own, nil if there is none. Implementations of Register
// call it, or do the same, in one step with what follows from it.
//
// The limits are judged in their order, each on what those before it left. If one of them turns the newcomer away, nobody
// goes: the error is KindConflict, "session_limit", and names the rule.
//
// A newcomer with an epoch is a session that was there before its room lost its lease. It is judged by its age, as if the
// lease had never been lost: where the oldest go it may itself be one of them (KindConflict, "replaced"), and where newcomers are
// turned away those go that came after it.
func Admit(newcomer Seat, own *Seat, others []Seat, limits []push.SessionLimit) error {
	for i := range limits {
		l := &limits[i]
		if l.Reject && own != nil && l.Platforms.Has(own.Platform) {
			continue // it comes back to the place that it has, and is no session more
		}
		for range excess(others, l) {
			out := choose(&newcomer, others, l)
			switch {
			case out != &newcomer:
				out.Goes = true
			case l.Reject:
				return push.Errorf(push.KindConflict, "session_limit", "the session policy allows %s", l.Rule)
			default:
				return push.Errorf(push.KindConflict, "replaced", "the session policy gave its place to a newer session: %s", l.Rule)
			}
		}
	}
	return nil
}

// excess returns how many sessions, the newcomer's included, there would be beyond the limit; 0 or less if there is room.
func excess(others []Seat, l *push.SessionLimit) int {
	n := 1 - l.Max
	for i := range others {
		if isCounted(&others[i], l) {
			n++
		}
	}
	return n
}

func isCounted(s *Seat, l *push.SessionLimit) bool { return !s.Goes && l.Platforms.Has(s.Platform) }

// choose returns who is next to go: the youngest where newcomers are turned away, otherwise the oldest.
func choose(newcomer *Seat, others []Seat, l *push.SessionLimit) *Seat {
	out := newcomer
	for i := range others {
		if s := &others[i]; isCounted(s, l) && s.olderThan(out) != l.Reject {
			out = s
		}
	}
	return out
}
