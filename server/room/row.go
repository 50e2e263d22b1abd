package room

import "carillon/server/push"

// The rows of sessions (see register.Succeed) are in a map, since most sessions have none: it is those whose client came back to a room, or whose
// polls came to another one, without having been started anew.

// noteAfter notes the session that a client says it had before.
func (r *Room) noteAfter(s *session, after push.SessionEpoch) {
	if after == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if int(s.index) < len(r.sessions) && r.sessions[s.index] == s { // otherwise it has ended
		r.rows[s] = after
	}
}

// noteRow notes the row that the register gave a session, in the place of what its client said.
func (r *Room) noteRow(s *session, row push.SessionEpoch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.rows[s]; ok { // otherwise there is none, or the session has ended
		r.rows[s] = row
	}
}

// rowOf returns the session's row, and before it is in the register the session that its client names.
func (r *Room) rowOf(s *session) push.SessionEpoch {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rows[s]
}
