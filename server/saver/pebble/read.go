package pebble

import (
	"bytes"
	"context"
	"fmt"

	"carillon/server/embedded"
	"carillon/server/push"
	"carillon/server/saver"
)

// Read reads each slot as it is at one moment of its own.
func (s *Store) Read(ctx context.Context, rs []saver.Read) ([]saver.Tail, error) {
	if err := s.enter("read"); err != nil {
		return nil, err
	}
	defer s.calls.Done()
	out := make([]saver.Tail, len(rs))
	for i := range rs {
		if err := s.read(&rs[i], &out[i]); err != nil {
			return nil, fmt.Errorf("saver: read: %w", err)
		}
	}
	// What was seen is told to nobody before it is certain. A device that passed over the hole of an unflushed recall, or was
	// given an unflushed message, could otherwise have acknowledged what a loss of power then undoes.
	if err := s.db.Flushed(ctx); err != nil {
		return nil, fmt.Errorf("saver: read: %w", err)
	}
	return out, nil
}

func (s *Store) read(r *saver.Read, t *saver.Tail) error {
	t.Now, t.Lineage = s.now(), s.db.Lineage()
	prefix := slotPrefix(r.ShardRef, r.Slot, r.User)
	it, err := s.db.Scan(sub(nil, prefix, subEntry), sub(nil, prefix, subState+1))
	if err != nil {
		return err
	}
	defer it.Close()
	state := sub(nil, prefix, subState)
	if !it.SeekGE(state) || !bytes.Equal(it.Key(), state) {
		return it.Err()
	}
	v, err := it.Value()
	if err != nil {
		return err
	}
	sl, err := saver.DecodeSlot(v)
	if err != nil {
		return err
	}
	t.State = sl.SlotState
	t.Start, t.Known = sl.Resolve(r.From)
	t.Through = sl.Head
	if sl.Count == 0 || t.Start.Pos >= sl.Head {
		return nil
	}
	return s.readEntries(r, t, it, entryKey(nil, prefix, max(t.Start.Pos, sl.Freed)+1), state)
}

// readEntries reads the live entries from one key on and below another.
func (s *Store) readEntries(r *saver.Read, t *saver.Tail, it *embedded.Iter, from, end []byte) error {
	size := 0
	for ok := it.SeekGE(from); ok && bytes.Compare(it.Key(), end) < 0; ok = it.Next() {
		v, err := it.Value()
		if err != nil {
			return err
		}
		e, err := saver.DecodeEntry(v)
		if err != nil {
			return err
		}
		if saver.Expired(e.Expires, t.Now) {
			continue
		}
		pos := entryPos(it.Key())
		if len(t.Entries) > 0 && (len(t.Entries) >= r.MaxEntries || size >= r.MaxBytes) {
			t.Through = pos - 1
			return nil
		}
		size += e.Size
		out := saver.Entry{Pos: pos, Kind: e.Kind, ID: e.ID, Expires: e.Expires, Filter: e.Filter, Message: e.Message}
		if e.Kind == saver.EntryMessage && e.Message == nil {
			if out.Message, err = s.bucket(r.Product, e.ID, e.Expires); err != nil {
				return err
			}
			out.Lost = out.Message == nil
		}
		t.Entries = append(t.Entries, out)
	}
	return it.Err()
}

// state returns the state of a slot, zero if there is none.
func (s *Store) state(prefix []byte) (push.SlotState, error) {
	var buf [256]byte
	v, found, err := s.db.Get(buf[:0], sub(nil, prefix, subState))
	if err != nil || !found {
		return push.SlotState{}, err
	}
	sl, err := saver.DecodeSlot(v)
	return sl.SlotState, err
}

// Heads looks each user up.
func (s *Store) Heads(_ context.Context, ref saver.ShardRef, users []push.UserID) ([]push.Place, error) {
	if err := s.enter("heads"); err != nil {
		return nil, err
	}
	defer s.calls.Done()
	out := make([]push.Place, len(users))
	for i, u := range users {
		st, err := s.state(userPrefix(nil, ref, u))
		if err != nil {
			return nil, fmt.Errorf("saver: heads: %w", err)
		}
		if st.Epoch != 0 {
			out[i] = saver.HeadOf(&st)
		}
	}
	return out, nil
}

// User reads devices and own slot as they are at one moment, the common slot after.
func (s *Store) User(_ context.Context, ref saver.UserRef) (saver.User, error) {
	if err := s.enter("user"); err != nil {
		return saver.User{}, err
	}
	defer s.calls.Done()
	out, err := s.user(ref)
	if err != nil {
		return saver.User{}, fmt.Errorf("saver: user: %w", err)
	}
	return out, nil
}

func (s *Store) user(ref saver.UserRef) (saver.User, error) {
	out := saver.User{Lineage: s.db.Lineage(), Now: s.now()}
	prefix := userPrefix(nil, ref.Shard(), ref.User)
	it, err := s.db.Scan(sub(nil, prefix, subDevice), sub(nil, prefix, subState+1))
	if err != nil {
		return out, err
	}
	defer it.Close()
	if out.Devices, err = scanDevices(it, prefix); err != nil {
		return out, err
	}
	if state := sub(nil, prefix, subState); it.SeekGE(state) && bytes.Equal(it.Key(), state) {
		v, err := it.Value()
		if err != nil {
			return out, err
		}
		sl, err := saver.DecodeSlot(v)
		if err != nil {
			return out, err
		}
		out.Slots[push.Own] = sl.SlotState
	}
	if err := it.Err(); err != nil {
		return out, err
	}
	out.Slots[push.Common], err = s.state(commonPrefix(nil, ref.Shard()))
	return out, err
}

// Devices reads each user's as they are at one moment.
func (s *Store) Devices(ctx context.Context, us []saver.UserRef) ([][]push.DeviceFacts, error) {
	if err := s.enter("devices"); err != nil {
		return nil, err
	}
	defer s.calls.Done()
	out := make([][]push.DeviceFacts, len(us))
	for i := range us {
		err := ctx.Err()
		if err != nil {
			err = &push.Error{Kind: push.KindUnavailable, Code: "storage_slow", Err: err}
		} else {
			out[i], err = s.facts(us[i])
		}
		if err != nil {
			return nil, fmt.Errorf("saver: devices: %w", err)
		}
	}
	return out, nil
}

func (s *Store) facts(ref saver.UserRef) (facts []push.DeviceFacts, err error) {
	prefix := userPrefix(nil, ref.Shard(), ref.User)
	it, err := s.db.ScanPrefix(sub(nil, prefix, subDevice))
	if err != nil {
		return nil, err
	}
	defer it.Close()
	devices, err := scanDevices(it, prefix)
	for i := range devices {
		facts = append(facts, devices[i].DeviceFacts)
	}
	if err == nil {
		err = it.Err()
	}
	return facts, err
}
