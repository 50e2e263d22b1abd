package pebble

import (
	"context"
	"fmt"
	"slices"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
)

// logIdle is how long the change log of a room that does not ask is kept. A room asks every few seconds.
const logIdle = time.Hour

type logRef struct {
	saver.ShardRef
	room push.RoomID
}

type roomLog struct {
	ring *saver.ChangeRing
	used push.MilliTime // when the room asked last, or the log was made
}

// locate fills in which rooms hold readers of what was appended, and notes appends to own slots in those rooms' logs.
// The caller holds no lock. Rooms share no memory with what the locator returned.
func (s *Store) locate(p push.ProductID, own, common []saver.Placed) {
	s.lookupRooms(p, own, common)
	for i := range own {
		if pl := &own[i]; len(pl.Rooms) > 0 {
			s.note(saver.ShardRef{Product: p, Shard: pl.Shard}, pl.Rooms, saver.Change{User: pl.User, Place: pl.Place})
		}
	}
}

// lookupRooms fills in which rooms hold readers of places.
func (s *Store) lookupRooms(p push.ProductID, own, common []saver.Placed) {
	if len(own) > 0 {
		var buf [4]push.UserID
		users := buf[:0]
		for i := range own {
			users = append(users, own[i].User)
		}
		for i, rooms := range s.locator.RoomsOf(p, users) {
			if len(rooms) > 0 {
				own[i].Rooms = slices.Clone(rooms)
			}
		}
	}
	for i := range common {
		common[i].Rooms = slices.Clone(s.locator.RoomsIn(p, common[i].Shard))
	}
}

// note appends a change to the logs of rooms.
func (s *Store) note(ref saver.ShardRef, rooms []push.RoomID, c saver.Change) {
	now := s.now()
	st := &s.stripes[s.stripeOf(ref)]
	st.logMu.Lock()
	defer st.logMu.Unlock()
	for _, room := range rooms {
		st.logLocked(s, logRef{ref, room}, now).ring.Add(c)
	}
}

// logLocked returns a room's log and makes it if need be; the caller holds logMu.
func (st *stripe) logLocked(s *Store, ref logRef, now push.MilliTime) *roomLog {
	l := st.logs[ref]
	if l == nil {
		l = &roomLog{ring: saver.NewChangeRing(s.random()), used: now}
		if st.logs == nil {
			st.logs = make(map[logRef]*roomLog)
		}
		st.logs[ref] = l
	}
	return l
}

// Changes makes the log of a room that asks for the first time, so that the next query finds its point in it.
func (s *Store) Changes(_ context.Context, room push.RoomID, qs []saver.ChangeQuery) ([]saver.ChangeLog, error) {
	if err := s.enter("changes"); err != nil {
		return nil, err
	}
	defer s.calls.Done()
	out := make([]saver.ChangeLog, len(qs))
	for i := range qs {
		if err := s.changes(room, &qs[i], &out[i]); err != nil {
			return nil, fmt.Errorf("saver: changes: %w", err)
		}
	}
	return out, nil
}

func (s *Store) changes(room push.RoomID, q *saver.ChangeQuery, out *saver.ChangeLog) error {
	out.Lineage = s.db.Lineage()
	common, err := s.state(commonPrefix(nil, q.ShardRef))
	if err != nil {
		return err
	}
	if common.Epoch != 0 {
		out.Common = saver.HeadOf(&common)
	}
	now := s.now()
	st := &s.stripes[s.stripeOf(q.ShardRef)]
	st.logMu.Lock()
	defer st.logMu.Unlock()
	l := st.logLocked(s, logRef{q.ShardRef, room}, now)
	l.used = now
	out.Own, out.Next, out.Trimmed = l.ring.Since(q.After)
	return nil
}

// sweepLogs forgets the logs of rooms that stopped asking.
func (s *Store) sweepLogs() {
	now := s.now()
	for i := range s.stripes {
		st := &s.stripes[i]
		st.logMu.Lock()
		for ref, l := range st.logs {
			if l.used.Add(logIdle) < now {
				delete(st.logs, ref)
			}
		}
		st.logMu.Unlock()
	}
}
