package room

import (
	"context"

	"carillon/server/planted"
	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/transport"
)

// A store that fell back to an earlier state, as in a failover to a replica that lagged, may have forgotten devices whose
// sessions go on, what they acknowledged, and their tags. A device that is not known holds nothing back: what all others of its
// user acknowledged is freed, whether it was sent it or not. So a room whose sweep finds a shard of the store under another
// lineage doubts every session it has there: with the next batches of acknowledgements the store is told again what each of
// them acknowledged, and says whom it does not know. Those devices are opened again, at what their sessions acknowledged; of
// the others the tags are looked at. That is two entries in batches for each session and change of lineage, and nothing while
// nothing changes.
//
// Without a change of lineage an unknown device was deleted: its session is about to hear of that, and does not bring it back.

// takenAck is an acknowledgement that was taken from its session to be written.
type takenAck struct {
	s       *session
	doubted bool
	seen    bool // its device was noted as seen
	moved   *saver.Moved
}

// noteWelcome notes the lineage under which a session was welcomed, and reports whether the shard was seen under another: then
// the answer may have been under way while the store fell back, and the session was not open yet when the others were doubted.
func (bs *bookShard) noteWelcome(l push.Lineage) (doubtful bool) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	if bs.lineage == 0 {
		bs.lineage = l
	}
	return bs.lineage != l
}

// noteSwept notes the lineage that the shard is of now, and reports whether it was seen under another.
func (bs *bookShard) noteSwept(l push.Lineage) (doubtful bool) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	doubtful = bs.lineage != 0 && bs.lineage != l
	bs.lineage = l
	return doubtful
}

// doubt has the store asked about every session of a shard.
func (r *Room) doubt(bs *bookShard) {
	ss := bs.appendAll(nil)
	r.log.Info("the store is of another lineage; asking it what it knows of the sessions",
		"product", string(bs.ref.Product), "shard", int(bs.ref.Shard), "sessions", len(ss))
	for _, s := range ss {
		s.doubt()
	}
}

func (s *session) doubt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == open {
		s.doubted = true
		s.room.acks.note(s, push.Own)
	}
}

// settle goes over the answers about sessions that were doubted. unknown are the indexes of those whom the store does not know.
func (r *Room) settle(ctx context.Context, ts []takenAck, unknown []int) {
	var known []*session
	for i, t := range ts {
		missing := len(unknown) > 0 && unknown[0] == i
		if missing {
			unknown = unknown[1:]
		}
		switch {
		case !t.doubted:
		case missing && !planted.Is(planted.DeviceForgotten):
			r.requestReopen(t.s)
		default:
			known = append(known, t.s)
		}
	}
	if err := r.lookWithin(ctx, known); err != nil {
		r.log.Warn("looking at the tags of sessions failed; trying again", "sessions", len(known), "err", err)
		for _, s := range known {
			s.doubt()
		}
	}
}

func (r *Room) lookWithin(ctx context.Context, ss []*session) error {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	err := r.look(ctx, ss)
	if err != nil {
		r.m.failed("tags")
	}
	return err
}

// requestReopen has the session's device opened again, once at a time.
func (r *Room) requestReopen(s *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == open && !s.reopening {
		s.reopening = true
		r.openings.put(opening{s: s, again: true})
	}
}

// reopen opens the device of a session that goes on.
func (r *Room) reopen(ctx context.Context, s *session) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	opened, err := r.openAgain(ctx, s)
	if err == nil {
		err = r.look(ctx, []*session{s})
	}
	now := r.now()
	s.mu.Lock()
	s.reopening = false
	switch kind := push.KindOf(err); {
	case s.state != open:
		s.mu.Unlock()
	case err == nil:
		if opened.New { // then this moved the stored cursors to where they are
			s.noteMovedLocked(push.Cursor{}, push.Cursor{opened.Starts[push.Own].Stored, opened.Starts[push.Common].Stored})
		}
		for k := range opened.Starts {
			st := &opened.Starts[k]
			s.noticeBehindLocked(push.SlotKind(k), push.Place{Epoch: st.At.Epoch, Lineage: st.At.Lineage, Pos: st.Head})
		}
		s.wakeAndUnlock(now, transport.Direct)
	case kind == push.KindLimited || kind == push.KindNotFound: // no place is left for the device, or its product is gone
		code, detail := closeFor(err)
		s.endAndUnlock(now, code, detail)
	default:
		s.mu.Unlock()
		r.log.Warn("opening a device again failed; trying again", "err", err)
		r.m.failed("reopen")
		s.doubt()
	}
}

// openAgain stores the device at what its session acknowledged.
func (r *Room) openAgain(ctx context.Context, s *session) (saver.Opened, error) {
	policy, err := r.cfg.Policy(ctx, s.shard.ref.Product)
	if err != nil {
		return saver.Opened{}, err
	}
	s.mu.Lock()
	acked := s.acked
	s.mu.Unlock()
	opened, err := r.cfg.Saver.Open(ctx, saver.Open{
		UserRef: s.userRef(), Facts: s.facts(), Limits: policy.Limits, FirstVisit: policy.FirstVisit, Presented: &acked,
	})
	if err == nil {
		r.m.reopened()
	}
	return opened, err
}
