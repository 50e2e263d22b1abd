package room

import (
	"sync"
	"time"

	"carillon/server/push"
	"carillon/server/register"
	"carillon/server/transport"
	"carillon/server/wire"
)

// closeOnStop is what sessions end with that outlive a drain.
const closeOnStop = wire.CloseGoingAway

// openTimeout is how long verifying, registering and opening may take before the client is sent away.
const openTimeout = 30 * time.Second

// state is how far a session has come. It only rises.
type state uint8

const (
	greeting state = iota // waits for the connect frame
	opening_              // being verified, registered, opened
	open                  // welcomed
	ending                // told to go; its last frames and the closing handshake are on their way
	closed                // the transport is done with it
)

// session is one connection. It implements transport.Session.
type session struct {
	// Static after construction.
	room *Room
	conn transport.Conn
	meta transport.Meta

	timer wheelEntry // guarded by room.wheel.mu

	// Guarded by the bookShard's mu.
	nextOfUser *session
	bookIndex  int

	// Set once, under mu, before the session enters the book; static after that.
	key     register.Key
	facts   push.DeviceFacts
	tokenID string
	policy  Policy
	owner   push.CursorOwner
	shard   *bookShard
	booked  bool

	mu sync.Mutex
	// Guarded by mu.
	state    state
	epoch    push.SessionEpoch
	since    time.Time
	expires  time.Time // of the token; zero: never
	deadline time.Time // of greeting, opening_ and ending
	heard    time.Time // last sign of life
	budget   bucket    // frames the client may still send

	queue    queue
	woken    bool      // the transport was asked to take and has not come back empty-handed
	progress time.Time // last time it took, or was first asked to

	slots      [2]follow
	sent       [2]push.Position // what was handed to the transport
	acked      push.Cursor      // highest acknowledged on this session
	written    push.Cursor      // what of it the store has
	owesCursor bool             // a cursor frame is due once both slots are caught up
	code       wire.CloseCode   // why it ends, from ending on
}

// bucket is a token bucket: as many frames at once as come in a second.
type bucket struct {
	at   time.Time
	left float64
}

