package center

import (
	"context"

	"carillon/server/push"
	"carillon/server/register"
	"carillon/server/saver"
	"carillon/server/task"
)

// live hands a message that is not persistent to those users who are online. Before that reserve is called with what will have been done: so nobody gets it twice.
func (r *taskRun) live(ctx context.Context, to []saver.Target, bodies [][]byte, reserve func(counted) error) (n counted, err error) {
	users := make([]push.UserID, len(to))
	for i := range to {
		users[i] = to[i].User
	}
	var found [][]register.Found
	err = r.again(ctx, func() (err error) {
		found, err = r.c.cfg.Register.Lookup(ctx, r.ref.Product, users)
		return err
	})
	if err != nil {
		return n, err
	}
	n.users = int64(len(to))
	for i := range found {
		n.online += int64(len(found[i]))
	}
	n.devices = n.online
	if err := reserve(n); err != nil {
		return n, err
	}
	if bodies == nil {
		ds := ofUsers(r.ref.Product, to, found)
		for _, d := range ds {
			d.Message = r.message
		}
		r.c.deliver(ds)
		return n, nil
	}
	for i := range to {
		if len(found[i]) == 0 {
			continue
		}
		m := *r.message
		m.Body = bodies[i]
		ds := ofUsers(r.ref.Product, to[i:i+1], found[i:i+1])
		for _, d := range ds {
			d.Message = &m
		}
		r.c.deliver(ds)
	}
	return n, nil
}

// liveToList hands a message that is not persistent to the users of a list, one chunk after the other.
func (r *taskRun) liveToList(ctx context.Context) error {
	for i := range r.plan.shards {
		w := &shardWork{shard: push.Shard(i)}
		for {
			number := int(r.now().Run.Next[i])
			c, ok, err := r.nextChunk(ctx, w, number)
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			b, skipped := r.batchOf(w.shard, number, c.Entries, false)
			if err := r.pace.wait(ctx, len(b.Own), r.c.sleep); err != nil {
				return err
			}
			_, err = r.live(ctx, b.Own, b.Bodies, func(n counted) error {
				n.skipped = int64(skipped)
				r.c.metrics.taskUsers(n.users)
				return r.update(ctx, func(t *task.Task, _ push.MilliTime) error {
					t.Run.Next[i]++
					addCounted(&t.Run, n)
					return nil
				})
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// liveToAll hands a message that is not persistent to everyone, or to all who have some tags.
func (r *taskRun) liveToAll(ctx context.Context) error {
	if r.now().Run.Next[0] > 0 {
		return nil // whoever ran it before may have done it
	}
	q := r.req.request
	var tags []push.Tag
	if q.tags != nil {
		tags = asks([]*push.TagExpr{q.tags})
	}
	var rooms liveRooms
	err := r.again(ctx, func() (err error) {
		if rooms, err = r.c.roomsOf(ctx, r.ref.Product, nil, true, tags); err != nil {
			return unavailable(codeRoomsUnavailable, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	online := 0
	err = r.again(ctx, func() (err error) {
		online, err = r.c.cfg.Register.Count(ctx, r.ref.Product)
		return err
	})
	if err != nil {
		return err
	}
	err = r.update(ctx, func(t *task.Task, _ push.MilliTime) error {
		for i := range t.Run.Next {
			t.Run.Next[i] = 1
		}
		if q.tags == nil {
			addCounted(&t.Run, counted{devices: int64(online), online: int64(online)})
		}
		return nil
	})
	if err != nil {
		return err
	}
	ds := rooms.ofAll(r.ref.Product, q)
	for _, d := range ds {
		d.Message = r.message
	}
	r.c.deliver(ds)
	return nil
}
