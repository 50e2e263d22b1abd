package room

import "carillon/server/push"

// The rows of sessions (see register.Succeed) are in a map, since most sessions have none: it is those whose client came back to a room, or whose
// polls came to another one, without having been started anew.

// noteRow notes the row that the register gave a session; 0: none.
func (r *Room) noteRow(s *session, row push.SessionEpoch) {
	if row == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if int(s.index) < len(r.sessions) && r.sessions[s.index] == s { // otherwise it has ended
		r.rows[s] = row
	}
}

// rowOf returns the session's row; 0: it has none, or is not in the register yet.
func (r *Room) rowOf(s *session) push.SessionEpoch {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rows[s]
}