func (b *bucket) spend(now time.Time, rate int) bool {
	if b.at.IsZero() {
		b.left = float64(rate)
	} else {
		b.left = min(float64(rate), b.left+now.Sub(b.at).Seconds()*float64(rate))
	}
	b.at = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

// Receive handles one frame of the client. See transport.Session.
func (s *session) Receive(f wire.Frame) {
	now := s.room.cfg.Clock.Now()
	s.mu.Lock()
	s.heard = now
	if s.state == closed {
		s.mu.Unlock()
		return
	}
	if !s.budget.spend(now, s.room.cfg.FramesPerSecond) {
		s.endAndUnlock(now, wire.CloseFlood, "more frames a second than welcome allowed")
		return
	}
	if s.state == greeting {
		c, ok := f.(*wire.Connect)
		if !ok {
			s.endAndUnlock(now, wire.CloseProtocol, "the first frame is connect")
			return
		}
		s.state, s.deadline = opening_, now.Add(openTimeout)
		s.mu.Unlock()
		s.room.openings.put(opening{s: s, connect: c})
		return
	}
	if s.state == opening_ {
		s.endAndUnlock(now, wire.CloseProtocol, "a client waits for welcome before it sends more")
		return
	}
	switch f := f.(type) {
	case *wire.Ack:
		s.ackLocked(f)
	case *wire.Ping:
		if s.state == open {
			s.pongLocked()
		}
	case *wire.Pong:
	case *wire.Event:
		s.room.m.event(f.Event)
	case *wire.Refresh:
		if s.state == open {
			s.mu.Unlock()
			s.room.openings.put(opening{s: s, refresh: f})
			return
		}
	default: // a second connect
		s.endAndUnlock(now, wire.CloseProtocol, "connect is sent once")
		return
	}
	s.wakeAndUnlock(now)
}

// pong is what every ping is answered with.
var pong = &wire.Pong{}

// pongLocked answers a ping; a pong that still waits at the end of the queue answers this one too.
func (s *session) pongLocked() {
	if n := len(s.queue.outs); !s.queue.empty() && s.queue.outs[n-1].Frame == wire.Frame(pong) {
		return
	}
	s.queue.push(wire.Out{Frame: pong})
}

// Alive notes a sign of life. See transport.Session.
func (s *session) Alive() {
	now := s.room.cfg.Clock.Now()
	s.mu.Lock()
	s.heard = now
	s.mu.Unlock()
}

// Refuse answers what is no frame. See transport.Session.
func (s *session) Refuse(err error) {
	now := s.room.cfg.Clock.Now()
	code, detail := "malformed_frame", ""
	if e := asError(err); e != nil {
		code, detail = e.Code, e.Detail
	}
	s.room.m.refused(code)
	s.mu.Lock()
	s.heard = now
	if s.state >= ending {
		s.mu.Unlock()
		return
	}
	flood := !s.budget.spend(now, s.room.cfg.FramesPerSecond)
	if code == wire.CodeUnknown && s.state == open && !flood {
		s.queue.push(wire.Out{Frame: &wire.Error{Code: code, Detail: detail}})
		s.wakeAndUnlock(now)
		return
	}
	if s.state == open {
		s.queue.push(wire.Out{Frame: &wire.Error{Code: code, Detail: detail}})
	}
	if flood {
		s.endAndUnlock(now, wire.CloseFlood, "more frames a second than welcome allowed")
		return
	}
	s.endAndUnlock(now, wire.CloseProtocol, detail)
}

// Take moves what is queued to the transport. See transport.Session.
func (s *session) Take(b *transport.Batch) bool {
	now := s.room.cfg.Clock.Now()
	if s.room.isZombie(now) {
		s.mu.Lock()
		s.woken = false // the next good renewal wakes it again
		s.mu.Unlock()
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == closed || s.queue.empty() {
		s.woken = false
		return false
	}
	s.progress = now
	s.queue.take(b, func(o *wire.Out) {
		if o.Pos > 0 {
			s.sent[o.Slot] = o.Pos
		}
	})
	s.room.m.taken(b)
	if s.state == open {
		for k := range s.slots {
			if s.slots[k].mode == waiting && s.roomyLocked() {
				s.requestReadLocked(push.SlotKind(k))
			}
		}
	}
	return true
}

// roomyLocked reports whether half of the queue is free: then reading goes on.
func (s *session) roomyLocked() bool {
	return s.queue.len() <= s.room.cfg.QueueMessages/2 && s.queue.bytes <= s.room.cfg.QueueBytes/2
}

// wakeAndUnlock lets the transport know that something is queued, if it does not know.
func (s *session) wakeAndUnlock(now time.Time) {
	wake := !s.woken && !s.queue.empty()
	if wake {
		s.woken, s.progress = true, now
	}
	s.mu.Unlock()
	if wake {
		s.conn.Wake(transport.Direct)
	}
}

// queueLiveLocked queues a non-persistent message if there is room for it once older ones gave way.
func (s *session) queueLiveLocked(sh *wire.Shared) {
	o := wire.Out{Shared: sh, Slot: push.NoSlot}
	for !s.queue.fits(o.Size(), s.room.cfg.QueueMessages, s.room.cfg.QueueBytes) {
		s.room.m.dropped(dropQueueFull)
		if !s.queue.dropOldestLive() {
			return // only persistent ones wait; this one is the oldest that may be lost
		}
	}
	s.queue.push(o)
}

// endAndUnlock tells the client why the session ends and closes it. Only the first end counts.
func (s *session) endAndUnlock(now time.Time, code wire.CloseCode, detail string) {
	s.endByAndUnlock(now, code, detail, register.Session{})
}

// endByAndUnlock is endAndUnlock naming the session that took this one's place.
func (s *session) endByAndUnlock(now time.Time, code wire.CloseCode, detail string, by register.Session) {
	if s.state >= ending {
		s.mu.Unlock()
		return
	}
	if s.state == open {
		s.queue.push(wire.Out{Frame: &wire.Cursor{Cursor: s.cursorLocked(), Reason: wire.CursorGoodbye}})
	}
	switch {
	case code == wire.CloseGoingAway || code == wire.CloseOverloaded || code == wire.CloseInternal:
		delay := s.room.jitter(goawaySpread)
		s.queue.push(wire.Out{Frame: &wire.Goaway{Code: code, Reason: code.String(), DelayMillis: uint32(delay.Milliseconds())}})
	case code.Duty() != wire.ComeBack:
		k := &wire.Kick{Code: code, Reason: code.String(), Detail: detail}
		if by.Device != "" {
			k.By, k.On = by.Device, by.Platform.String()
		}
		s.queue.push(wire.Out{Frame: k})
	}
	s.state, s.code = ending, code
	s.deadline = now.Add(s.room.cfg.CloseTimeout)
	s.room.wheel.arm(s, s.deadline)
	s.mu.Unlock()
	s.conn.Close(code)
}

// cut ends a session that cannot be told.
func (s *session) cut(code wire.CloseCode) {
	s.mu.Lock()
	if s.state < ending {
		s.state, s.code = ending, code
	}
	s.mu.Unlock()
	s.conn.Cut(code)
}

// tick judges the session's deadlines and arms the wheel for the next one. It runs on the wheel.
func (s *session) tick(now time.Time) {
	cfg := &s.room.cfg
	s.mu.Lock()
	switch s.state {
	case closed:
		s.mu.Unlock()
		return
	case greeting, opening_, ending:
		s.tickDeadline(now)
		return
	}
	if s.woken && now.Sub(s.progress) >= cfg.WriteDeadline && !s.room.zombie.Load() {
		s.mu.Unlock()
		s.cut(wire.CloseSlow)
		return
	}
	silence := s.heard.Add(cfg.Heartbeat + cfg.Grace)
	if !now.Before(silence) {
		s.endAndUnlock(now, wire.CloseSilent, "")
		return
	}
	if !s.expires.IsZero() && !now.Before(s.expires) {
		s.endAndUnlock(now, wire.CloseTokenExpired, "the token of this session ran out")
		return
	}
	// A client that stops reading is looked for this often, rather than arming the wheel at every message.
	next := now.Add(cfg.WriteDeadline / 2)
	if s.woken {
		next = earlier(next, s.progress.Add(cfg.WriteDeadline))
	}
	next = earlier(next, silence)
	if !s.expires.IsZero() {
		next = earlier(next, s.expires)
	}
	s.room.wheel.arm(s, next)
	s.mu.Unlock()
}

// tickDeadline is tick for a session that is not open: it has one deadline. It unlocks mu.
func (s *session) tickDeadline(now time.Time) {
	if now.Before(s.deadline) {
		s.room.wheel.arm(s, s.deadline)
		s.mu.Unlock()
		return
	}
	switch s.state {
	case greeting:
		s.endAndUnlock(now, wire.CloseConnectTimeout, "no connect frame in time")
	case opening_:
		s.endAndUnlock(now, wire.CloseInternal, "")
	default: // ending: the peer had its time
		code := s.code
		s.mu.Unlock()
		s.conn.Cut(code)
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// Closed is the end of the session. See transport.Session.
func (s *session) Closed(code wire.CloseCode) {
	s.mu.Lock()
	if s.state >= ending && s.code != 0 {
		code = s.code
	}
	s.state = closed
	s.queue = queue{}
	for k := range s.slots {
		s.slots[k].dropHeld()
	}
	booked := s.booked
	s.mu.Unlock()
	s.room.wheel.disarm(s)
	if booked {
		s.shard.remove(s)
		s.room.leavings.put(leaving{s: s})
	}
	s.room.m.closed(s.meta.Kind, code)
	s.room.forget(s)
}

// cursorLocked is the cursor after everything queued so far.
func (s *session) cursorLocked() string {
	return string(push.AppendCursor(nil, s.owner, push.Cursor{s.slots[push.Own].at, s.slots[push.Common].at}))
}
