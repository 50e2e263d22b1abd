package center

import (
	"context"

	"carillon/server/push"
	"carillon/server/register"
	"carillon/server/saver"
)

// countAll is count, which goes on when the run has ended meanwhile: what is written is counted.
func (r *taskRun) countAll(ctx context.Context, bs []*saver.Batch, done []*saver.Batched) (counted, error) {
	n, err := r.count(ctx, bs, done)
	if err != nil && ctx.Err() != nil {
		ctx, cancel := r.c.finishing(ctx)
		defer cancel()
		n, err = r.count(ctx, bs, done)
	}
	return n, err
}

// tell tells the rooms of what was written, or taken back. It is a hint, as ever.
func (r *taskRun) tell(ctx context.Context, bs []*saver.Batch, done []*saver.Batched) {
	var shared deliveries
	var held *holders
	var like *push.Delivery
	for i, b := range bs {
		d := done[i]
		if b.Recall && d.Absent {
			continue
		}
		if b.Bodies != nil && !b.Recall {
			r.tellEach(b, d)
			continue
		}
		if like == nil || like.Lineage != d.Lineage {
			r.c.deliver(shared)
			shared = nil
			like = &push.Delivery{Product: r.ref.Product, Message: r.message, Lineage: d.Lineage, Filter: b.Filter}
			if b.Recall {
				like.Message, like.Recall = nil, r.message.ID
			}
		}
		shared.addOwn(like, d.Own, func(k int) *push.Filter { return b.Own[k].Filter })
		shared.addCommon(like, d.Common)
		if b.Filter != nil && b.Filter.Tags != nil && held == nil && len(d.Common) > 0 && len(d.Common[0].Rooms) > 0 {
			if tags := asks([]*push.TagExpr{b.Filter.Tags}); len(tags) > 0 {
				held, _ = r.c.holdersOf(ctx, r.ref.Product, tags) // where the register does not answer all rooms are told all
			}
		}
	}
	if like != nil && like.Message != nil {
		shared.withhold(held, like.Filter)
	}
	r.c.deliver(shared)
}

// tellEach tells the rooms of a batch in which each user has a body.
func (r *taskRun) tellEach(b *saver.Batch, d *saver.Batched) {
	for i := range d.Own {
		if len(d.Own[i].Rooms) == 0 {
			continue
		}
		m := *r.message
		m.Body = b.Bodies[i]
		var ds deliveries
		ds.addOwn(&push.Delivery{Product: r.ref.Product, Message: &m, Lineage: d.Lineage}, d.Own[i:i+1], func(int) *push.Filter { return b.Own[i].Filter })
		r.c.deliver(ds)
	}
}

// count counts the devices of the users whom batches were written for, and those of them that are online.
func (r *taskRun) count(ctx context.Context, bs []*saver.Batch, done []*saver.Batched) (n counted, err error) {
	var refs []saver.UserRef
	var filters []*push.Filter
	var online []push.UserID
	var who []int // of online, the index in refs
	for i, b := range bs {
		for k := range b.Own {
			if k < len(done[i].Own) && len(done[i].Own[k].Rooms) > 0 {
				who, online = append(who, len(refs)), append(online, b.Own[k].User)
			}
			refs = append(refs, saver.UserRef{Product: b.Product, Shards: b.Shards, User: b.Own[k].User})
			filters = append(filters, b.Own[k].Filter)
		}
	}
	if len(refs) == 0 {
		return n, nil
	}
	n.users = int64(len(refs))
	var devices [][]push.DeviceFacts
	var found [][]register.Found
	err = r.again(ctx, func() (err error) {
		if devices, err = r.c.cfg.Saver.Devices(ctx, refs); err != nil || len(online) == 0 {
			return err
		}
		found, err = r.c.cfg.Register.Lookup(ctx, r.ref.Product, online)
		return err
	})
	if err != nil {
		return n, err
	}
	admitted := func(i int, d push.DeviceID) bool {
		for _, f := range devices[i] {
			if f.Device == d {
				return filters[i].AdmitsBesideTags(f)
			}
		}
		return false
	}
	for i := range devices {
		for _, d := range devices[i] {
			if filters[i].AdmitsBesideTags(d) {
				n.devices++
			}
		}
	}
	for k := range found {
		seen := make(map[push.DeviceID]bool, len(found[k]))
		for _, f := range found[k] {
			if !seen[f.Device] && admitted(who[k], f.Device) {
				seen[f.Device] = true
				n.online++
			}
		}
	}
	return n, nil
}
