package redis

import (
	"context"
	"errors"
	"strconv"

	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/task"
)

// sweptAtOnce is how many things a part of a sweep clears away at most.
const sweptAtOnce = 100

// Sweep clears away tasks and lists that have outlived their time, by their places among the ends. Keys and chunks expire by themselves.
func (s *Store) Sweep(ctx context.Context) (more bool, err error) {
	r, err := s.read(ctx, command("ZRANGE", endsKey, 0, sweptAtOnce-1, "WITHSCORES"))
	if err != nil {
		return false, err
	}
	members, at, err := scores(r.Replies[0])
	if err != nil {
		return false, err
	}
	now, due := r.Now, 0
	for due < len(members) && at[due] <= now {
		due++
	}
	if due == 0 {
		return false, nil
	}
	ask := make([]redisdb.Command, due)
	refs := make([]task.Ref, due)
	for i, m := range members[:due] {
		if m == "" {
			return false, damaged(errors.New("a place among the ends has no sort"))
		}
		p, id, err := cutPlace(m[1:])
		if err != nil {
			return false, err
		}
		refs[i] = task.Ref{Product: p, ID: id}
		if m[:1] == endOfTask {
			ask[i] = command("HGET", tasksKey(p), name(id))
		} else {
			ask[i] = getList(task.ListRef(refs[i]))
		}
	}
	lineage := r.Lineage
	if r, err = s.read(ctx, ask...); err != nil {
		return false, err
	}
	if r.Lineage != lineage {
		return true, nil
	}
	var ws []*redisdb.Write
	for i, was := range r.Replies {
		ours, err := outlived(members[i][:1], was, now)
		if err != nil {
			return false, err
		}
		if !ours {
			continue // it was changed, or somebody else cleared it away, between the two looks
		}
		w := removeList(task.ListRef(refs[i]), was)
		if members[i][:1] == endOfTask {
			w = remove(refs[i].Product, refs[i].ID, was)
		}
		w.Under = lineage
		ws = append(ws, w)
	}
	s.db.Write(ctx, ws...)
	for _, w := range ws {
		if w.Err != nil {
			return false, failed(w.Err)
		}
	}
	return len(members) == sweptAtOnce && due == len(members) && len(ws) > 0, nil
}

// outlived reports whether what lies under a place of a sort is there, and has outlived its time.
func outlived(sort string, was any, now push.MilliTime) (bool, error) {
	b, there := text(was)
	if !there {
		return false, nil
	}
	if sort == endOfTask {
		t, err := task.Decode(b)
		until := task.KeptUntil(&t)
		return until != 0 && until <= now, err
	}
	_, until, err := task.DecodeList(b)
	return until <= now, err
}

func parseCount(v string) (int64, error) {
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		return 0, damaged(errors.New("a count is no number"))
	}
	return n, nil
}
