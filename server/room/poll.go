package room

import (
	"time"

	"carillon/server/transport"
	"carillon/server/wire"
)

// manner is how a session and its client hear of each other.
type manner uint8

const (
	duplex manner = iota // the client shows that it lives
	oneWay               // the session keeps the line warm, and the kernel tells when the peer is gone
	polls                // the client asks; a poll is held for a while, and between two of them the session lingers
)

func mannerOf(c transport.Capabilities) manner {
	switch {
	case c.Polls:
		return polls
	case c.Duplex:
		return duplex
	}
	return oneWay
}

// ping keeps a line warm, and ends a poll for which nothing came.
var ping = &wire.Ping{}

// dueLocked is when an open session must have heard of its client, or let it hear of itself.
func (s *session) dueLocked() moment {
	cfg := &s.room.cfg
	switch {
	case s.manner == duplex:
		return s.heard.add(s.heartbeat() + cfg.Grace)
	case s.manner == oneWay:
		return s.progress.add(s.heartbeat())
	case s.held > 0:
		return s.heard.add(time.Duration(s.held) * time.Millisecond)
	}
	return s.heard.add(cfg.Linger)
}

// slowAtLocked is when the client of an open session counts as slow, if it takes nothing until then. A transport that has a
// million others to write to is no slow client (see forBulk), and neither is one whose client has not polled.
func (s *session) slowAtLocked() (at moment, counts bool) {
	return s.progress.add(s.room.cfg.WriteDeadline), s.woken > forBulk && (s.manner != polls || s.held > 0)
}

// graceMillis is what welcome calls grace: how long beyond its interval a client waits, or is waited for.
func (s *session) graceMillis() uint32 {
	if s.manner == polls {
		return uint32(s.room.cfg.Linger.Milliseconds())
	}
	return uint32(s.room.cfg.Grace.Milliseconds())
}

// Poll notes a poll that arrived. See transport.PollSession.
func (s *session) Poll(cursor string, wait time.Duration) {
	now := s.room.now()
	s.mu.Lock()
	if s.state == closed {
		s.mu.Unlock()
		return
	}
	if !s.gave && !s.budget.spend(now, s.room.cfg.FramesPerSecond) {
		s.endAndUnlock(now, wire.CloseFlood, "more polls a second than welcome allowed frames")
		return
	}
	s.gave = false
	most := s.room.beats[s.kind][s.platform]
	s.held = uint16(max(1, s.spread(min(max(wait, 0), most)).Milliseconds()))
	s.heard, s.progress = now, now
	if cursor != "" {
		s.ackLocked(&wire.Ack{Cursor: cursor})
	}
	switch s.state {
	case open:
		s.soonerLocked(s.dueLocked())
	case ending: // the client has come for its goodbye
		s.deadline = now.add(s.room.cfg.CloseTimeout)
		s.room.wheel.arm(s, s.deadline)
	}
	s.mu.Unlock()
}

// PollOver notes that no poll waits. See transport.PollSession.
func (s *session) PollOver() {
	now := s.room.now()
	s.mu.Lock()
	s.held, s.heard = 0, now
	if s.state == open {
		s.soonerLocked(s.dueLocked())
	}
	s.mu.Unlock()
}

// nextPoll is how long a room that goes away waits for the next poll of a client between two, to tell it when and where to come back.
// A client asks again as soon as it has handled an answer. One that does not come in that time has mostly gone to another node,
// where a load balancer sent it; this one must not outstay all its clients for it.
const nextPoll = time.Second

func (r *Room) goingPatience() time.Duration { return min(r.cfg.CloseTimeout, nextPoll) }

// passOnAndUnlock ends a session whose client goes on in another one, without a word. The client knows, or learns it from its next poll:
// the answer that told it of the other session may be lost. A goodbye would keep it away for good.
func (s *session) passOnAndUnlock() {
	if s.state >= ending { // it has been told something else, which holds
		s.mu.Unlock()
		return
	}
	s.cutAndUnlock(wire.CloseLost)
}

// patienceLocked is how long a session that was told to end by a code waits for its transport. A client that may not come
// back by itself has to hear of it, so where no poll waits there is time for one. Who may come back finds out when it does.
func (s *session) patienceLocked(code wire.CloseCode) time.Duration {
	switch {
	case s.manner == polls && s.held == 0 && code.Duty() != wire.ComeBack:
		return s.room.cfg.Linger
	case s.manner == polls && s.held == 0 && code == wire.CloseGoingAway:
		return s.room.goingPatience()
	case code == wire.CloseKicked || code == wire.CloseRevoked:
		return min(s.room.cfg.CloseTimeout, kickedTimeout)
	}
	return s.room.cfg.CloseTimeout
}
