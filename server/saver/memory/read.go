package memory

import (
	"context"

	"carillon/server/push"
	"carillon/server/saver"
)

// Read answers each request under the lock of its shard; requests are not read at one moment.
func (s *Store) Read(_ context.Context, rs []saver.Read) ([]saver.Tail, error) {
	if err := s.enter("read"); err != nil {
		return nil, err
	}
	defer s.calls.Done()
	defer s.leave()
	out := make([]saver.Tail, len(rs))
	for i := range rs {
		out[i].Lineage = s.lineage
		s.read(&rs[i], &out[i])
	}
	return out, nil
}

func (s *Store) read(r *saver.Read, t *saver.Tail) {
	t.Now = s.now()
	sh := s.lookupShard(r.ShardRef)
	if sh == nil {
		return
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sl := sh.common
	if r.Slot == push.Own {
		sl = nil
		if u := sh.users[r.User]; u != nil {
			sl = u.own
		}
	}
	if sl != nil {
		sl.read(r, t.Now, t)
	}
}

// Changes makes the log of a room that asks for the first time, so that the next query finds its point in it.
func (s *Store) Changes(_ context.Context, room push.RoomID, qs []saver.ChangeQuery) ([]saver.ChangeLog, error) {
	if err := s.enter("changes"); err != nil {
		return nil, err
	}
	defer s.calls.Done()
	defer s.leave()
	out := make([]saver.ChangeLog, len(qs))
	for i, q := range qs {
		out[i] = s.changes(room, q)
	}
	return out, nil
}

func (s *Store) changes(room push.RoomID, q saver.ChangeQuery) saver.ChangeLog {
	sh := s.shard(q.ShardRef)
	out := saver.ChangeLog{Lineage: s.lineage}
	now := s.now()
	sh.mu.Lock()
	if sh.common != nil {
		out.Common = saver.HeadOf(&sh.common.SlotState)
	}
	sh.mu.Unlock()
	sh.logMu.Lock()
	defer sh.logMu.Unlock()
	l := sh.logLocked(s, room, now)
	l.used = now
	out.Own, out.Next, out.Trimmed = l.ring.Since(q.After)
	return out
}

// Heads looks the users up under one lock.
func (s *Store) Heads(_ context.Context, ref saver.ShardRef, users []push.UserID) ([]push.Place, error) {
	if err := s.enter("heads"); err != nil {
		return nil, err
	}
	defer s.calls.Done()
	defer s.leave()
	out := make([]push.Place, len(users))
	sh := s.lookupShard(ref)
	if sh == nil {
		return out, nil
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for i, id := range users {
		if u := sh.users[id]; u != nil && u.own != nil {
			out[i] = saver.HeadOf(&u.own.SlotState)
		}
	}
	return out, nil
}
