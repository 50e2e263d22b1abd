package center

import (
	"context"

	"carillon/server/catalog"
	publicapi "carillon/server/center/api/public"
	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/task"
)

// recordsAtOnce is how many batches of a shard are looked through in one call for a user. No test group is so large that it fills so many.
const recordsAtOnce = 64

// describeTask describes the message of a task as that of a request, and finds out what became of it on the devices of one user. KindNotFound,
// "message_not_found": there is no such task, or it has written nothing yet.
func (c *Center) describeTask(ctx context.Context, product *catalog.Product, id push.MsgID, user push.UserID) (out publicapi.Message, err error) {
	t, err := c.cfg.Tasks.Task(ctx, product.ID, id)
	if push.KindOf(err) == push.KindNotFound && err != nil || err == nil && (!t.Run.Settled || !isPersistent(&t)) {
		return out, saver.ErrNoMessage()
	}
	if err != nil {
		return out, err
	}
	req, err := parseTask(appendSpec(nil, &t.Spec, nil), &c.limits, product.Limits.WithDefaults())
	if err != nil {
		return out, err
	}
	m := req.request.message
	m.ID, m.Created, m.Expires = t.ID, t.Run.Created, t.Run.Expires
	rec := saver.Record{Message: &m, Recalled: t.Run.Recalled, Everyone: t.Run.Common, Filter: req.request.filter(), Now: push.Milli(c.cfg.Clock.Now())}
	out = describe(&rec)
	if !t.Run.Common {
		out.Targets = publicapi.Targets{Users: new(int(t.Run.Users))}
		describeFilter(&out.Targets, rec.Filter)
	}
	if user == "" {
		return out, nil
	}
	places, err := c.placesOfTask(ctx, &t, &rec, user)
	if err != nil {
		return out, err
	}
	for _, p := range places {
		for i := range req.request.targets {
			if to := &req.request.targets[i]; to.User == user && to.Filter != nil {
				p.filter = to.Filter // single devices
			}
		}
		rec.Recalled = p.recalled
		devices, err := c.deviceStates(ctx, product, &rec, p.userPlace)
		if err != nil {
			return out, err
		}
		out.Users = append(out.Users, publicapi.MessageUser{User: string(user), Devices: devices})
	}
	return out, nil
}

// taskPlace is where a task's message lies for a user.
type taskPlace struct {
	userPlace
	recalled push.MilliTime
}

// placesOfTask finds where a task's message lies for a user: nowhere if it was not written there yet.
func (c *Center) placesOfTask(ctx context.Context, t *task.Task, rec *saver.Record, user push.UserID) ([]taskPlace, error) {
	ref := saver.BatchesRef{ShardRef: saver.ShardRef{Product: t.Product, Shard: push.ShardOf(user, t.Run.Shards)}, ID: t.ID}
	if t.Run.Common {
		found, err := c.cfg.Saver.BatchRecords(ctx, ref, []int{0})
		if err != nil || found[0] == nil {
			return nil, err
		}
		rec.Now = found[0].Now
		return []taskPlace{{userPlace{user, push.Common, found[0].Common, rec.Filter}, found[0].Recalled}}, nil
	}
	for _, from := range []int{testNumbers, 0} {
		for ns := numbersFrom(from); ; ns = numbersFrom(ns[0] + recordsAtOnce) {
			found, err := c.cfg.Saver.BatchRecords(ctx, ref, ns)
			if err != nil {
				return nil, err
			}
			any := false
			for _, b := range found {
				if b == nil {
					continue
				}
				any, rec.Now = true, b.Now
				for i := range b.Own {
					if b.Own[i].User == user {
						return []taskPlace{{userPlace{user, push.Own, b.Own[i].Place, rec.Filter}, b.Recalled}}, nil
					}
				}
			}
			if !any {
				break
			}
		}
	}
	return nil, nil
}

func numbersFrom(from int) []int {
	ns := make([]int, recordsAtOnce)
	for i := range ns {
		ns[i] = from + i
	}
	return ns
}
