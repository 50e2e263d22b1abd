package room

import (
	"context"
	"errors"
	"strings"
	"time"

	"carillon/server/auth"
	"carillon/server/failpoint"
	"carillon/server/planted"
	"carillon/server/push"
	"carillon/server/register"
	"carillon/server/saver"
	"carillon/server/transport"
	"carillon/server/wire"
)

// opening is work for a session that needs a store or costs time: a client's frame asked for it (a connect, a refresh, or a
// change of tags), or a store that fell back made it necessary.
type opening struct {
	s       *session
	connect *wire.Connect
	refresh *wire.Refresh
	tags    *wire.Tags
	again   bool // the store has forgotten the device
}

// openLoop is one opener.
func (r *Room) openLoop(ctx context.Context) {
	one := make([]opening, 0, 1)
	for {
		one = r.openings.get(ctx, one)
		if len(one) == 0 {
			return
		}
		o := one[0]
		one[0] = opening{}
		if o.refresh != nil {
			r.refresh(ctx, o.s, o.refresh)
			continue
		}
		if o.tags != nil {
			r.changeTags(ctx, o.s, o.tags)
			continue
		}
		if o.again {
			r.reopen(ctx, o.s)
			continue
		}
		if err := r.open(ctx, o.s, o.connect); err != nil {
			r.refuse(o.s, err)
		}
	}
}

// open takes a session from its connect frame to its welcome.
func (r *Room) open(ctx context.Context, s *session, c *wire.Connect) error {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	began := r.cfg.Clock.Now()
	// One version apart is understood: see wire.Version.
	if c.Version+1 < wire.Version || c.Version > wire.Version+1 {
		return &push.Error{Kind: push.KindInvalid, Code: "version", Detail: "this schema version is not spoken here"}
	}
	id, err := r.cfg.Tokens.Verify(ctx, c.Token)
	if err != nil {
		return err
	}
	policy, err := r.cfg.Policy(ctx, id.Product.ID)
	if err != nil {
		return err
	}
	if !s.identify(id, policy, began) {
		return nil // gone meanwhile
	}
	s.enterBook()
	if err := r.cfg.Tokens.Recheck(ctx, id); err != nil {
		return err
	}
	joins := r.joins.Load()
	ins, err := r.insert(ctx, register.Session{
		Key: s.key(), Shard: s.shard.ref.Shard, Platform: s.platform, Class: s.class(), Transport: string(s.kind.name()),
		TokenID: s.tokenID, Room: r.cfg.ID, Boot: r.cfg.Boot, Since: push.Milli(began), Row: c.After,
	}, policy)
	if ins.Session.Epoch != 0 { // also if it may not stay, and could not be taken out again
		s.setEpoch(ins.Session.Epoch, ins.Session.Row)
	}
	if err != nil {
		return err
	}
	for _, old := range ins.Replaced {
		r.evict(old.Room, register.Order{Key: old.Key, Epoch: old.Epoch, By: ins.Session})
	}
	if r.joins.Load() != joins {
		// What was inserted under the lease before is gone with it, and rejoin may have looked at the session when it had no epoch.
		if err := r.insertAnew(ctx, s, ins.Session); err != nil {
			return err
		}
	}
	opened, err := r.cfg.Saver.Open(ctx, saver.Open{
		UserRef:    s.userRef(),
		Facts:      s.facts(),
		Limits:     policy.Limits,
		FirstVisit: policy.FirstVisit,
		Presented:  s.presented(c.Cursor),
	})
	if err != nil {
		return err
	}
	if planted.Is(planted.MoveFromHead) {
		beginAtHead(&ins, &opened)
	}
	if err := s.keepTokenTags(ctx, opened.Tags.Token); err != nil {
		return err
	}
	release, err := r.held.hold(ctx, s.shard.ref.Product, s.tokenTags(), opened.Tags.Given, opened.Tags.Joined)
	if err != nil {
		return err
	}
	failpoint.Hit(failpoint.RoomOpened)
	s.welcome(c.Version, &opened)
	release()
	r.m.opened(s.kind, r.cfg.Clock.Now().Sub(began))
	return nil
}

// beginAtHead is a planted bug: a device whose session before was over another transport begins at the heads.
func beginAtHead(ins *register.Inserted, o *saver.Opened) {
	for _, old := range ins.Replaced {
		if old.Key == ins.Session.Key && old.Transport != ins.Session.Transport {
			for k := range o.Starts {
				o.Starts[k].At.Pos = max(o.Starts[k].At.Pos, o.Starts[k].Head)
			}
		}
	}
}

