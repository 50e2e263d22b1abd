package pebble

import (
	"bytes"
	"slices"
	"sync"

	"carillon/server/embedded"
	"carillon/server/push"
	"carillon/server/saver"
)

// stripe orders the writes to the shards that fall on it, and keeps the states written last.
type stripe struct {
	mu sync.Mutex

	// Guarded by mu.
	last    embedded.Ticket  // of the newest batch submitted
	users   map[string]*user // by the prefix of their keys
	counted int              // of them in Store.cached
	commons map[saver.ShardRef]*slot

	// Lock order: mu, then logMu.
	logMu sync.Mutex
	logs  map[logRef]*roomLog // guarded by logMu
}

// user is what is known of a user without a look into the database. Its name is the prefix of its own slot.
type user struct {
	own     slot
	devices []saver.Device  // sorted by id; only if known
	tags    *saver.UserTags // only if known; nil: none. Replaced as a whole, what it points at is immutable
	known   bool            // devices and tags were read
}

// devicesKept and tagsKept are how many devices and tags of a user are kept in memory; whoever has more is read each time.
const (
	devicesKept = 8
	tagsKept    = 64
)

// stripeOf returns the number of a shard's stripe. The shards of one product fall on different stripes, as far as there
// are enough.
func (s *Store) stripeOf(ref saver.ShardRef) int {
	h := uint32(2166136261)
	for i := 0; i < len(ref.Product); i++ {
		h = (h ^ uint32(ref.Product[i])) * 16777619
	}
	return int((h>>8 + uint32(ref.Shard)) % stripes)
}

// tx is a batch under construction, and the stripes that it holds.
type tx struct {
	s       *Store
	b       *embedded.Batch
	now     push.MilliTime
	lineage push.Lineage
	locked  []int   // stripes, ascending
	slots   []*slot // changed
	users   []*user // whose devices were looked at
	key     []byte  // scratch for keys
	val     []byte  // scratch for values
}

var txPool = sync.Pool{New: func() any { return new(tx) }}

// begin locks stripes, given in any order and more than once, and starts a batch. It ends with submit or giveUp.
func (s *Store) begin(numbers []int) *tx {
	slices.Sort(numbers)
	numbers = slices.Compact(numbers)
	for _, n := range numbers {
		s.stripes[n].mu.Lock()
	}
	t := txPool.Get().(*tx)
	t.s, t.b, t.lineage = s, s.db.NewBatch(), s.db.Lineage()
	t.locked = append(t.locked[:0], numbers...)
	t.now = s.now() // under the locks, so that times rise with positions
	return t
}

// submit hands the batch over and unlocks. An empty one is not handed over: the ticket is that of the newest batch
// before.
func (t *tx) submit(flush bool) (embedded.Ticket, error) {
	for _, sl := range t.slots {
		t.val = saver.AppendSlot(t.val[:0], &sl.Slot)
		t.key = sub(t.key, sl.prefix, subState)
		t.b.Set(t.key, t.val)
		sl.settle()
	}
	ticket, err := t.s.db.Submit(t.b, flush)
	t.b = nil
	for _, n := range t.locked {
		st := &t.s.stripes[n]
		if err != nil {
			st.dropCached()
		} else {
			st.last = ticket
		}
	}
	t.end()
	return ticket, err
}

// giveUp throws the batch away, and with it what the stripes remember, since that may be ahead of the database now.
func (t *tx) giveUp() {
	t.s.db.Discard(t.b)
	t.b = nil
	for _, n := range t.locked {
		t.s.stripes[n].dropCached()
	}
	t.end()
}

// leave ends a batch into which nothing was put.
func (t *tx) leave() {
	t.s.db.Discard(t.b)
	t.b = nil
	t.end()
}

// end unlocks. What the stripes guard, their users among it, is not touched after that.
func (t *tx) end() {
	for _, u := range t.users {
		if len(u.devices) > devicesKept || u.tags.Count() > tagsKept {
			u.devices, u.tags, u.known = nil, nil, false
		}
	}
	for _, n := range t.locked {
		t.s.trim(&t.s.stripes[n])
		t.s.stripes[n].mu.Unlock()
	}
	clear(t.users)
	clear(t.slots)
	t.users, t.slots = t.users[:0], t.slots[:0]
	txPool.Put(t)
}

