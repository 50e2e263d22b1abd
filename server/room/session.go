package room

import (
	"sync"
	"time"

	"carillon/server/planted"
	"carillon/server/push"
	"carillon/server/register"
	"carillon/server/transport"
	"carillon/server/wire"
)

// closeOnStop is what sessions end with that outlive a drain.
const closeOnStop = wire.CloseGoingAway

// openTimeout is how long verifying, registering and opening may take before the client is sent away.
const openTimeout = 30 * time.Second

// kickedTimeout is how long a client that was kicked or revoked may take to read what its transport already has, and to
// answer the close: within a second of the call it gets nothing more.
const kickedTimeout = time.Second - wheelTick

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
//
// There are a million of them, nearly all idle, so what one keeps is counted in bytes: times are moments, names lie in one
// string that the book and the register share, and what only a busy session needs hangs on pointers that are nil while
// it is idle. A test of package gateway holds the sum.
type session struct {
	// Static after construction.
	room   *Room
	conn   transport.Conn
	kind   kindNumber
	manner manner

	noted [2]bool    // in room.acks; guarded by room.acks.mu
	index int32      // in room.sessions; guarded by room.mu
	timer wheelEntry // guarded by room.wheel.mu

	// Guarded by the bookShard's mu.
	nextOfUser *session
	bookIndex  int32

	// Guarded by mu, and here because there is room.
	gave    bool   // the last poll was answered with something
	tagging bool   // a tags frame of the client is being worked on
	held    uint16 // the poll that waits is held for so many milliseconds since heard; 0: none waits

	// Set once, under mu, before the session enters the book; static after that.
	names     string // user and device, one behind the other, perhaps the token id, and the class
	userEnd   uint16 // where the user ends in names
	deviceEnd uint16
	classLen  uint8 // of the class, at the end of names
	platform  push.Platform

	refreshing bool // a token of the client is being judged; guarded by mu, and here because there is room
	tagged     bool // it is in room.tags; guarded by mu, and here because there is room

	owner push.CursorOwner
	shard *bookShard

	mu sync.Mutex
	// Guarded by mu.
	state      state
	booked     bool // deliveries find it
	woken      wake
	owesCursor bool           // a cursor frame is due once both slots are caught up
	doubted    bool           // the store may have forgotten the device, and is to be asked
	reopening  bool           // it had, and the device is being opened again
	code       wire.CloseCode // why it ends, from ending on

	epoch    push.SessionEpoch
	tokenID  string
	since    push.MilliTime
	expires  push.MilliTime // of the token; zero: never
	deadline moment         // of greeting, opening_ and ending; while open, when the wheel looks next
	heard    moment         // last sign of life; of polls: the last one came, or was over
	progress moment         // last time it took, or was first asked to
	budget   bucket         // frames the client may still send

	queue queue
	slots [2]follow
	holds *holds        // nil almost always
	tasks *sessionTasks // what it knows of messages of tasks; nil while it knows of none
	acked push.Cursor   // highest acknowledged: on this session, or before it began
}

// wake is where a session stands with its transport. A higher one is not woken for a lower one again.
type wake uint8

const (
	asleep  wake = iota // nothing is queued that the transport does not know of
	forBulk             // woken for its share of a fan-out, and has not taken since: it is busy with others
	taken               // has taken and not come back empty-handed yet: it writes, or waits for the client
	forOwn              // woken for something of the session's own, transport.Direct
)

// moment is a time as sessions keep it: since the room began, by the monotonic clock.
type moment time.Duration

func (r *Room) now() moment { return r.moment(r.cfg.Clock.Now()) }

func (r *Room) moment(t time.Time) moment { return moment(t.Sub(r.began)) }

func (m moment) add(d time.Duration) moment { return m + moment(d) }

func (s *session) user() push.UserID     { return push.UserID(s.names[:s.userEnd]) }
func (s *session) device() push.DeviceID { return push.DeviceID(s.names[s.userEnd:s.deviceEnd]) }

// class is that which the product's session policy gave the device's platform when it connected; empty: none.
func (s *session) class() string { return s.names[len(s.names)-int(s.classLen):] }

func (s *session) key() register.Key {
	return register.Key{Product: s.shard.ref.Product, User: s.user(), Device: s.device()}
}

// facts are what filters ask beside tags.
func (s *session) facts() push.DeviceFacts {
	return push.DeviceFacts{Device: s.device(), Platform: s.platform, Class: s.class()}
}

