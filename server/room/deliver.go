package room

import (
	"context"
	"hash/maphash"

	"carillon/server/failpoint"
	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/wire"
)

// Deliver hands a delivery to the fan-out workers. It never blocks: when a worker's inbox is full the delivery is dropped for
// it and counted; what is persistent comes with the next sweep.
func (r *Room) Deliver(d *push.Delivery) {
	failpoint.Hit(failpoint.RoomNotified)
	if len(d.Common) == 0 && !d.Everyone && len(d.Own)+len(d.Users) == 1 { // the frequent case needs one worker
		u := push.UserID("")
		if len(d.Own) == 1 {
			u = d.Own[0].User
		} else {
			u = d.Users[0].User
		}
		r.inbox(r.workerOf(u), newDelivery(d))
		return
	}
	nd := newDelivery(d)
	for i := range r.inboxes {
		r.inbox(i, nd)
	}
}

// delivery is a push.Delivery with the frame that all its receivers share.
type delivery struct {
	*push.Delivery
	entry tailEntry
}

func newDelivery(d *push.Delivery) *delivery {
	if d.Message == nil {
		return &delivery{d, tailEntry{Entry: saver.Entry{ID: d.Recall, Kind: saver.EntryRecall, Filter: d.Filter}}}
	}
	return &delivery{d, newTailEntry(saver.Entry{ID: d.Message.ID, Expires: d.Message.Expires, Filter: d.Filter, Message: d.Message})}
}

func (r *Room) inbox(i int, d *delivery) {
	select {
	case r.inboxes[i] <- d:
	default:
		r.m.dropped(dropInboxFull)
	}
}

// workerOf spreads users over the fan-out workers, always the same one for a user, so that order is kept.
func (r *Room) workerOf(u push.UserID) int {
	return int(maphash.String(r.seed, string(u)) % uint64(len(r.inboxes)))
}

// fanout is what one worker keeps between deliveries.
type fanout struct {
	room    *Room
	index   int
	scratch []*session
}

func (r *Room) deliverLoop(ctx context.Context, i int) {
	f := &fanout{room: r, index: i}
	for {
		select {
		case <-ctx.Done():
			return
		case d := <-r.inboxes[i]:
			f.deliver(d)
		}
	}
}

func (f *fanout) deliver(d *delivery) {
	defer func() { clear(f.scratch) }() // hold no session longer than its delivery
	for i := range d.Own {
		if p := &d.Own[i]; f.mine(p.User) {
			for _, s := range f.sessionsOf(d.Product, p.User) {
				s.notice(push.Own, p.Place, d.entry.out(), p.Filter)
			}
		}
	}
	for i := range d.Common {
		f.common(d, &d.Common[i])
	}
	for i := range d.Users {
		if u := &d.Users[i]; f.mine(u.User) {
			f.live(f.sessionsOf(d.Product, u.User), d.entry.shared, u.Filter)
		}
	}
	if d.Everyone {
		for _, bs := range f.room.book.list() {
			if bs.ref.Product == d.Product && f.myShard(bs) {
				f.scratch = bs.appendAll(f.scratch[:0])
				f.live(f.scratch, d.entry.shared, d.Filter)
			}
		}
	}
}

// common brings an entry of one shard's common slot to that shard's sessions.
func (f *fanout) common(d *delivery, p *push.CommonPlace) {
	bs := f.room.book.lookup(saver.ShardRef{Product: d.Product, Shard: p.Shard})
	if bs == nil || !f.myShard(bs) {
		return
	}
	entry := d.entry
	entry.Pos = p.Place.Pos
	f.room.tails.extend(bs.ref, p.Place, entry)
	f.scratch = bs.appendAll(f.scratch[:0])
	for _, s := range f.scratch {
		s.notice(push.Common, p.Place, entry.out(), d.Filter)
	}
}

func (f *fanout) live(to []*session, sh *wire.Shared, filter *push.Filter) {
	for _, s := range to {
		s.deliverLive(sh, filter)
	}
}

// deliverLive queues a non-persistent message.
func (s *session) deliverLive(sh *wire.Shared, filter *push.Filter) {
	now := s.room.now()
	s.mu.Lock()
	if s.state != open || !filter.Admits(s.facts()) {
		s.mu.Unlock()
		return
	}
	s.queueLiveLocked(sh)
	s.wakeAndUnlock(now)
}

func (f *fanout) mine(u push.UserID) bool { return f.room.workerOf(u) == f.index }

func (f *fanout) myShard(bs *bookShard) bool { return int(bs.n)%len(f.room.inboxes) == f.index }

func (f *fanout) sessionsOf(p push.ProductID, u push.UserID) []*session {
	f.scratch = f.room.sessionsOf(f.scratch[:0], p, u)
	return f.scratch
}

// sessionsOf appends the sessions of a user to dst.
func (r *Room) sessionsOf(dst []*session, p push.ProductID, u push.UserID) []*session {
	policy, err := r.cfg.Policy(context.Background(), p)
	if err != nil {
		return dst // no policy, no session
	}
	bs := r.book.lookup(saver.ShardRef{Product: p, Shard: push.ShardOf(u, policy.Shards)})
	if bs == nil {
		return dst
	}
	return bs.appendUser(dst, u)
}