// dropCached forgets all cached states; the caller holds mu.
func (st *stripe) dropCached() { st.users, st.commons = nil, nil }

// trim keeps the cache within its bounds; the caller holds the stripe's mu. A stripe may keep its share in any case, and more
// while others leave something of theirs: the shards of one product fall on a part of the stripes. So all of them together
// keep at most twice what was asked for. Which states go is left to chance: a state that is missed is read again.
func (s *Store) trim(st *stripe) {
	share, others := s.cacheUsers/stripes, s.cached.Load()-int64(st.counted)
	if n := len(st.users); n > share && others+int64(n) > int64(s.cacheUsers) {
		most := min(n*7/8, s.cacheUsers)
		for ref := range st.users {
			if len(st.users) <= most {
				break
			}
			delete(st.users, ref)
		}
	}
	if n := len(st.users); n != st.counted {
		s.cached.Add(int64(n - st.counted))
		st.counted = n
	}
	if len(st.commons) > share {
		clear(st.commons)
	}
}

// applied waits until the database shows everything that the stripe submitted; the caller holds mu, and looks into the
// database next.
func (st *stripe) applied() error { return st.last.Applied() }

// user returns a user of a locked shard, with the state of the own slot.
func (t *tx) user(ref saver.ShardRef, id push.UserID) (*user, error) {
	st := &t.s.stripes[t.s.stripeOf(ref)]
	t.key = userPrefix(t.key, ref, id)
	if u := st.users[string(t.key)]; u != nil {
		return u, nil
	}
	if err := st.applied(); err != nil {
		return nil, err
	}
	u := &user{own: slot{kind: push.Own, st: st, prefix: string(t.key)}}
	if err := u.own.load(t); err != nil {
		return nil, err
	}
	if st.users == nil {
		st.users = make(map[string]*user)
	}
	st.users[u.own.prefix] = u
	return u, nil
}

// common returns the common slot of a locked shard.
func (t *tx) common(ref saver.ShardRef) (*slot, error) {
	st := &t.s.stripes[t.s.stripeOf(ref)]
	if sl := st.commons[ref]; sl != nil {
		return sl, nil
	}
	if err := st.applied(); err != nil {
		return nil, err
	}
	t.key = commonPrefix(t.key, ref)
	sl := &slot{kind: push.Common, st: st, prefix: string(t.key)}
	if err := sl.load(t); err != nil {
		return nil, err
	}
	if st.commons == nil {
		st.commons = make(map[saver.ShardRef]*slot)
	}
	st.commons[ref] = sl
	return sl, nil
}

// devices makes sure that a user's devices, and the tags of all, are known.
func (t *tx) devices(u *user) error {
	t.users = append(t.users, u)
	if u.known {
		return nil
	}
	if err := u.own.st.applied(); err != nil {
		return err
	}
	it, err := t.s.db.Scan(sub(nil, u.own.prefix, subDevice), sub(nil, u.own.prefix, subToken+1))
	if err != nil {
		return err
	}
	defer it.Close()
	if u.devices, err = scanDevices(it, u.own.prefix); err != nil {
		return err
	}
	if u.tags, err = scanTags(it, u.own.prefix); err != nil {
		return err
	}
	u.known = true
	return nil
}

// scanDevices reads the devices of a user with an iterator whose range begins with them.
func scanDevices[P ~string | ~[]byte](it *embedded.Iter, prefix P) ([]saver.Device, error) {
	devicePrefix := sub(nil, prefix, subDevice)
	var devices []saver.Device
	for ok := it.First(); ok && bytes.HasPrefix(it.Key(), devicePrefix); ok = it.Next() {
		v, err := it.Value()
		if err != nil {
			return nil, err
		}
		d, err := saver.DecodeDevice(v)
		if err != nil {
			return nil, err
		}
		devices = append(devices, d)
	}
	return devices, it.Err()
}
