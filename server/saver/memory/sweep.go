package memory

import (
	"context"
	"slices"

	"carillon/server/push"
	"carillon/server/saver"
)

// sweepChunk is how many users are swept under one hold of a shard's lock.
const sweepChunk = 256

// Sweep frees what expired: entries, records, idempotency keys, fences and the batches under them, devices unseen for too long, the states of slots that
// nobody needs, and the change logs of rooms that stopped asking. It gives way to other calls all the time and ends early,
// with the context's error, when the context does.
func (s *Store) Sweep(ctx context.Context) error {
	if err := s.enter("sweep"); err != nil {
		return err
	}
	defer s.calls.Done()
	s.mapMu.RLock()
	shards := make([]*shard, 0, len(s.shards))
	for _, sh := range s.shards {
		shards = append(shards, sh)
	}
	s.mapMu.RUnlock()
	s.leave()
	for _, sh := range shards {
		if err := s.sweepShard(ctx, sh); err != nil {
			return err
		}
	}
	for i := range stripes {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.sweepStripe(i)
	}
	s.sweepFences()
	return nil
}

func (s *Store) sweepShard(ctx context.Context, sh *shard) error {
	limits := s.limits(sh.ref.Product)
	s.world.RLock()
	sh.mu.Lock()
	ids := make([]push.UserID, 0, len(sh.users))
	for id := range sh.users {
		ids = append(ids, id)
	}
	sh.mu.Unlock()
	s.world.RUnlock()
	for chunk := range slices.Chunk(ids, sweepChunk) {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.sweepUsers(sh, chunk, limits)
	}
	s.sweepCommon(sh, limits)
	return nil
}

func (s *Store) sweepUsers(sh *shard, ids []push.UserID, limits push.Limits) {
	s.world.RLock()
	defer s.world.RUnlock()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	now := s.now()
	for _, id := range ids {
		u := sh.users[id]
		if u == nil {
			continue
		}
		if sh.forgetUnseenLocked(u, now, limits) {
			u.freeAcknowledged(now)
		}
		if u.own.sweep(len(u.devices), now, limits) {
			u.own = nil
		}
		if u.own == nil && len(u.devices) == 0 && u.tags == nil {
			delete(sh.users, id)
		}
	}
}

// sweepCommon sweeps what a shard has beside its users.
func (s *Store) sweepCommon(sh *shard, limits push.Limits) {
	s.world.RLock()
	defer s.world.RUnlock()
	now := s.now()
	sh.mu.Lock()
	if sh.common.sweep(sh.devices, now, limits) {
		sh.common = nil
	}
	sh.mu.Unlock()
	sh.logMu.Lock()
	for room, l := range sh.logs {
		if l.used.Add(logIdle) < now {
			delete(sh.logs, room)
		}
	}
	sh.logMu.Unlock()
}

// sweep makes holes of expired entries, forgets old notes, and reports whether nobody needs the slot any more.
func (s *slot) sweep(devices int, now push.MilliTime, limits push.Limits) bool {
	if s == nil {
		return false
	}
	s.drop(s.ShedExpired(now, s.kept()))
	s.Notes = saver.TrimNotes(s.Notes, now, limits)
	return s.Idle(devices, now, limits)
}

// sweepStripe forgets the keys and records of one stripe.
func (s *Store) sweepStripe(i int) {
	s.world.RLock()
	defer s.world.RUnlock()
	keys := &s.keys[i]
	keys.mu.Lock()
	now := s.now()
	for ref, k := range keys.keys {
		if !k.Known(now) {
			delete(keys.keys, ref)
		}
	}
	keys.mu.Unlock()

	records := &s.records[i]
	records.mu.Lock()
	for ref, r := range records.records {
		if r.r.Forgotten(now) { // looks at the message's times only, which never change
			delete(records.records, ref)
		}
	}
	records.mu.Unlock()
}