// identify notes who the session is; false if it ended before.
func (s *session) identify(id auth.Identity, p Policy, now time.Time) bool {
	// One string of our own: what a token was parsed into is one piece of memory for each name, or all of the token.
	class := p.Sessions.ClassOf(id.Platform)
	names := string(id.User) + string(id.Device) + id.TokenID + class
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != opening_ {
		return false
	}
	s.names, s.userEnd, s.deviceEnd = names, uint16(len(id.User)), uint16(len(id.User)+len(id.Device))
	s.classLen = uint8(len(class))
	s.tokenID, s.platform, s.since = names[s.deviceEnd:len(names)-len(class)], id.Platform, push.Milli(now)
	s.noteExpiryLocked(id)
	s.owner = push.OwnerOf(id.Product.ID, id.User, id.Device)
	s.shard = s.room.book.shard(saver.ShardRef{Product: id.Product.ID, Shard: push.ShardOf(id.User, p.Shards)}, p.Shards)
	s.noteTokenTagsLocked(id)
	s.shard.noteUnseen(p.Limits)
	return true
}

// enterBook puts the session where deliveries find it. Whoever closes it meanwhile sees booked, or finds it not in yet.
func (s *session) enterBook() {
	s.shard.add(s)
	s.mu.Lock()
	s.booked = true
	gone := s.state == closed
	s.mu.Unlock()
	if gone {
		s.shard.remove(s)
	}
}

func (s *session) userRef() saver.UserRef {
	return saver.UserRef{Product: s.shard.ref.Product, Shards: s.shard.shards, User: s.user()}
}

// noteExpiryLocked notes when the session's token runs out.
func (s *session) noteExpiryLocked(id auth.Identity) {
	s.expires = 0
	if !id.Expires.IsZero() {
		s.expires = push.Milli(id.Expires)
	}
}

func (s *session) setEpoch(e, row push.SessionEpoch) {
	s.room.noteRow(s, row)
	s.mu.Lock()
	s.epoch = e
	gone := s.state == closed
	s.mu.Unlock()
	if gone { // Closed may have run before there was an epoch to leave by
		s.room.leavings.put(leaving{s: s})
	}
}

// presented reads the client's cursor; one that is another's or unreadable counts as none.
func (s *session) presented(cursor string) *push.Cursor {
	if cursor == "" {
		return nil
	}
	owner, c, err := push.ParseCursor(cursor)
	if err != nil || owner != s.owner {
		s.room.m.refused("foreign_cursor")
		return nil
	}
	return &c
}

var startFrames = map[saver.How]wire.Start{
	saver.Resumed: wire.Resumed, saver.Beginning: wire.Beginning, saver.AtHead: wire.AtHead, saver.Reset: wire.Reset,
}

// welcome opens the session for a client of that schema version: from here on it follows its slots.
func (s *session) welcome(version uint32, o *saver.Opened) {
	r := s.room
	now := r.now()
	backs := r.lookBacks(s.shard.ref, o)
	s.mu.Lock()
	if s.state != opening_ {
		s.mu.Unlock()
		return
	}
	for k := range s.slots {
		f, st := &s.slots[k], &o.Starts[k]
		f.at, s.acked[k] = st.At, st.At
		f.wanted = max(f.wanted, st.Head)
		f.mode = live
	}
	s.state = open
	s.seen().day = s.dayAt(now) // Open has seen it
	s.openTagsLocked(o.Tags)
	for k := range backs {
		s.beginLookBackLocked(push.SlotKind(k), &backs[k])
	}
	w := &wire.Welcome{
		Version: min(version, wire.Version), Session: s.epoch, Cursor: s.cursorLocked(),
		Own: startFrames[o.Starts[push.Own].How], Common: startFrames[o.Starts[push.Common].How],
		HeartbeatMillis: uint32(s.heartbeat().Milliseconds()), GraceMillis: s.graceMillis(),
		FrameBytes: uint32(r.cfg.FrameBytes), FramesPerSecond: uint32(r.cfg.FramesPerSecond), Time: o.Now,
	}
	w.Expires = s.expires
	s.queue.push(wire.Out{Frame: w})
	s.owesCursor = true
	for k := range s.slots {
		st := &o.Starts[k]
		if st.How == saver.Reset {
			r.m.gap(wire.GapReset)
			s.queue.push(wire.Out{Frame: &wire.Gap{Slot: push.SlotKind(k), From: 0, To: st.At.Pos, Reason: wire.GapReset}})
		}
		if s.slots[k].wanted > st.At.Pos {
			s.requestReadLocked(push.SlotKind(k))
		}
	}
	s.caughtUpLocked()
	s.lookLocked(now, push.Milli(r.cfg.Clock.Now()))
	s.flushAndUnlock(now)
	if s.shard.noteWelcome(o.Lineage) {
		s.doubt()
	}
}

