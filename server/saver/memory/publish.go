package memory

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"carillon/server/planted"
	"carillon/server/push"
	"carillon/server/saver"
)

// Publish stores each publication under the locks of all its shards. Rooms are looked up once everything is stored.
func (s *Store) Publish(_ context.Context, ps []*saver.Publication) []saver.Published {
	out := make([]saver.Published, len(ps))
	if err := s.enter("publish"); err != nil {
		for i := range out {
			out[i].Err = err
		}
		return out
	}
	defer s.calls.Done()
	for i, p := range ps {
		out[i] = s.publish(p)
	}
	s.leave()
	for i, p := range ps {
		s.locate(p.Product, out[i].Own, out[i].Common)
	}
	return out
}

// publish stores one publication. A key's stripe stays locked meanwhile, so that a repeat finds the first one finished.
func (s *Store) publish(p *saver.Publication) saver.Published {
	if err := saver.CheckPublication(p); err != nil {
		return saver.Published{Lineage: s.lineage, Now: s.now(), Err: fmt.Errorf("saver: publish: %w", err)}
	}
	if p.Key == "" {
		return s.store(p, s.now())
	}
	ref := keyRef{p.Product, p.Key}
	if planted.Is(planted.KeyWithoutProduct) {
		ref.product = ""
	}
	stripe := s.keyStripe(ref)
	stripe.mu.Lock()
	defer stripe.mu.Unlock()
	now := s.now()
	if k, ok := stripe.keys[ref]; ok && k.Known(now) {
		r := k.Repeat(p, s.lineage, now)
		if r.Err != nil {
			r.Err = fmt.Errorf("saver: publish: %w", r.Err)
		}
		return r
	}
	r := s.store(p, now)
	stripe.keys[ref] = saver.KeyRecordOf(p, r.Message)
	return r
}

// store appends to the slots and writes the record.
func (s *Store) store(p *saver.Publication, now push.MilliTime) saver.Published {
	m := saver.Stamp(p, now)
	r := saver.Published{Message: m, Lineage: s.lineage, Now: now}
	if !m.Persistent {
		return r
	}
	rec := saver.Record{Message: saver.WithoutBody(m), Everyone: p.Everyone}
	var shards []*shard
	if p.Everyone {
		shards = s.lockAll(p.Product, p.Shards)
		rec.Filter = saver.CloneFilter(p.Filter)
		r.Common = make([]saver.Placed, p.Shards)
		rec.Common = make([]push.Place, p.Shards)
		for i, sh := range shards {
			at := s.commonLocked(sh, now).append(storedOf(m, rec.Filter), s.lineage, now, p.Limits)
			r.Common[i] = saver.Placed{Shard: sh.ref.Shard, Place: at}
			rec.Common[i] = at
		}
	} else {
		r.Own = make([]saver.Placed, len(p.Own))
		rec.Own = make([]saver.RecordPlace, len(p.Own))
		for i, t := range p.Own {
			r.Own[i] = saver.Placed{User: t.User, Shard: push.ShardOf(t.User, p.Shards)}
			rec.Own[i].Target = saver.Target{User: t.User, Filter: saver.CloneFilter(t.Filter)}
		}
		shards = s.lockShards(p.Product, r.Own)
		for i := range r.Own {
			sh := shardIn(shards, r.Own[i].Shard)
			sl := s.ownLocked(sh.userLocked(r.Own[i].User), now)
			at := sl.append(storedOf(m, rec.Own[i].Filter), s.lineage, now, p.Limits)
			r.Own[i].Place, rec.Own[i].Place = at, at
		}
	}
	s.keepRecord(recordRef{p.Product, m.ID}, &record{r: saver.StoredRecord{Record: rec}})
	unlockShards(shards)
	return r
}

