package redis

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"carillon/server/failpoint"
	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/saver"
)

func parse36(v string) (uint64, bool) {
	n, err := strconv.ParseUint(v, 36, 63)
	return n, err == nil
}

// confirmFor is for how long after a device came for the first time it is written as if it were new: another call may have made it, and
// not be sure yet that it is kept.
const confirmFor = time.Minute

// seenEvery is how old the time may be at which a device is known to have been seen before its arrival is written down for that
// alone. What ends its session writes it in any case, so clients that come back after a moment cost no writes.
const seenEvery = push.MilliTime(time.Minute / time.Millisecond)

// alone does one piece of work on a user, while nobody else of this node does.
func (s *Store) alone(ctx context.Context, o *userOp) error {
	held, err := s.turns.take(ctx, []uint64{s.turns.of(o.own.keys)})
	if err != nil {
		return err
	}
	defer s.turns.release(held)
	s.run(ctx, []op{o}, nil)
	return o.err
}

// Open of a known device only notes that it was seen, which may be lost, and is not even written if it was seen a moment ago. A device that is new is stored before it is answered.
func (s *Store) Open(ctx context.Context, o saver.Open) (saver.Opened, error) {
	if err := s.enter("open"); err != nil {
		return saver.Opened{}, err
	}
	defer s.calls.Done()
	out, err := s.open(ctx, &o)
	if err == nil && isStrange(&out) && s.db.Confirm(ctx) {
		before := out
		out, err = s.open(ctx, &o)
		for k := range out.Starts { // a device that is new is so the second time as well, and where it shows nothing it begins where it was let begin
			if before.New && !out.New && (o.Presented == nil || o.Presented[k].IsZero()) {
				out.Starts[k].How = before.Starts[k].How
			}
		}
		out.New, out.Forgotten = out.New || before.New, append(before.Forgotten, out.Forgotten...)
	}
	if err != nil {
		return saver.Opened{}, fmt.Errorf("saver: open: %w", err)
	}
	failpoint.Hit(failpoint.SaverOpenApplied)
	return out, nil
}

func (s *Store) open(ctx context.Context, o *saver.Open) (out saver.Opened, refused error) {
	w := s.newUserOp(ownKeys(o.UserRef), userParts{common: true, tags: true}, func(u *userOp, a redisdb.Answer) error {
		out, refused = u.open(o, a)
		return nil
	})
	w.frees = true
	if err := s.alone(ctx, w); err != nil {
		return saver.Opened{}, err
	}
	return out, refused
}

// isStrange reports whether nothing is known of a place where the device began: see unknown.
func isStrange(out *saver.Opened) bool {
	return out.Starts[push.Own].How == saver.Reset || out.Starts[push.Common].How == saver.Reset
}

// open lets a device arrive.
func (u *userOp) open(o *saver.Open, a redisdb.Answer) (out saver.Opened, refused error) {
	now := a.Now
	u.strict = false
	for _, sl := range []*slot{u.own, u.common} {
		if sl.Epoch == 0 {
			sl.make(u.s.epoch(), a.Lineage, now)
			u.strict = true
		}
	}
	dropped := u.forgetUnseen(now, o.Limits)
	i, found := u.find(o.Facts.Device)
	var known *saver.Device
	if found {
		known = &u.devices[i].Device
		u.strict = u.strict || now < known.Since.Add(confirmFor) // it may be that nobody was told yet that it is stored
	} else {
		out.New, u.strict = true, true
		out.Forgotten, refused = saver.MakeRoom(u.present(), o.Limits, func() []push.DeviceID {
			u.askOnline = true
			return u.online
		})
		if refused != nil || u.askOnline && u.online == nil {
			if dropped {
				u.free()
			}
			return saver.Opened{}, refused
		}
		for _, id := range out.Forgotten {
			u.forget(id)
			dropped = true
		}
	}
	others := len(u.present())
	if found {
		others--
	}
	v, starts := saver.Arrive(o, known, others, [2]*push.SlotState{&u.own.SlotState, &u.common.SlotState}, now)
	switch i, there := slices.BinarySearchFunc(u.devices, o.Facts.Device, compareDevice); {
	case found:
		same := v
		if v.Seen-known.Seen < seenEvery && !u.strict {
			same.Seen = known.Seen
		}
		u.devices[i].changed = u.strict || same != u.devices[i].Device
		u.devices[i].Device = v
	case there: // it was unseen for too long, and comes back
		u.devices[i] = device{Device: v, was: u.devices[i].was, changed: true}
		u.membersChanged()
	default:
		u.devices = slices.Insert(u.devices, i, device{Device: v, changed: true})
		u.membersChanged()
	}
	if dropped { // after the device arrived, so that what it still wants stays
		u.free()
	}
	u.seenToday = true
	out.Starts, out.Tags, out.Lineage, out.Now = starts, u.tags.Kept(v.Device), a.Lineage, now
	return out, nil
}

func compareDevice(v device, d push.DeviceID) int {
	switch {
	case v.Device.Device < d:
		return -1
	case v.Device.Device > d:
		return 1
	}
	return 0
}

// Ack does what is for one user in one step. Losing it in a failover repeats some messages, so nobody waits for replicas; and it
// goes on when memory is full, since it frees.
func (s *Store) Ack(ctx context.Context, as []saver.Ack) (unknown []int, err error) {
	if err := s.enter("ack"); err != nil {
		return nil, err
	}
	defer s.calls.Done()
	for n := 0; n < len(as); n += runMost {
		of, err := s.ack(ctx, as[n:min(n+runMost, len(as))])
		if err != nil {
			return nil, fmt.Errorf("saver: ack: %w", err)
		}
		for _, i := range of {
			unknown = append(unknown, n+i)
		}
	}
	failpoint.Hit(failpoint.SaverAckApplied)
	return unknown, nil
}