// refuse sends a client away whose connect failed.
func (r *Room) refuse(s *session, err error) {
	code, detail := closeFor(err)
	r.m.refused(code.String())
	if code == wire.CloseInternal {
		r.log.Warn("opening a session failed", "err", err)
	}
	now := r.now()
	s.mu.Lock()
	s.endAndUnlock(now, code, detail)
}

// closeFor translates an error to what the client is told.
func closeFor(err error) (wire.CloseCode, string) {
	e := asError(err)
	if e == nil {
		return wire.CloseInternal, ""
	}
	switch e.Kind {
	case push.KindUnauthenticated:
		if e.Code == "token_expired" {
			return wire.CloseTokenExpired, e.Detail
		}
		return wire.CloseTokenRefused, e.Detail
	case push.KindForbidden, push.KindNotFound:
		if e.Code == auth.CodeRevoked {
			return wire.CloseRevoked, e.Detail
		}
		return wire.CloseForbidden, e.Detail
	case push.KindLimited:
		switch e.Code {
		case "too_many_devices":
			return wire.CloseForbidden, e.Detail
		case codeProductFull:
			return wire.CloseProductFull, ""
		}
		return wire.CloseOverloaded, ""
	case push.KindInvalid:
		if e.Code == "version" {
			return wire.CloseVersion, e.Detail
		}
		return wire.CloseProtocol, e.Detail
	case push.KindConflict:
		switch e.Code {
		case "lease_lost":
			return wire.CloseOverloaded, ""
		case "session_limit":
			return wire.ClosePolicy, e.Detail
		case register.CodeContinued:
			return wire.CloseLost, ""
		}
		return wire.CloseReplaced, e.Detail
	case push.KindUnavailable:
		return wire.CloseOverloaded, ""
	}
	return wire.CloseInternal, ""
}

func asError(err error) *push.Error {
	var e *push.Error
	if errors.As(err, &e) {
		return e
	}
	return nil
}

// refresh takes a new token for a live session: it has to speak for the same device.
func (r *Room) refresh(ctx context.Context, s *session, f *wire.Refresh) {
	// As long as a connect has: the session's deadline does not watch over a refresh, and another waits for this one.
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	id, err := r.cfg.Tokens.Verify(ctx, f.Token)
	if err == nil && (register.Key{Product: id.Product.ID, User: id.User, Device: id.Device}) != s.key() {
		err = push.Errorf(push.KindUnauthenticated, "token_refused", "the new token speaks for another device")
	}
	if err == nil {
		var release func()
		if release, err = r.held.hold(ctx, s.shard.ref.Product, tokenTags(id)); err == nil {
			defer release()
		}
	}
	taken := err == nil && s.noteTokenID(id)
	if taken {
		err = r.cfg.Tokens.Recheck(ctx, id)
	}
	if err == nil && taken {
		err = s.keepTagsOf(ctx, id)
	}
	now := r.now()
	s.mu.Lock()
	s.refreshing = false
	if s.state != open {
		s.mu.Unlock()
		return
	}
	if err != nil {
		// Once the new token's id is noted there is no way back to the old one: while the new one stood there, a revocation
		// of the old one would not have found the session.
		if k := push.KindOf(err); !taken && k != push.KindUnauthenticated && k != push.KindForbidden {
			s.tryAgainLocked()
			s.wakeAndUnlock(now, transport.Direct)
			return
		}
		code, detail := closeFor(err)
		s.endAndUnlock(now, code, detail)
		return
	}
	s.noteExpiryLocked(id)
	s.noteTokenTagsLocked(id)
	s.lookLocked(now, push.Milli(r.cfg.Clock.Now()))
	s.queue.push(wire.Out{Frame: &wire.Refresh{Expires: s.expires}})
	s.wakeAndUnlock(now, transport.Direct)
}

// noteTokenID notes the id of a new token of an open session, so that whoever revokes that id finds the session; false if it
// is not open any more.
func (s *session) noteTokenID(id auth.Identity) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != open {
		return false
	}
	s.tokenID = strings.Clone(id.TokenID)
	return true
}

// tryAgainLocked asks for a token once more, later.
func (s *session) tryAgainLocked() {
	s.queue.push(wire.Out{Frame: &wire.Error{Code: "try_again", Detail: "the token could not be judged now"}})
}
