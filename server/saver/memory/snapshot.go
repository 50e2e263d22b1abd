package memory

import (
	"fmt"
	"maps"
	"slices"

	"carillon/server/push"
	"carillon/server/saver"
)

// Snapshot is what a store held at one moment, without its change logs. It never changes.
type Snapshot struct {
	shards  map[saver.ShardRef]*shard
	keys    map[keyRef]saver.KeyRecord
	records map[recordRef]saver.StoredRecord
	fences  map[recordRef]*fence
}

// Snapshot returns what the store holds at one moment between calls. With Restore it stands for what a power loss, or a
// failover to a replica that lagged, leaves of a store.
func (s *Store) Snapshot() (*Snapshot, error) {
	s.world.Lock()
	defer s.world.Unlock()
	if s.closed {
		return nil, fmt.Errorf("saver: snapshot: %w", saver.ErrClosed())
	}
	sn := &Snapshot{
		shards:  cloneShards(s.shards),
		keys:    make(map[keyRef]saver.KeyRecord),
		records: make(map[recordRef]saver.StoredRecord),
		fences:  cloneFences(s.fences),
	}
	for i := range stripes {
		maps.Copy(sn.keys, s.keys[i].keys)
		for ref, r := range s.records[i].records {
			sn.records[ref] = r.r
		}
	}
	return sn, nil
}

// Restore makes the store hold what it held at a snapshot, its own or another's, and begins a new lineage. Change logs
// begin anew, so that every point in them reads as trimmed.
func (s *Store) Restore(sn *Snapshot) error {
	s.world.Lock()
	defer s.world.Unlock()
	if s.closed {
		return fmt.Errorf("saver: restore: %w", saver.ErrClosed())
	}
	s.clear()
	s.lineage = push.Lineage(s.random())
	s.shards, s.fences = cloneShards(sn.shards), cloneFences(sn.fences)
	for ref, k := range sn.keys { // each store has stripes of its own
		s.keyStripe(ref).keys[ref] = k
	}
	for ref, r := range sn.records {
		s.recordStripe(ref).records[ref] = &record{r: r}
	}
	return nil
}

func cloneShards(from map[saver.ShardRef]*shard) map[saver.ShardRef]*shard {
	to := make(map[saver.ShardRef]*shard, len(from))
	for ref, sh := range from {
		c := &shard{ref: ref, users: make(map[push.UserID]*user, len(sh.users)), common: sh.common.clone(), devices: sh.devices}
		for id, u := range sh.users {
			c.users[id] = &user{own: u.own.clone(), devices: slices.Clone(u.devices), tags: u.tags}
		}
		to[ref] = c
	}
	return to
}

// LoseBucket makes the store lose the body of a message, as a fault would, and reports whether an entry had it.
func (s *Store) LoseBucket(p push.ProductID, id push.MsgID) bool {
	s.world.Lock()
	defer s.world.Unlock()
	lost := false
	lose := func(sl *slot) {
		if sl == nil {
			return
		}
		for i := range sl.entries {
			if e := &sl.entries[i]; e.ID == id && e.Kind == saver.EntryMessage && !e.hole {
				e.Message, e.lost, lost = nil, true, true
			}
		}
	}
	for ref, sh := range s.shards {
		if ref.Product == p {
			lose(sh.common)
			for _, u := range sh.users {
				lose(u.own)
			}
		}
	}
	return lost
}

// LoseSlot makes the store lose a slot, its state and its entries, and reports whether there was one. Devices keep
// their cursors.
func (s *Store) LoseSlot(ref saver.UserRef, k push.SlotKind) bool {
	s.world.Lock()
	defer s.world.Unlock()
	sh := s.shards[ref.Shard()]
	if sh == nil {
		return false
	}
	if k == push.Common {
		lost := sh.common != nil
		sh.common = nil
		return lost
	}
	u := sh.users[ref.User]
	if u == nil || u.own == nil {
		return false
	}
	u.own = nil
	return true
}
