package memory

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"carillon/server/push"
	"carillon/server/saver"
)

// Open asks the locator, under no lock, only when the user has too many devices, and then looks again.
func (s *Store) Open(_ context.Context, o saver.Open) (saver.Opened, error) {
	if err := s.enter("open"); err != nil {
		return saver.Opened{}, err
	}
	defer s.calls.Done()
	out, ask, err := s.open(&o, nil, false)
	s.leave()
	if ask {
		online := s.locator.OnlineDevices(o.Product, o.User)
		s.world.RLock()
		out, _, err = s.open(&o, online, true)
		s.world.RUnlock()
	}
	if err != nil {
		return saver.Opened{}, fmt.Errorf("saver: open: %w", err)
	}
	return out, nil
}

// open opens a device. If the user has too many devices and it was not asked yet who is online, it changes nothing
// that a second call would not, and ask is true.
func (s *Store) open(o *saver.Open, online []push.DeviceID, asked bool) (out saver.Opened, ask bool, err error) {
	sh := s.shard(o.Shard())
	sh.mu.Lock()
	defer sh.mu.Unlock()
	now := s.now()
	u := sh.userLocked(o.User)
	slots := [2]*push.SlotState{&s.ownLocked(u, now).SlotState, &s.commonLocked(sh, now).SlotState}
	dropped := sh.forgetUnseenLocked(u, now, o.Limits)
	i, found := u.find(o.Facts.Device)
	var known *saver.Device
	others := len(u.devices)
	if found {
		known = &u.devices[i]
		others--
	} else {
		out.New = true
		out.Forgotten, err = saver.MakeRoom(u.devices, o.Limits, func() []push.DeviceID {
			ask = !asked
			return online
		})
		if err != nil || ask {
			if dropped {
				u.freeAcknowledged(now)
			}
			return saver.Opened{}, ask, err
		}
		for _, id := range out.Forgotten {
			dropped = sh.forgetLocked(u, id) || dropped
		}
		others = len(u.devices)
		i, _ = u.find(o.Facts.Device)
	}
	v, starts := saver.Arrive(o, known, others, slots, now)
	if found {
		u.devices[i] = v
	} else {
		u.devices = slices.Insert(u.devices, i, v)
		sh.devices++
	}
	if dropped { // after the device arrived, so that what it still wants stays
		u.freeAcknowledged(now)
	}
	out.Starts, out.Tags, out.Lineage, out.Now = starts, u.tags.Kept(v.Device), s.lineage, now
	return out, false, nil
}

// Ack applies acknowledgements in the order given.
func (s *Store) Ack(_ context.Context, as []saver.Ack) (unknown []int, err error) {
	if err := s.enter("ack"); err != nil {
		return nil, err
	}
	defer s.calls.Done()
	defer s.leave()
	for i := range as {
		if !s.ack(&as[i]) {
			as[i].Unknown()
			unknown = append(unknown, i)
		}
		as[i].Done()
	}
	return unknown, nil
}

// ack reports whether the device is known.
func (s *Store) ack(a *saver.Ack) bool {
	sh := s.lookupShard(a.Shard())
	if sh == nil {
		return false
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	u := sh.users[a.User]
	if u == nil {
		return false
	}
	i, ok := u.find(a.Device)
	if !ok {
		return false
	}
	var slots [2]*push.SlotState
	if u.own != nil {
		slots[push.Own] = &u.own.SlotState
	}
	if sh.common != nil {
		slots[push.Common] = &sh.common.SlotState
	}
	now := s.now()
	if saver.Acknowledge(&u.devices[i], a, slots, now) {
		u.freeAcknowledged(now)
	}
	return true
}

// User returns copies.
func (s *Store) User(_ context.Context, ref saver.UserRef) (saver.User, error) {
	if err := s.enter("user"); err != nil {
		return saver.User{}, err
	}
	defer s.calls.Done()
	defer s.leave()
	out := saver.User{Lineage: s.lineage, Now: s.now()}
	sh := s.lookupShard(ref.Shard())
	if sh == nil {
		return out, nil
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if u := sh.users[ref.User]; u != nil {
		out.Devices = slices.Clone(u.devices)
		out.Slots[push.Own] = u.own.state()
	}
	out.Slots[push.Common] = sh.common.state()
	return out, nil
}

// Devices takes each shard's lock for a user at a time.
func (s *Store) Devices(_ context.Context, us []saver.UserRef) ([][]push.DeviceFacts, error) {
	if err := s.enter("devices"); err != nil {
		return nil, err
	}
	defer s.calls.Done()
	defer s.leave()
	out := make([][]push.DeviceFacts, len(us))
	for i := range us {
		if sh := s.lookupShard(us[i].Shard()); sh != nil {
			out[i] = sh.factsOf(us[i].User)
		}
	}
	return out, nil
}

func (sh *shard) factsOf(id push.UserID) (facts []push.DeviceFacts) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if u := sh.users[id]; u != nil {
		for i := range u.devices {
			facts = append(facts, u.devices[i].DeviceFacts)
		}
	}
	return facts
}

// DeleteDevice also frees what only this device had not acknowledged.
func (s *Store) DeleteDevice(_ context.Context, ref saver.UserRef, d push.DeviceID) (bool, error) {
	if err := s.enter("delete device"); err != nil {
		return false, err
	}
	defer s.calls.Done()
	defer s.leave()
	sh := s.lookupShard(ref.Shard())
	if sh == nil {
		return false, nil
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	u := sh.users[ref.User]
	if u == nil || !sh.forgetLocked(u, d) {
		return false, nil
	}
	u.freeAcknowledged(s.now())
	return true, nil
}

// find returns where a device lies, or would lie.
func (u *user) find(d push.DeviceID) (int, bool) {
	return slices.BinarySearchFunc(u.devices, d, func(v saver.Device, d push.DeviceID) int { return cmp.Compare(v.Device, d) })
}

// forgetLocked removes a device and reports whether there was one. What it held back is freed by the caller.
func (sh *shard) forgetLocked(u *user, d push.DeviceID) bool {
	i, ok := u.find(d)
	if ok {
		u.devices = slices.Delete(u.devices, i, i+1)
		u.tags = u.tags.Forget(d)
		sh.devices--
	}
	return ok
}

// forgetUnseenLocked removes the devices that were not seen for too long and reports whether there were any. What they
// held back is freed by the caller.
func (sh *shard) forgetUnseenLocked(u *user, now push.MilliTime, l push.Limits) bool {
	was := len(u.devices)
	u.devices = slices.DeleteFunc(u.devices, func(v saver.Device) bool {
		unseen := v.Unseen(now, l)
		if unseen {
			u.tags = u.tags.Forget(v.Device)
		}
		return unseen
	})
	sh.devices -= was - len(u.devices)
	return len(u.devices) < was
}

// freeAcknowledged makes holes of what every device of the user has acknowledged.
func (u *user) freeAcknowledged(now push.MilliTime) {
	if u.own != nil {
		u.own.drop(u.own.ShedAcknowledged(saver.Acknowledged(&u.own.SlotState, u.devices, now), u.own.kept()))
	}
}
