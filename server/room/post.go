package room

import (
	"context"
	"slices"
	"sync"
	"time"

	"carillon/server/auth"
	"carillon/server/push"
	"carillon/server/register"
	"carillon/server/saver"
	"carillon/server/wire"
)

// Event is what a client reported of a message.
type Event struct {
	register.Key
	Platform push.Platform
	What     wire.Event
}

// MaxPost is how many frames one Post takes.
const MaxPost = 20

// Of acknowledgements beside sessions that may wait for the store: how many in all, and how many of one device, so that one
// that sends without end takes no room from the others.
const (
	maxLoose      = 8192
	maxLooseOfOne = MaxPost
)

// looseAck is one acknowledgement of a device, and what filters ask of that.
type looseAck struct {
	saver.Ack
	facts push.DeviceFacts
}

func (a *looseAck) key() register.Key {
	return register.Key{Product: a.Product, User: a.User, Device: a.Device}
}

// looseAcks are acknowledgements of devices whose session is in another room, or nowhere. They wait for the next batch.
type looseAcks struct {
	mu sync.Mutex
	// Guarded by mu.
	acks []looseAck
	by   map[register.Key]int // how many of each device are among them; nil: there are none
}

// put reports whether there was room. They are all of one device.
func (l *looseAcks) put(of register.Key, as ...looseAck) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(as) == 0 {
		return true
	}
	if len(l.acks)+len(as) > maxLoose || l.by[of]+len(as) > maxLooseOfOne {
		return false
	}
	l.appendLocked(as)
	return true
}

// putBack has the next batch try again. Where others have taken the room meanwhile they are lost, which costs a repetition.
func (l *looseAcks) putBack(as []looseAck) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.appendLocked(as[:min(len(as), maxLoose-len(l.acks))])
}

func (l *looseAcks) appendLocked(as []looseAck) {
	l.acks = append(l.acks, as...)
	if l.by == nil {
		l.by = make(map[register.Key]int)
	}
	for i := range as {
		l.by[as[i].key()]++
	}
}

func (l *looseAcks) take() []looseAck {
	l.mu.Lock()
	defer l.mu.Unlock()
	as := l.acks
	l.acks, l.by = nil, nil
	return as
}

// Post takes frames that a client sends beside its session, because that has one direction: ack, event, ping, refresh and tags. Where
// this room holds the device's session, they are that session's as if they had come with it, and count in its frames a second.
// Otherwise acknowledgements go to the store, which judges them as any, events are counted, and pings mean nothing; what there
// is to be refreshed or tagged is not here (KindConflict, code "no_session").
//
// The error is a *push.Error: of the token; KindInvalid, code "unexpected_frame", "too_many_frames", or "flood", which ends the
// session too; KindUnavailable, when it may be sent again. After an error the client knows nothing of those frames that need no
// answer. It may send them again: acknowledgements do no harm twice, and events are then counted twice.
func (r *Room) Post(ctx context.Context, token string, frames []wire.Frame) error {
	err := r.post(ctx, token, frames)
	if e := asError(err); e != nil {
		r.m.refused(e.Code)
	}
	return err
}

func (r *Room) post(ctx context.Context, token string, frames []wire.Frame) error {
	select {
	case r.posting <- struct{}{}:
		defer func() { <-r.posting }()
	default:
		return overloaded
	}
	if err := checkPost(frames); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	id, err := r.cfg.Tokens.Verify(ctx, token)
	if err != nil {
		return err
	}
	policy, err := r.cfg.Policy(ctx, id.Product.ID)
	if push.KindOf(err) == push.KindNotFound {
		return push.Errorf(push.KindForbidden, wire.CloseForbidden.String(), "the product of this token is not here")
	} else if err != nil {
		return err
	}
	if s := r.sessionOf(id, policy); s != nil {
		if took, err := s.post(frames); took || err != nil {
			r.m.posted("session", len(frames))
			return err
		}
	}
	if slices.ContainsFunc(frames, needsSession) {
		return push.Errorf(push.KindConflict, "no_session", "this device has no session here: connect, with the new token if there is one")
	}
	r.m.posted("store", len(frames))
	return r.postAway(id, policy, frames)
}

