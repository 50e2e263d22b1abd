package pebble

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"carillon/server/embedded"
	"carillon/server/failpoint"
	"carillon/server/push"
	"carillon/server/saver"
)

const (
	// sweepChunk is how many users or common slots Sweep looks at before it writes what it found.
	sweepChunk = 512
	// sweepRest is how long Run rests between two passes, in ticks.
	sweepRest = 300
)

// Run looks after the store for as long as ctx lives. Every second it flushes acknowledgements that nothing else
// flushed, so that on a quiet node a crash repeats no more than a second's, and sweeps at most Config.SweepUsers users,
// with five minutes between two passes over all. Trouble is logged and tried again with the next pass. It returns nil.
func (s *Store) Run(ctx context.Context) error {
	tick := s.clock.NewTicker(time.Second)
	defer tick.Stop()
	p := pass{most: s.sweepUsers}
	for rest := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := s.db.Sync(ctx); err != nil {
			continue // Health tells why; there is nothing to sweep on such a disk
		}
		if rest > 0 {
			rest--
			continue
		}
		done, err := s.sweepStep(ctx, &p)
		if err != nil && ctx.Err() == nil && push.KindOf(err) != push.KindClosed {
			s.log.Error("saver: sweep failed", "err", err)
		}
		if done || err != nil {
			p = pass{most: s.sweepUsers}
			rest = sweepRest
		}
	}
}

// Sweep makes one pass over everything, without pause: it frees what expired, devices unseen for too long, the states
// of slots that nobody needs, forgotten keys, records, buckets and fences, and the change logs of rooms that stopped asking.
// Other calls go on meanwhile. It ends early, with the context's error, when the context does.
func (s *Store) Sweep(ctx context.Context) error {
	p := pass{most: sweepChunk}
	for {
		done, err := s.sweepStep(ctx, &p)
		if err != nil || done {
			return err
		}
	}
}

// pass is how far a sweep has come.
type pass struct {
	most  int    // users or slots in a step
	space byte   // spaceUser, then spaceCommon; 0: not begun
	from  []byte // the key to go on at
}

// found is a user or a common slot in which something is to be done.
type found struct {
	ref      saver.ShardRef
	user     push.UserID // of spaceUser
	space    byte
	devices  int // in the shard, of spaceCommon: only whether there are any
	collapse bool
}

// sweepStep does a part of a pass and reports whether that was the last.
func (s *Store) sweepStep(ctx context.Context, p *pass) (done bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if err := s.enter("sweep"); err != nil {
		return false, err
	}
	defer s.calls.Done()
	s.sweepMu.Lock()
	defer s.sweepMu.Unlock()
	if done, err = s.step(p); err != nil {
		return false, fmt.Errorf("saver: sweep: %w", err)
	}
	return done, nil
}

func (s *Store) step(p *pass) (done bool, err error) {
	if p.space == 0 {
		if err := s.sweepHours(); err != nil {
			return false, err
		}
		if err := s.sweepFences(); err != nil {
			return false, err
		}
		s.sweepLogs()
		p.space, p.from = spaceUser, appendSpace(nil, spaceUser)
	}
	todo, more, err := s.look(p)
	if err != nil {
		return false, err
	}
	var last embedded.Ticket
	for i := range todo {
		ticket, err := s.tend(&todo[i])
		if err != nil {
			return false, err
		}
		if ticket != (embedded.Ticket{}) {
			last = ticket
		}
	}
	if err := last.Applied(); err != nil { // no further ahead of the database than one step
		return false, err
	}
	if len(todo) > 0 {
		failpoint.Hit(failpoint.SaverSweepApplied)
	}
	if !more && p.space == spaceUser {
		p.space, p.from, more = spaceCommon, appendSpace(nil, spaceCommon), true
	}
	return !more, nil
}

