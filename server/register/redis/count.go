package redis

import (
	"context"

	"carillon/server/push"
	"carillon/server/redisdb"
)

// Count returns how many sessions that count a product has. Its cost is a look at each room: what each wrote with its last renewal, and the
// numbers of the moment of those that joined here.
func (r *Register) Count(ctx context.Context, p push.ProductID) (int, error) {
	if err := r.usable(ctx, "count"); err != nil {
		return 0, err
	}
	read := &redisdb.Read{Tag: leaseTag, Do: []redisdb.Command{{Name: "HGETALL", Key: numbersKey(p)}}}
	r.db.Read(ctx, read)
	if read.Err != nil {
		return 0, failed("count", read.Err)
	}
	before := r.asked.Load()
	var written []stored // places alone
	var numbers []int
	err := pairs(read.Replies[0], func(room, value string) error {
		l, n, err := readNumber(value)
		written, numbers = append(written, stored{at: place{push.RoomID(room), l}}), append(numbers, n)
		return err
	})
	if err != nil {
		return 0, damaged("count", err)
	}
	v, err := r.present(ctx)
	if err != nil {
		return 0, err
	}
	if v, err = r.known(ctx, v, before, written); err != nil {
		return 0, err
	}
	now, all := v.now(r), 0
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range written {
		if at := written[i].at; r.book.oursLocked(at) == nil && v.counts(at, now) {
			all += numbers[i]
		}
	}
	for _, t := range r.book.rooms {
		if v.counts(t.at, now) {
			all += t.numbers[p]
		}
	}
	return all, nil
}