func (s *Store) ack(ctx context.Context, as []saver.Ack) (unknown []int, err error) {
	missing := make([]bool, len(as))
	of := make(map[slotKeys]*userOp, len(as))
	acks := make(map[*userOp][]int, len(as))
	ops := make([]op, 0, len(as))
	numbers := make([]uint64, 0, len(as))
	for i := range as {
		a := &as[i]
		k := ownKeys(a.UserRef)
		o := of[k]
		if o == nil {
			o = s.newUserOp(k, userParts{}, nil)
			o.lax, o.frees = true, true
			o.act = func(o *userOp, answer redisdb.Answer) error {
				o.ack(as, acks[o], missing, answer.Now)
				return nil
			}
			of[k] = o
			ops, numbers = append(ops, o), append(numbers, s.turns.of(k))
		}
		o.with.common = o.with.common || a.Seen || a.Moved != nil || !a.Places[push.Common].IsZero()
		acks[o] = append(acks[o], i)
	}
	held, err := s.turns.take(ctx, numbers)
	if err != nil {
		return nil, err
	}
	defer s.turns.release(held)
	s.run(ctx, ops, nil)
	for _, o := range ops {
		if o := o.(*userOp); o.err != nil {
			err = o.err
		} else {
			for _, i := range acks[o] {
				as[i].Done()
			}
		}
	}
	if err != nil {
		return nil, err
	}
	for i := range missing {
		if missing[i] {
			unknown = append(unknown, i)
		}
	}
	return unknown, nil
}

// ack applies those acknowledgements of all that are of the user's devices, in order, and notes which are of unknown ones.
func (o *userOp) ack(all []saver.Ack, mine []int, missing []bool, now push.MilliTime) {
	slots := [2]*push.SlotState{push.Own: &o.own.SlotState}
	if o.with.common {
		slots[push.Common] = &o.common.SlotState
	}
	moved := false
	for _, n := range mine {
		a := &all[n]
		i, ok := o.find(a.Device)
		if missing[n] = !ok; !ok {
			a.Unknown()
			continue
		}
		d := &o.devices[i]
		was := d.Device
		moved = saver.Acknowledge(&d.Device, a, slots, now) || moved
		d.changed = d.changed || d.Device != was
		o.seenToday = o.seenToday || a.Seen
	}
	if moved {
		o.free()
	}
}

// User reads both at one moment.
func (s *Store) User(ctx context.Context, ref saver.UserRef) (saver.User, error) {
	if err := s.enter("user"); err != nil {
		return saver.User{}, err
	}
	defer s.calls.Done()
	out, err := s.user(ctx, ref)
	if err != nil {
		return saver.User{}, fmt.Errorf("saver: user: %w", err)
	}
	return out, nil
}

// Devices reads those of one shard together.
func (s *Store) Devices(ctx context.Context, us []saver.UserRef) ([][]push.DeviceFacts, error) {
	if err := s.enter("devices"); err != nil {
		return nil, err
	}
	defer s.calls.Done()
	out := make([][]push.DeviceFacts, len(us))
	err := s.lookEach(ctx, len(us), func(i int) (redisdb.Tag, redisdb.Command) {
		t := tagOf(us[i].Shard())
		return t, redisdb.Command{Name: "HGETALL", Key: t.Key(kindUser, string(us[i].User))}
	}, func(i int, reply any, _ redisdb.Answer) error {
		_, devices, err := userOf(reply)
		for j := range devices {
			out[i] = append(out[i], devices[j].DeviceFacts)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("saver: devices: %w", err)
	}
	return out, nil
}

func (s *Store) user(ctx context.Context, ref saver.UserRef) (saver.User, error) {
	t := tagOf(ref.Shard())
	r := &redisdb.Read{Tag: t, Do: []redisdb.Command{
		{Name: "HGETALL", Key: t.Key(kindUser, string(ref.User))},
		{Name: "HGET", Key: t.Key(kindCommon, ""), Args: []any{fieldState}},
	}}
	if s.read(ctx, r); r.Err != nil {
		return saver.User{}, r.Err
	}
	state, devices, err := userOf(r.Replies[0])
	if err != nil {
		return saver.User{}, err
	}
	out := saver.User{Lineage: r.Lineage, Now: r.Now}
	for i := range devices {
		out.Devices = append(out.Devices, devices[i].Device)
	}
	for k, v := range []any{state, r.Replies[1]} {
		if v, ok := v.(string); ok {
			p, err := decodePacked(v)
			if err != nil {
				return saver.User{}, err
			}
			out.Slots[k] = p.SlotState
		}
	}
	return out, nil
}

// DeleteDevice also frees what only this device had not acknowledged.
func (s *Store) DeleteDevice(ctx context.Context, ref saver.UserRef, d push.DeviceID) (bool, error) {
	if err := s.enter("delete device"); err != nil {
		return false, err
	}
	defer s.calls.Done()
	var found bool
	w := s.newUserOp(ownKeys(ref), userParts{tags: true}, func(u *userOp, _ redisdb.Answer) error {
		if _, found = u.find(d); found {
			u.forget(d)
			u.free()
		}
		return nil
	})
	w.frees = true
	if err := s.alone(ctx, w); err != nil {
		return false, fmt.Errorf("saver: delete device: %w", err)
	}
	return found, nil
}