// sweepHours drops the keys, records and buckets of hours that are over.
func (s *Store) sweepHours() error {
	now := hourOf(s.now())
	b := s.db.NewBatch()
	for _, space := range []byte{spaceKey, spaceMessage, spaceBucket} {
		b.DeleteRange(appendHour(nil, space, 0), appendHour(nil, space, now+1))
	}
	// Buckets are noted with the records of the same hour.
	keys, messages := s.keyGens.dropBelow(now+1), s.msgGens.dropBelow(now+1)
	if !keys && !messages {
		s.db.Discard(b)
		return nil
	}
	return s.db.CommitNoSync(b)
}

// look walks over the next users or common slots, and returns those in which something is to be done.
func (s *Store) look(p *pass) (todo []found, more bool, err error) {
	it, err := s.db.Scan(p.from, embedded.PrefixEnd(appendSpace(nil, p.space)))
	if err != nil {
		return nil, false, err
	}
	defer it.Close()
	now := s.now()
	n := 0
	for ok := it.First(); ok; {
		if n == p.most {
			p.from = bytes.Clone(it.Key())
			return todo, true, nil
		}
		n++
		f, prefix, err := parseOwner(p.space, it.Key())
		if err != nil {
			return nil, false, err
		}
		needed, err := s.lookAt(it, &f, prefix, now)
		if err != nil {
			return nil, false, err
		}
		if needed {
			todo = append(todo, f)
		}
		ok = it.SeekGE(embedded.PrefixEnd(prefix))
	}
	return todo, false, it.Err()
}

// parseOwner tells whose key it is, and what begins all of that owner's keys.
func parseOwner(space byte, key []byte) (f found, prefix []byte, err error) {
	f.space = space
	product, rest, err := embedded.CutKeyString(key[2:])
	if err != nil {
		return f, nil, err
	}
	shard, rest, err := embedded.CutKeyUint16(rest)
	if err != nil {
		return f, nil, err
	}
	f.ref = saver.ShardRef{Product: push.ProductID(product), Shard: push.Shard(shard)}
	if space == spaceUser {
		var u string
		if u, rest, err = embedded.CutKeyString(rest); err != nil {
			return f, nil, err
		}
		f.user = push.UserID(u)
	}
	return f, bytes.Clone(key[:len(key)-len(rest)]), nil
}

// lookAt reports whether something is to be done for an owner, at whose first key the iterator stands.
func (s *Store) lookAt(it *embedded.Iter, f *found, prefix []byte, now push.MilliTime) (needed bool, err error) {
	limits := s.limits(f.ref.Product)
	f.collapse = len(it.Key()) > len(prefix) && it.Key()[len(prefix)] == subCollapse
	needed = f.collapse
	devicePrefix := sub(nil, prefix, subDevice)
	for ok := it.SeekGE(devicePrefix); ok && bytes.HasPrefix(it.Key(), devicePrefix); ok = it.Next() {
		v, err := it.Value()
		if err != nil {
			return false, err
		}
		d, err := saver.DecodeDevice(v)
		if err != nil {
			return false, err
		}
		f.devices++
		needed = needed || d.Unseen(now, limits)
	}
	state := sub(nil, prefix, subState)
	if !it.SeekGE(state) || !bytes.Equal(it.Key(), state) {
		return needed, it.Err()
	}
	v, err := it.Value()
	if err != nil {
		return false, err
	}
	sl, err := saver.DecodeSlot(v)
	if err != nil {
		return false, err
	}
	return needed || sl.Count > 0 && sl.Expiry <= now || len(saver.TrimNotes(sl.Notes, now, limits)) < len(sl.Notes) ||
		sl.Idle(f.devices, now, limits), nil
}

// tend does what is to be done for one owner, in a batch of its own that nobody waits for.
func (s *Store) tend(f *found) (embedded.Ticket, error) {
	limits := s.limits(f.ref.Product)
	t := s.begin([]int{s.stripeOf(f.ref)})
	var err error
	if f.space == spaceUser {
		err = t.tendUser(f, limits)
	} else {
		err = t.tendCommon(f, limits)
	}
	if err != nil {
		t.giveUp()
		return embedded.Ticket{}, err
	}
	if t.b.Empty() && len(t.slots) == 0 {
		t.leave()
		return embedded.Ticket{}, nil
	}
	return t.submit(false)
}