// overloaded sends somebody away for a moment.
var overloaded = &push.Error{
	Kind: push.KindUnavailable, Code: "overloaded", Detail: "the node has more to do than it can bear", After: time.Second,
}

// checkPost refuses frames that do not come this way, before any of them is taken.
func checkPost(frames []wire.Frame) error {
	if len(frames) > MaxPost {
		return push.Errorf(push.KindInvalid, "too_many_frames", "at most %d frames are sent at once", MaxPost)
	}
	for _, f := range frames {
		switch f.(type) {
		case *wire.Ack, *wire.Event, *wire.Ping, *wire.Refresh, *wire.Tags:
		default:
			return push.Errorf(push.KindInvalid, wire.CodeUnexpected, "%s does not come beside a session", f.Type())
		}
	}
	return nil
}

// needsSession reports whether a frame is answered, and so means nothing where there is no session.
func needsSession(f wire.Frame) bool {
	return f.Type() == wire.TypeRefresh || f.Type() == wire.TypeTags
}

// sessionOf returns the session that the room holds of a device, nil if there is none. Of several, which are there for the
// moment in which one replaces another, it is the open one.
func (r *Room) sessionOf(id auth.Identity, p Policy) *session {
	for _, s := range r.sessionsAt(nil, id.Product.ID, p.Shards, id.User) {
		if s.device() == id.Device && s.isOpen() {
			return s
		}
	}
	return nil
}

func (s *session) isOpen() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state == open
}

// post takes frames, or none if the session is not open. They are all paid for before the first is handled.
func (s *session) post(frames []wire.Frame) (took bool, err error) {
	now := s.room.now()
	s.mu.Lock()
	if s.state != open {
		s.mu.Unlock()
		return false, nil
	}
	for range frames {
		if !s.budget.spend(now, s.room.cfg.FramesPerSecond) {
			s.endAndUnlock(now, wire.CloseFlood, "more frames a second than welcome allowed")
			return true, push.Errorf(push.KindInvalid, wire.CloseFlood.String(), "more frames a second than welcome allowed")
		}
	}
	s.mu.Unlock()
	for _, f := range frames {
		s.mu.Lock()
		if s.state == closed { // meanwhile: an acknowledgement that is lost costs a repetition
			s.mu.Unlock()
			break
		}
		s.handleAndUnlock(now, f)
	}
	return true, nil
}

// postAway takes the frames of a device whose session is not here.
func (r *Room) postAway(id auth.Identity, p Policy, frames []wire.Frame) error {
	key := register.Key{Product: id.Product.ID, User: id.User, Device: id.Device}
	owner := push.OwnerOf(key.Product, key.User, key.Device)
	facts := push.DeviceFacts{Device: key.Device, Platform: id.Platform, Class: p.Sessions.ClassOf(id.Platform)}
	acks := make([]looseAck, 0, len(frames))
	for _, f := range frames {
		if f, ok := f.(*wire.Ack); ok {
			of, c, err := push.ParseCursor(f.Cursor)
			if err != nil || of != owner {
				r.m.refused("foreign_cursor")
				continue
			}
			user := saver.UserRef{Product: key.Product, Shards: p.Shards, User: key.User}
			acks = append(acks, looseAck{saver.Ack{UserRef: user, Device: key.Device, Places: c}, facts})
		}
	}
	if !r.loose.put(key, acks...) {
		return overloaded
	}
	for _, f := range frames {
		if f, ok := f.(*wire.Event); ok {
			r.tally.addEventAway(key.Product, owner, f)
			r.report(Event{Key: key, Platform: id.Platform, What: *f})
		}
	}
	return nil
}

// eventAndUnlock takes an event of the session's client.
func (s *session) eventAndUnlock(f *wire.Event) {
	known := s.shard != nil // one that was sent away before may go on sending until it has heard
	if known {
		s.noteEventLocked(f)
	}
	s.mu.Unlock()
	if known {
		s.room.report(Event{Key: s.key(), Platform: s.platform, What: *f})
	}
}

// report counts an event and passes it on.
func (r *Room) report(e Event) {
	r.m.event(e.Product, e.What.Event)
	if r.cfg.Events != nil {
		r.cfg.Events(e)
	}
}