// storedOf returns a message's entry. The filter is kept: it is a copy of the store's own and never changes.
func storedOf(m *push.Message, f *push.Filter) saver.Stored {
	return saver.Stored{
		Kind: saver.EntryMessage, ID: m.ID, Expires: m.Expires, Size: m.Size(),
		Filter: f, CollapseKey: m.CollapseKey, Message: m,
	}
}

func (s *Store) keepRecord(ref recordRef, r *record) {
	stripe := s.recordStripe(ref)
	stripe.mu.Lock()
	defer stripe.mu.Unlock()
	stripe.records[ref] = r
}

// lockAll locks every shard of a product and returns them in order.
func (s *Store) lockAll(p push.ProductID, n int) []*shard {
	shards := make([]*shard, n)
	for i := range shards {
		shards[i] = s.shard(saver.ShardRef{Product: p, Shard: push.Shard(i)})
		shards[i].mu.Lock()
	}
	return shards
}

// lockShards locks the shards of some users and returns each once, in order.
func (s *Store) lockShards(p push.ProductID, placed []saver.Placed) []*shard {
	var buf [8]push.Shard
	ns := buf[:0]
	for i := range placed {
		ns = append(ns, placed[i].Shard)
	}
	slices.Sort(ns)
	ns = slices.Compact(ns)
	shards := make([]*shard, len(ns))
	for i, n := range ns {
		shards[i] = s.shard(saver.ShardRef{Product: p, Shard: n})
		shards[i].mu.Lock()
	}
	return shards
}

func unlockShards(shards []*shard) {
	for _, sh := range shards {
		sh.mu.Unlock()
	}
}

// shardIn returns the shard of that number, which is among shards.
func shardIn(shards []*shard, n push.Shard) *shard {
	i, _ := slices.BinarySearchFunc(shards, n, func(sh *shard, n push.Shard) int { return cmp.Compare(sh.ref.Shard, n) })
	return shards[i]
}

// locate fills in which rooms hold readers of what was appended, and notes appends to own slots in those rooms' logs. The
// caller holds no lock. Rooms of one user share no memory with what the locator returned.
func (s *Store) locate(p push.ProductID, own, common []saver.Placed) {
	s.lookupRooms(p, own, common)
	s.noteOwn(p, own)
}

// noteOwn notes appends to own slots in the logs of the rooms that were looked up.
func (s *Store) noteOwn(p push.ProductID, own []saver.Placed) {
	for i := range own {
		if pl := &own[i]; len(pl.Rooms) > 0 {
			sh := s.shardForLog(saver.ShardRef{Product: p, Shard: pl.Shard})
			sh.note(s, pl.Rooms, saver.Change{User: pl.User, Place: pl.Place})
		}
	}
}

// lookupRooms fills in which rooms hold readers of places.
func (s *Store) lookupRooms(p push.ProductID, own, common []saver.Placed) {
	if len(own) > 0 {
		users := make([]push.UserID, len(own))
		for i := range own {
			users[i] = own[i].User
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

// shardForLog is shard for a caller that does not hold world.
func (s *Store) shardForLog(ref saver.ShardRef) *shard {
	s.world.RLock()
	defer s.world.RUnlock()
	return s.shard(ref)
}

// note appends a change to the logs of rooms.
func (sh *shard) note(s *Store, rooms []push.RoomID, c saver.Change) {
	now := s.now()
	sh.logMu.Lock()
	defer sh.logMu.Unlock()
	for _, room := range rooms {
		sh.logLocked(s, room, now).ring.Add(c)
	}
}

// logLocked returns a room's log and makes it if need be; the caller holds logMu.
func (sh *shard) logLocked(s *Store, room push.RoomID, now push.MilliTime) *roomLog {
	l := sh.logs[room]
	if l == nil {
		l = &roomLog{ring: saver.NewChangeRing(s.random()), used: now}
		if sh.logs == nil {
			sh.logs = make(map[push.RoomID]*roomLog)
		}
		sh.logs[room] = l
	}
	return l
}
