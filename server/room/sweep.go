package room

import (
	"context"
	"slices"
	"time"

	"carillon/server/planted"
	"carillon/server/push"
	"carillon/server/saver"
)

const (
	sweepShards = 128  // shards in one call
	sweepHeads  = 1000 // users in one call
)

// sweepLoop reads the change logs of every shard that has sessions here, so that whatever notification was lost, late or
// dropped, the session learns of it. Its cost follows what was published, not how many are online.
func (r *Room) sweepLoop(ctx context.Context) {
	if planted.Is(planted.NoSweep) {
		return
	}
	t := r.cfg.Clock.NewTicker(r.cfg.SweepEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			r.keepTags(ctx)
			if err := r.sweep(ctx); err != nil && ctx.Err() == nil {
				r.m.failed("sweep")
				r.log.Warn("sweeping change logs failed; the next one covers it", "err", err)
			}
		}
	}
}

// keepTags has the register know which tags are here. It needs no hurry: a tag that a session is about to have is told at once.
func (r *Room) keepTags(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := r.held.keep(ctx, r.now()); err != nil && ctx.Err() == nil {
		r.m.failed("tags")
		r.log.Warn("telling which tags are here failed; trying again", "err", err)
		return
	}
	for _, ss := range r.tags.takeAgain() {
		if err := r.look(ctx, ss); err != nil && ctx.Err() == nil {
			r.m.failed("tags")
			r.log.Warn("looking at tags that were changed failed; trying again", "sessions", len(ss), "err", err)
		}
	}
}

func (r *Room) sweep(ctx context.Context) (err error) {
	heads := r.missed.Swap(false)
	defer func() {
		if heads && err != nil {
			r.missed.Store(true)
		}
	}()
	var held []*bookShard
	for _, bs := range r.book.list() {
		if bs.len() > 0 {
			held = append(held, bs)
		}
	}
	for len(held) > 0 {
		n := min(len(held), sweepShards)
		if err := r.sweepSome(ctx, held[:n], heads); err != nil {
			return err
		}
		held = held[n:]
	}
	return nil
}

// sweepSome sweeps some shards. heads says that their change logs do not tell everything.
func (r *Room) sweepSome(ctx context.Context, held []*bookShard, heads bool) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	qs := make([]saver.ChangeQuery, len(held))
	for i, bs := range held {
		qs[i] = saver.ChangeQuery{ShardRef: bs.ref, After: bs.after}
	}
	logs, err := r.cfg.Saver.Changes(ctx, r.cfg.ID, qs)
	if err != nil {
		return err
	}
	for i, bs := range held {
		logs[i].Trimmed = logs[i].Trimmed || heads
		if err := r.sweepShard(ctx, bs, &logs[i]); err != nil {
			return err
		}
	}
	return nil
}

func (r *Room) sweepShard(ctx context.Context, bs *bookShard, log *saver.ChangeLog) error {
	if bs.noteSwept(log.Lineage) {
		r.doubt(bs)
	}
	if log.Trimmed {
		if err := r.compareHeads(ctx, bs); err != nil {
			return err
		}
	}
	var ss []*session
	for i := range log.Own {
		c := &log.Own[i]
		ss = bs.appendUser(ss[:0], c.User)
		for _, s := range ss {
			s.noticeBehind(push.Own, c.Place)
		}
	}
	// Those who came since have judged their place themselves. The news goes the way of the broadcast itself: behind it, so
	// that nobody whom a long fan-out has not reached yet is sent to read what is on its way.
	if log.Common != bs.common && r.workerAt(bs).putBulk(bulkJob{behind: bs, place: log.Common}) {
		bs.common = log.Common
	}
	bs.after = log.Next
	return nil
}

// compareHeads is what a trimmed log costs: the head of every user of the shard who is here.
func (r *Room) compareHeads(ctx context.Context, bs *bookShard) error {
	users := bs.appendUsers(nil)
	slices.Sort(users) // a map has no order, and a run that is played again has to read in the same one
	for len(users) > 0 {
		n := min(len(users), sweepHeads)
		heads, err := r.cfg.Saver.Heads(ctx, bs.ref, users[:n])
		if err != nil {
			return err
		}
		for i, u := range users[:n] {
			for _, s := range bs.appendUser(nil, u) {
				s.noticeBehind(push.Own, heads[i])
			}
		}
		users = users[n:]
	}
	return nil
}
