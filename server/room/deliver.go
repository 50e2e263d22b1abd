package room

import (
	"context"
	"hash/maphash"
	"time"

	"carillon/server/failpoint"
	"carillon/server/planted"
	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/transport"
	"carillon/server/wire"
)

// Deliver hands a delivery to the fan-out workers. It never blocks: when a worker's inbox is full the delivery is dropped for
// it and counted; what is persistent comes with the next sweep.
func (r *Room) Deliver(d *push.Delivery) {
	failpoint.Hit(failpoint.RoomNotified)
	nd := newDelivery(d)
	switch n := len(d.Own) + len(d.Users); {
	case n == 1: // the frequent case needs one worker
		u := push.UserID("")
		if len(d.Own) == 1 {
			u = d.Own[0].User
		} else {
			u = d.Users[0].User
		}
		r.workers[r.workerOf(u)].putDirect(nd)
	case n > 1:
		for _, w := range r.workers {
			w.putDirect(nd)
		}
	}
	if d.Everyone || len(d.Common) > 0 {
		for _, w := range r.workers {
			w.putBulk(bulkJob{delivery: nd})
		}
	}
}

// delivery is a push.Delivery with the frame that all its receivers share.
type delivery struct {
	*push.Delivery
	entry tailEntry
}

func newDelivery(d *push.Delivery) *delivery {
	if d.IsBare() {
		return &delivery{d, tailEntry{}} // of which out is bare, too
	}
	if d.Message == nil {
		return &delivery{d, tailEntry{Entry: saver.Entry{ID: d.Recall, Kind: saver.EntryRecall, Filter: d.Filter}}}
	}
	return &delivery{d, newTailEntry(saver.Entry{ID: d.Message.ID, Expires: d.Message.Expires, Filter: d.Filter, Message: d.Message})}
}

// workerOf spreads users over the fan-out workers, always the same one for a user, so that order is kept.
func (r *Room) workerOf(u push.UserID) int {
	return int(maphash.String(r.seed, string(u)) % uint64(len(r.workers)))
}

// inboxSize is how many deliveries may wait for one worker, in each of its inboxes.
const inboxSize = 1024

// fanout is one worker. It has two inboxes, so that a message to one user does not wait until one to a million is out:
// what is to everyone is handed out in chunks, and between two of them the worker does what has come in directly. What it
// finds there is done and then a chunk, so neither starves the other. Each inbox is worked off in its order, and a user
// and a shard always have the same worker, which is what keeps the order within a slot and among live messages to
// everyone.
type fanout struct {
	// Static after construction.
	room   *Room
	index  int
	direct chan *delivery // to named users; never closed
	bulk   chan bulkJob   // to everyone, or to a common slot; never closed
	ready  chan struct{}  // holds a token after something came into either; never closed

	// Owned by the worker.
	scratch []*session
	planned []*bookShard // shards with something in their plan
	all     []*session   // of the shard that is handed out to
}

func newFanout(r *Room, index int) *fanout {
	return &fanout{
		room: r, index: index,
		direct: make(chan *delivery, inboxSize), bulk: make(chan bulkJob, inboxSize), ready: make(chan struct{}, 1),
	}
}

func (f *fanout) putDirect(d *delivery) {
	select {
	case f.direct <- d:
		f.signal()
	default:
		f.room.m.dropped(dropInboxFull)
	}
}

// putBulk reports whether there was room for the job.
func (f *fanout) putBulk(j bulkJob) bool {
	select {
	case f.bulk <- j:
		f.signal()
		return true
	default:
		f.room.m.dropped(dropInboxFull)
		return false
	}
}

func (f *fanout) signal() {
	select {
	case f.ready <- struct{}{}:
	default:
	}
}

// run works until ctx ends. Which inbox comes first is not left to a select, which takes any of those that are ready.
func (f *fanout) run(ctx context.Context) {
	for ctx.Err() == nil {
		f.deliverDirect()
		select {
		case j := <-f.bulk:
			f.deliverBulk(ctx, j)
			continue
		default:
		}
		select {
		case <-ctx.Done():
		case <-f.ready:
		}
	}
}

// deliverDirect does what the direct inbox holds now, and not what comes in meanwhile.
func (f *fanout) deliverDirect() {
	for range len(f.direct) {
		f.deliver(<-f.direct) // nobody else takes from it
	}
}

// deliver brings a delivery to those of its users who are this worker's.
func (f *fanout) deliver(d *delivery) {
	policy, err := f.room.cfg.Policy(context.Background(), d.Product)
	if err != nil {
		return // no policy, no session
	}
	now := f.room.now()
	for i := range d.Own {
		if p := &d.Own[i]; f.mine(p.User) {
			for _, s := range f.sessionsOf(d.Product, policy.Shards, p.User) {
				s.mu.Lock()
				s.noticeLocked(push.Own, p.Place, d.entry.out(), p.Filter)
				s.wakeAndUnlock(now, transport.Direct)
			}
		}
	}
	for i := range d.Users {
		if u := &d.Users[i]; f.mine(u.User) {
			for _, s := range f.sessionsOf(d.Product, policy.Shards, u.User) {
				s.mu.Lock()
				s.liveLocked(d.entry.shared, u.Filter)
				s.wakeAndUnlock(now, transport.Direct)
			}
		}
	}
	clear(f.scratch[:cap(f.scratch)]) // hold no session longer than its delivery, not those of an earlier user either
}

// awaitRoomLocked is a planted bug: it waits until the client has taken something, or is gone.
func (s *session) awaitRoomLocked(sh *wire.Shared) {
	for s.state == open && !s.queue.fits(sh.Size(), s.room.cfg.QueueMessages, s.room.cfg.QueueBytes) {
		s.mu.Unlock()
		time.Sleep(10 * time.Millisecond)
		s.mu.Lock()
	}
}

func (f *fanout) mine(u push.UserID) bool { return f.room.workerOf(u) == f.index }

func (f *fanout) sessionsOf(p push.ProductID, shards int, u push.UserID) []*session {
	f.scratch = f.room.sessionsAt(f.scratch[:0], p, shards, u)
	return f.scratch
}

// sessionsOf appends the sessions of a user to dst.
func (r *Room) sessionsOf(dst []*session, p push.ProductID, u push.UserID) []*session {
	policy, err := r.cfg.Policy(context.Background(), p)
	if err != nil {
		return dst // no policy, no session
	}
	return r.sessionsAt(dst, p, policy.Shards, u)
}

// sessionsAt is sessionsOf for a product of so many shards.
func (r *Room) sessionsAt(dst []*session, p push.ProductID, shards int, u push.UserID) []*session {
	bs := r.book.lookup(saver.ShardRef{Product: p, Shard: push.ShardOf(u, shards)})
	if bs == nil {
		return dst
	}
	return bs.appendUser(dst, u)
}

// liveLocked queues a non-persistent message, if it is for this device.
func (s *session) liveLocked(sh *wire.Shared, filter *push.Filter) {
	if s.state == open && s.admitsLocked(filter) {
		if planted.Is(planted.BlockingSend) {
			s.awaitRoomLocked(sh)
		}
		s.queueLiveLocked(sh)
	}
}