func (t *tx) tendUser(f *found, limits push.Limits) error {
	u, err := t.user(f.ref, f.user)
	if err != nil {
		return err
	}
	if err := t.devices(u); err != nil {
		return err
	}
	if t.forgetUnseen(u, limits) {
		if err := t.freeAcknowledged(u); err != nil {
			return err
		}
	}
	idle, err := t.tendSlot(&u.own, f.collapse, len(u.devices), limits)
	if err != nil || !idle {
		return err
	}
	delete(u.own.st.users, u.own.prefix)
	return nil
}

func (t *tx) tendCommon(f *found, limits push.Limits) error {
	sl, err := t.common(f.ref)
	if err != nil {
		return err
	}
	devices := 1
	if sl.Idle(0, t.now, limits) { // only then it costs a look at all users of the shard
		if devices, err = t.anyDevice(f.ref); err != nil {
			return err
		}
	}
	idle, err := t.tendSlot(sl, f.collapse, devices, limits)
	if err != nil || !idle {
		return err
	}
	delete(sl.st.commons, f.ref)
	return nil
}

// tendSlot frees what expired, forgets old notes and stale index entries, and forgets the slot if nobody needs it: idle
// is true then.
func (t *tx) tendSlot(sl *slot, collapse bool, devices int, limits push.Limits) (idle bool, err error) {
	if sl.Epoch == 0 {
		return false, t.sweepCollapse(sl, collapse)
	}
	gone := sl.ShedExpired(t.now, sl.kept(t, &err))
	if err != nil {
		return false, err
	}
	sl.drop(t, gone)
	if notes := saver.TrimNotes(sl.Notes, t.now, limits); len(notes) < len(sl.Notes) {
		sl.change(t)
		sl.Notes = append([]push.Note(nil), notes...)
	}
	if err := t.sweepCollapse(sl, collapse); err != nil {
		return false, err
	}
	if !sl.Idle(devices, t.now, limits) {
		return false, nil
	}
	t.forgetSlot(sl)
	return true, nil
}

// forgetSlot deletes the state of a slot that keeps nothing.
func (t *tx) forgetSlot(sl *slot) {
	for i, c := range t.slots {
		if c == sl {
			t.slots = append(t.slots[:i], t.slots[i+1:]...)
			break
		}
	}
	t.key = sub(t.key, sl.prefix, subState)
	t.b.Delete(t.key)
}

// sweepCollapse deletes index entries whose entry is a hole by now.
func (t *tx) sweepCollapse(sl *slot, any bool) error {
	if !any {
		return nil
	}
	if err := sl.st.applied(); err != nil {
		return err
	}
	it, err := t.s.db.ScanPrefix(sub(nil, sl.prefix, subCollapse))
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.Value()
		if err != nil {
			return err
		}
		epoch, pos, err := decodeCollapse(v)
		if err != nil {
			return err
		}
		live := epoch == sl.Epoch
		if live {
			if _, live, err = sl.find(t, pos, 0); err != nil {
				return err
			}
		}
		if !live {
			t.b.Delete(it.Key())
		}
	}
	return it.Err()
}

// anyDevice returns 1 if a user of the shard has a device, and 0 if none has.
func (t *tx) anyDevice(ref saver.ShardRef) (int, error) {
	if err := t.s.stripes[t.s.stripeOf(ref)].applied(); err != nil {
		return 0, err
	}
	it, err := t.s.db.ScanPrefix(appendShard(appendSpace(nil, spaceUser), ref))
	if err != nil {
		return 0, err
	}
	defer it.Close()
	for ok := it.First(); ok; {
		_, prefix, err := parseOwner(spaceUser, it.Key())
		if err != nil {
			return 0, err
		}
		device := sub(nil, prefix, subDevice)
		if ok = it.SeekGE(device); ok && bytes.HasPrefix(it.Key(), device) {
			return 1, nil
		}
		ok = it.SeekGE(embedded.PrefixEnd(prefix))
	}
	return 0, it.Err()
}
