package room

import "carillon/server/push"

// The rows of sessions (see register.Succeed) are in a map, since hardly any session has one: it is the polls that come to another room than the
// one before.

// noteRow notes the row that the register gave a session, in the place of what its client said.
func (r *Room) noteRow(s *session, row push.SessionEpoch) {
	if s.manner != polls {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.rows[s]; ok { // otherwise there is none, or the session has ended
		r.rows[s] = row
	}
}

// rowOf returns the session's row, and before it is in the register the session that its client names.
func (r *Room) rowOf(s *session) push.SessionEpoch {
	if s.manner != polls {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rows[s]
}
