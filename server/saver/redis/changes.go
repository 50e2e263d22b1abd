package redis

import (
	"context"
	"fmt"

	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/saver"
)

// Changes reads the logs, and where the common slots end, of all shards together.
func (s *Store) Changes(ctx context.Context, room push.RoomID, qs []saver.ChangeQuery) ([]saver.ChangeLog, error) {
	if err := s.enter("changes"); err != nil {
		return nil, err
	}
	defer s.calls.Done()
	reads := make([]*redisdb.Read, len(qs))
	for i, q := range qs {
		t := tagOf(q.ShardRef)
		reads[i] = &redisdb.Read{Tag: t, Do: []redisdb.Command{
			t.ChangesSince(q.After), {Name: "HGET", Key: t.Key(kindCommon, ""), Args: []any{fieldState}},
		}}
	}
	if len(reads) == 0 {
		return nil, nil
	}
	s.read(ctx, reads...)
	out := make([]saver.ChangeLog, len(qs))
	for i, r := range reads {
		if err := takeChanges(r, room, &out[i]); err != nil {
			return nil, fmt.Errorf("saver: changes: %w", err)
		}
	}
	return out, nil
}

func takeChanges(r *redisdb.Read, room push.RoomID, l *saver.ChangeLog) (err error) {
	if r.Err != nil {
		return r.Err
	}
	changes, next, trimmed, err := redisdb.ChangesOf(r.Replies[0], r.Answer, room)
	if err != nil {
		return err
	}
	l.Next, l.Trimmed, l.Lineage = next, trimmed, r.Lineage
	for _, v := range changes {
		c, err := decodeChange(v)
		if err != nil {
			return err
		}
		l.Own = append(l.Own, c)
	}
	l.Common, err = headOf(r.Replies[1])
	return err
}
