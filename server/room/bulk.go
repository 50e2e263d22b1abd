package room

import (
	"context"
	"slices"

	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/transport"
	"carillon/server/wire"
)

const (
	// bulkChunk is how many sessions a worker hands out to before it looks at its direct inbox.
	bulkChunk = 256
	// bulkTogether is how many deliveries go out in one pass over the sessions, if so many wait. Each session is then
	// locked and woken once for all of them, and they leave in one write. It also bounds what a pass adds to a queue.
	bulkTogether = 16
)

// bulkJob is work that concerns all sessions of shards: a delivery to everyone or to common slots, or the news that a common
// slot has an entry at a place.
type bulkJob struct {
	delivery *delivery

	behind *bookShard // with place, in place of a delivery
	place  push.Place
}

// planItem is what a pass brings to every session of one shard.
type planItem struct {
	kind   planKind
	place  push.Place // in the common slot
	out    wire.Out
	filter *push.Filter
}

type planKind uint8

const (
	planLive   planKind = iota // a non-persistent message to everyone
	planCommon                 // an entry of the common slot
	planBehind                 // the common slot has an entry there
)

// deliverBulk hands out a job, and as many of those that wait behind it as go together, in their order.
func (f *fanout) deliverBulk(ctx context.Context, j bulkJob) {
	f.plan(&j)
	for range min(len(f.bulk), bulkTogether-1) {
		j = <-f.bulk // nobody else takes from it
		f.plan(&j)
	}
	if f.room.pace.perSecond > 0 {
		f.room.pace.begin(f.room.now(), f.room.jitter(paceTick))
	}
	for i, bs := range f.planned {
		if ctx.Err() == nil {
			f.handOut(ctx, bs)
		}
		clear(bs.plan)
		bs.plan, f.planned[i] = bs.plan[:0], nil
	}
	f.planned = f.planned[:0]
}

// plan notes a job with the shards that it concerns and that are this worker's.
func (f *fanout) plan(j *bulkJob) {
	if j.behind != nil {
		f.planFor(j.behind, planItem{kind: planBehind, place: j.place})
		return
	}
	d := j.delivery
	for i := range d.Common {
		p := &d.Common[i]
		bs := f.room.book.lookup(saver.ShardRef{Product: d.Product, Shard: p.Shard})
		if bs == nil || !f.myShard(bs) {
			continue
		}
		entry := d.entry
		entry.Pos = p.Place.Pos
		if !d.IsBare() {
			f.room.tails.extend(bs.ref, p.Place, entry)
		}
		f.planFor(bs, planItem{kind: planCommon, place: p.Place, out: placed(entry.out(), push.Common, p.Place.Pos), filter: d.Filter})
	}
	if d.Everyone {
		for _, bs := range f.room.book.list() {
			if bs.ref.Product == d.Product && f.myShard(bs) {
				f.planFor(bs, planItem{kind: planLive, out: wire.Out{Shared: d.entry.shared}, filter: d.Filter})
			}
		}
	}
}

func (f *fanout) planFor(bs *bookShard, p planItem) {
	if len(bs.plan) == 0 {
		f.planned = append(f.planned, bs)
	}
	bs.plan = append(bs.plan, p)
}

func (f *fanout) myShard(bs *bookShard) bool { return f.room.workerAt(bs) == f }

// workerAt returns the worker of a shard.
func (r *Room) workerAt(bs *bookShard) *fanout { return r.workers[int(bs.n)%len(r.workers)] }

// handOut brings a shard's plan to its sessions. It works on a copy of their list, taken at once, so that whoever is there
// throughout is met exactly once, however many others come and go meanwhile. That is 8 bytes a session of one shard.
func (f *fanout) handOut(ctx context.Context, bs *bookShard) {
	f.all = bs.appendAll(f.all[:0])
	pace := &f.room.pace
	paced := pace.perSecond > 0
	for chunk := range slices.Chunk(f.all, pace.chunk(len(bs.plan))) {
		if paced && !f.awaitPace(ctx) {
			break
		}
		now, messages := f.room.now(), 0
		for _, s := range chunk {
			messages += s.carryOut(bs.plan, now)
		}
		if paced {
			pace.spend(now, messages)
		}
		f.deliverDirect()
		if ctx.Err() != nil {
			break
		}
	}
	clear(f.all) // hold no session longer than its delivery
}

// carryOut queues what a pass brings, and returns how many messages that is. One that the session is now going to read counts too.
func (s *session) carryOut(plan []planItem, now moment) (messages int) {
	s.mu.Lock()
	before := s.queue.len()
	for i := range plan {
		switch p := &plan[i]; p.kind {
		case planLive:
			s.liveLocked(p.out.Shared, p.filter)
		case planCommon:
			s.noticeLocked(push.Common, p.place, p.out, p.filter)
		case planBehind:
			if s.noticeBehindLocked(push.Common, p.place) {
				messages++
			}
		}
	}
	messages += max(0, s.queue.len()-before)
	s.wakeAndUnlock(now, transport.Bulk)
	return messages
}