// bucket is a token bucket that holds as many frames as come in a second. It is kept as the moment at which it is full
// again: each frame moves that by its share of a second.
type bucket moment

func (b *bucket) spend(now moment, rate int) bool {
	share := bucket(time.Second) / bucket(rate)
	full := max(*b, bucket(now)) + share
	if full > bucket(now)+bucket(time.Second) {
		return false
	}
	*b = full
	return true
}

// Receive handles one frame of the client. See transport.Session.
func (s *session) Receive(f wire.Frame) {
	now := s.room.now()
	s.mu.Lock()
	s.hearLocked(now)
	if s.state == closed {
		s.mu.Unlock()
		return
	}
	if !s.budget.spend(now, s.room.cfg.FramesPerSecond) {
		s.endAndUnlock(now, wire.CloseFlood, "more frames a second than welcome allowed")
		return
	}
	switch s.state {
	case greeting:
		c, ok := f.(*wire.Connect)
		if !ok {
			s.endAndUnlock(now, wire.CloseProtocol, "the first frame is connect")
			return
		}
		s.state, s.deadline = opening_, now.add(openTimeout)
		s.mu.Unlock()
		s.room.openings.put(opening{s: s, connect: c})
	case opening_:
		s.endAndUnlock(now, wire.CloseProtocol, "a client waits for welcome before it sends more")
	default:
		s.handleAndUnlock(now, f)
	}
}

// hearLocked notes a sign of life. A session of polls counts from them alone.
func (s *session) hearLocked(now moment) {
	if s.manner != polls {
		s.heard = now
	}
}

// handleAndUnlock does what a frame asks for that came after welcome, in whatever way.
func (s *session) handleAndUnlock(now moment, f wire.Frame) {
	switch f := f.(type) {
	case *wire.Ack:
		s.ackLocked(f)
	case *wire.Ping:
		if s.state == open {
			s.pongLocked()
		}
	case *wire.Pong:
	case *wire.Event:
		s.eventAndUnlock(f)
		return
	case *wire.Refresh:
		switch {
		case s.state != open:
		case s.refreshing: // while the judge is slow, a client could leave one token after another in our memory
			s.tryAgainLocked()
		default:
			s.refreshing = true
			s.mu.Unlock()
			s.room.openings.put(opening{s: s, refresh: f})
			return
		}
	case *wire.Tags:
		switch {
		case s.state != open:
		case s.tagging: // as with tokens
			s.queue.push(wire.Out{Frame: tagsLater})
		default:
			s.tagging = true
			s.mu.Unlock()
			s.room.openings.put(opening{s: s, tags: f})
			return
		}
	default: // a second connect
		s.endAndUnlock(now, wire.CloseProtocol, "connect is sent once")
		return
	}
	s.wakeAndUnlock(now, transport.Direct)
}

// pong is what every ping is answered with.
var pong = &wire.Pong{}

// pongLocked answers a ping; a pong that still waits at the end of the queue answers this one too.
func (s *session) pongLocked() {
	if o := s.queue.last(); o != nil && o.Frame == wire.Frame(pong) {
		return
	}
	s.queue.push(wire.Out{Frame: pong})
}

// Alive notes a sign of life. See transport.Session.
func (s *session) Alive() {
	now := s.room.now()
	s.mu.Lock()
	s.hearLocked(now)
	s.mu.Unlock()
}

