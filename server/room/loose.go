package room

import (
	"context"
	"slices"

	"carillon/server/push"
	"carillon/server/register"
	"carillon/server/saver"
	"carillon/server/task"
)

// writeLooseAcks hands to the store what waits for it. What fails is tried again with the next batch.
func (r *Room) writeLooseAcks(ctx context.Context) {
	waiting := r.loose.take()
	for len(waiting) > 0 {
		n := min(len(waiting), maxAcks)
		if err := r.writeLoose(ctx, waiting[:n]); err != nil {
			r.log.Warn("writing acknowledgements failed; trying again", "count", len(waiting), "err", err)
			r.loose.putBack(waiting)
			return
		}
		waiting = waiting[n:]
	}
}

func (r *Room) writeLoose(ctx context.Context, as []looseAck) error {
	acks := make([]saver.Ack, len(as))
	for i := range as {
		acks[i] = as[i].Ack
	}
	if r.tally == nil {
		_, err := r.ackWithin(ctx, acks)
		return err
	}
	passed, err := r.passedByLoose(ctx, as)
	if err != nil {
		r.m.failed("ack")
		return err
	}
	for i := range acks {
		acks[i].Moved = &saver.Moved{}
	}
	_, err = r.ackWithin(ctx, acks)
	for i := range acks {
		r.countLoose(passed[as[i].key()], acks[i].Moved)
	}
	return err
}

// loosePassed is what acknowledgements of a device pass: the entries of tasks that lie between its stored cursors and the places.
type loosePassed struct {
	of   *looseAck // one of them
	from push.Cursor
	to   push.Cursor // the furthest
	task [2][]tailEntry
}

// countLoose counts what an acknowledgement moved a device's cursor over. The room that sent it learns that it may not count it.
func (r *Room) countLoose(p *loosePassed, m *saver.Moved) {
	if p == nil || !m.Done {
		return
	}
	for k := range p.task {
		for i := range p.task[k] {
			e := &p.task[k][i]
			if m.To[k].Epoch == p.from[k].Epoch && e.Pos > m.From[k].Pos && e.Pos <= m.To[k].Pos {
				r.tally.add(taskRef{p.of.Product, e.ID}, task.Sent, 1)
				r.tally.add(taskRef{p.of.Product, e.ID}, task.Acknowledged, 1)
			}
		}
	}
}

// passedByLoose finds out what acknowledgements are about to pass. Nobody here was sent it, and once they are written the store may
// free it. So it is asked where the cursors stand, which costs two more round trips a batch, and a third where filters ask for tags.
func (r *Room) passedByLoose(ctx context.Context, as []looseAck) (map[register.Key]*loosePassed, error) {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	of := make(map[register.Key]*loosePassed)
	asks := make([]saver.Ack, 0, len(as))
	for i := range as {
		a := &as[i]
		p := of[a.key()]
		if p == nil {
			p = &loosePassed{of: a}
			of[a.key()] = p
			asks = append(asks, saver.Ack{UserRef: a.UserRef, Device: a.Device, Moved: &saver.Moved{}})
		}
		for k, to := range a.Places {
			if to.Epoch != p.to[k].Epoch || to.Pos > p.to[k].Pos {
				p.to[k] = to
			}
		}
	}
	if _, err := r.cfg.Saver.Ack(ctx, asks); err != nil {
		return nil, err
	}
	passed := make([]*loosePassed, len(asks)) // in a fixed order
	for i := range asks {
		p := of[register.Key{Product: asks[i].Product, User: asks[i].User, Device: asks[i].Device}]
		p.from, passed[i] = asks[i].Moved.To, p
	}
	if err := r.readLoose(ctx, passed); err != nil {
		return nil, err
	}
	return of, r.filterLoose(ctx, passed)
}

// readLoose reads what lies between.
func (r *Room) readLoose(ctx context.Context, passed []*loosePassed) error {
	type place struct {
		p *loosePassed
		k push.SlotKind
	}
	var who []place
	var rqs []saver.Read
	for _, p := range passed {
		for k := range push.SlotKind(2) {
			from, to := p.from[k], p.to[k]
			if from.IsZero() || from.Epoch != to.Epoch || from.Pos >= to.Pos {
				continue
			}
			if k == push.Common {
				if found, ok := r.tails.tasksIn(p.of.Shard(), from, to.Pos); ok {
					p.task[k] = found
					continue
				}
			}
			who = append(who, place{p, k})
			rqs = append(rqs, saver.Read{
				ShardRef: p.of.Shard(), Slot: k, User: p.of.User, From: from, MaxEntries: maxRead, MaxBytes: maxReadBytes,
			})
		}
	}
	for len(rqs) > 0 {
		r.m.read(len(rqs))
		tails, err := r.cfg.Saver.Read(ctx, rqs)
		if err != nil {
			return err
		}
		n := 0
		for i, w := range who {
			t, to := &tails[i], w.p.to[w.k].Pos
			if t.Start != rqs[i].From {
				continue // the store fell back meanwhile
			}
			for _, e := range t.Entries {
				if e.Pos <= to && e.Message != nil && e.Message.Task {
					w.p.task[w.k] = append(w.p.task[w.k], tailEntry{Entry: e})
				}
			}
			if t.Through < to && t.More() {
				who[n], rqs[n] = w, rqs[i]
				rqs[n].From.Pos = t.Through
				n++
			}
		}
		who, rqs = who[:n], rqs[:n]
	}
	return nil
}

// filterLoose drops what was not for the device.
func (r *Room) filterLoose(ctx context.Context, passed []*loosePassed) error {
	var asks []*loosePassed
	var refs []saver.UserRef
	for _, p := range passed {
		tagged := func(e tailEntry) bool { return e.Filter != nil && e.Filter.Tags != nil }
		if slices.ContainsFunc(p.task[push.Own], tagged) || slices.ContainsFunc(p.task[push.Common], tagged) {
			asks, refs = append(asks, p), append(refs, p.of.UserRef)
			continue
		}
		p.keepAdmitted(nil)
	}
	if len(asks) == 0 {
		return nil
	}
	tags, err := r.cfg.Saver.Tags(ctx, refs)
	if err != nil {
		return err
	}
	for i, p := range asks {
		kept := tags[i].Kept(p.of.Device)
		has := push.UniteTags(kept.Given, kept.Joined, kept.Token)
		p.keepAdmitted(func(t push.Tag) bool { return slices.Contains(has, t) })
	}
	return nil
}

func (p *loosePassed) keepAdmitted(has func(push.Tag) bool) {
	for k := range p.task {
		p.task[k] = slices.DeleteFunc(p.task[k], func(e tailEntry) bool { return !e.Filter.Admits(p.of.facts, has) })
	}
}