// Refuse answers what is no frame. See transport.Session.
func (s *session) Refuse(err error) {
	now := s.room.now()
	code, detail := "malformed_frame", ""
	if e := asError(err); e != nil {
		code, detail = e.Code, e.Detail
	}
	s.room.m.refused(code)
	s.mu.Lock()
	s.hearLocked(now)
	if s.state >= ending {
		s.mu.Unlock()
		return
	}
	flood := !s.budget.spend(now, s.room.cfg.FramesPerSecond)
	if code == wire.CodeUnknown && s.state == open && !flood {
		s.queue.push(wire.Out{Frame: &wire.Error{Code: code, Detail: detail}})
		s.wakeAndUnlock(now, transport.Direct)
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
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == closed || s.queue.empty() {
		s.woken = asleep
		return false
	}
	now := s.room.now()
	if s.room.isZombie(now) && !s.queue.isGoodbye() {
		s.woken = asleep // the next good renewal wakes it again
		return false
	}
	s.progress, s.gave = now, true
	s.queue.take(b)
	s.woken = taken // a rest goes with the bulk share, so what is urgent asks again
	s.watchLocked(now)
	s.room.m.taken(b)
	if planted.Is(planted.RemovalOnPush) || planted.Is(planted.AnswerAcknowledges) && s.manner == polls {
		s.ackTakenLocked(b)
	}
	if s.state == open {
		for k := range s.slots {
			if s.slots[k].mode == waiting && s.roomyLocked() {
				s.requestReadLocked(push.SlotKind(k))
			}
		}
	}
	return true
}

// ackTakenLocked is a planted bug: what was written counts as acknowledged.
func (s *session) ackTakenLocked(b *transport.Batch) {
	for i := range b.Outs {
		o := &b.Outs[i]
		if o.Pos == 0 || o.Pos <= s.acked[o.Slot].Pos {
			continue
		}
		at := s.slots[o.Slot].at
		s.acked[o.Slot] = push.Place{Epoch: at.Epoch, Lineage: at.Lineage, Pos: o.Pos}
		s.slots[o.Slot].unwritten, s.slots[o.Slot].told = true, true
		s.room.acks.note(s, o.Slot)
	}
}

// roomyLocked reports whether half of the queue is free: then reading goes on.
func (s *session) roomyLocked() bool {
	return s.queue.len() <= s.room.cfg.QueueMessages/2 && s.queue.bytes() <= s.room.cfg.QueueBytes/2
}

// wakeAndUnlock lets the transport know that something is queued, if it does not know, or knows of something less urgent.
func (s *session) wakeAndUnlock(now moment, share transport.Share) {
	if s.noteWakeAndUnlock(now, share) {
		s.conn.Wake(share)
	}
}

// flushAndUnlock is wakeAndUnlock for what is the session's own, by one who has time to write it where the transport can.
func (s *session) flushAndUnlock(now moment) {
	if !s.noteWakeAndUnlock(now, transport.Direct) {
		return
	}
	if f, ok := s.conn.(transport.Flusher); ok {
		f.Flush()
	} else {
		s.conn.Wake(transport.Direct)
	}
}

// noteWakeAndUnlock notes that the transport is about to be woken, and reports whether it has to be.
func (s *session) noteWakeAndUnlock(now moment, share transport.Share) (tell bool) {
	why := forBulk
	if share == transport.Direct {
		why = forOwn
	}
	tell = s.woken < why && !s.queue.empty()
	if tell {
		if s.woken != taken {
			s.progress = now
		}
		s.woken = why
		if why == forOwn {
			s.watchLocked(now)
		}
	}
	s.mu.Unlock()
	return tell
}

// queueLiveLocked queues a non-persistent message if there is room for it once older ones gave way.
func (s *session) queueLiveLocked(sh *wire.Shared) {
	o := wire.Out{Shared: sh, Slot: push.NoSlot}
	for !s.queue.fits(o.Size(), s.room.cfg.QueueMessages, s.room.cfg.QueueBytes) {
		s.room.m.dropped(dropQueueFull)
		old := s.queue.dropOldestLive()
		if old == nil { // only persistent ones wait; this one is the oldest that may be lost
			s.noteSentLocked(&o)
			s.noteDropped(sh.Message())
			return
		}
		s.noteDropped(old)
	}
	s.queue.push(o)
	s.noteSentLocked(&o)
}

// endAndUnlock tells the client why the session ends and closes it. Only the first end counts.
func (s *session) endAndUnlock(now moment, code wire.CloseCode, detail string) {
	s.endByAndUnlock(now, code, detail, register.Session{})
}

// endByAndUnlock is endAndUnlock naming the session that took this one's place.
func (s *session) endByAndUnlock(now moment, code wire.CloseCode, detail string, by register.Session) {
	if s.state >= ending {
		s.mu.Unlock()
		return
	}
	switch {
	case code == wire.CloseKicked || code == wire.CloseRevoked:
		// Nothing more is for it. What waited stays in its slots, so a cursor that stands behind it would pass over it.
		s.queue.drop()
	case code.Duty() == wire.ComeBack && s.room.isZombie(now):
		// What waited may not be written; the goodbye may. The client comes back with the cursor that it has.
		s.queue.drop()
	case s.state == open:
		s.queue.push(wire.Out{Frame: &wire.Cursor{Cursor: s.cursorLocked(), Reason: wire.CursorGoodbye}})
	}
	switch {
	case code == wire.CloseGoingAway || code == wire.CloseOverloaded || code == wire.CloseInternal || code == wire.CloseProductFull:
		s.queue.push(wire.Out{Frame: s.room.goaway(code, s.kind.name())})
	case code.Duty() != wire.ComeBack:
		k := &wire.Kick{Code: code, Reason: code.String(), Detail: detail}
		if by.Device != "" {
			k.By, k.On = by.Device, by.Platform.String()
		}
		s.queue.push(wire.Out{Frame: k})
	}
	s.state, s.code = ending, code
	s.deadline = now.add(s.patienceLocked(code))
	s.room.wheel.arm(s, s.deadline)
	s.mu.Unlock()
	s.conn.Close(code)
}

// cutAndUnlock ends a session that cannot be told, or was told and had its time: then it ends for that first reason.
func (s *session) cutAndUnlock(code wire.CloseCode) {
	if s.state < ending {
		s.state, s.code = ending, code
	}
	code = s.code
	s.mu.Unlock()
	s.conn.Cut(code)
}

// tick judges the session's deadlines and arms the wheel for the next one. It runs on the wheel.
func (s *session) tick(at time.Time) {
	now, wall := s.room.moment(at), push.Milli(at)
	s.mu.Lock()
	switch s.state {
	case closed:
		s.mu.Unlock()
		return
	case greeting, opening_, ending:
		s.tickDeadline(now)
		return
	}
	s.noteSeenLocked(now)
	if at, counts := s.slowAtLocked(); counts && now >= at && !s.room.zombie.Load() {
		s.cutAndUnlock(wire.CloseSlow)
		return
	}
	due := now >= s.dueLocked()
	switch {
	case due && s.manner == duplex:
		s.endAndUnlock(now, wire.CloseSilent, "")
	case due && s.manner == polls && s.held == 0:
		s.cutAndUnlock(wire.CloseLost)
	case s.expires != 0 && wall >= s.expires:
		s.endAndUnlock(now, wire.CloseTokenExpired, "the token of this session ran out")
	case due && s.queue.empty():
		s.queue.push(wire.Out{Frame: ping})
		s.lookLocked(now, wall)
		s.wakeAndUnlock(now, transport.Direct)
	default:
		s.lookLocked(now, wall)
		s.mu.Unlock()
	}
}

// lookLocked arms the wheel of an open session for the next moment at which it may have to do something or to end.
func (s *session) lookLocked(now moment, wall push.MilliTime) {
	next := s.dueLocked()
	if next <= now { // something is on its way already
		next = now.add(s.heartbeat())
	}
	if at, counts := s.slowAtLocked(); counts {
		next = min(next, at)
	}
	if s.expires != 0 {
		next = min(next, now.add(s.expires.Time().Sub(wall.Time())))
	}
	s.deadline = next
	s.room.wheel.arm(s, next)
}

// watchLocked has the wheel look at an open session once the client should have taken what is on its way to it.
func (s *session) watchLocked(now moment) { s.soonerLocked(now.add(s.room.cfg.WriteDeadline)) }

// soonerLocked has the wheel look at an open session at a moment, if it would not before. One that is watched already is left
// alone: the wheel is not armed at every message, and not at all while nothing is sent.
func (s *session) soonerLocked(at moment) {
	if s.state == open && s.deadline > at {
		s.deadline = at
		s.room.wheel.arm(s, at)
	}
}

// tickDeadline is tick for a session that is not open: it has one deadline. It unlocks mu.
func (s *session) tickDeadline(now moment) {
	if now < s.deadline {
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
		s.cutAndUnlock(s.code)
	}
}

// Closed is the end of the session. See transport.Session.
func (s *session) Closed(code wire.CloseCode) {
	s.mu.Lock()
	if s.state >= ending && s.code != 0 {
		code = s.code
	}
	s.state = closed
	s.queue.drop()
	s.dropTagsLocked()
	for k := range s.slots {
		s.dropHeldLocked(push.SlotKind(k))
	}
	booked := s.booked
	s.mu.Unlock()
	s.room.wheel.disarm(s)
	if booked {
		s.shard.remove(s)
		s.room.leavings.put(leaving{s: s})
	}
	s.room.m.closed(s.kind, code)
	s.room.forget(s)
}

// cursorLocked is the cursor after everything queued so far.
func (s *session) cursorLocked() string {
	return string(push.AppendCursor(nil, s.owner, push.Cursor{s.slots[push.Own].at, s.slots[push.Common].at}))
}
