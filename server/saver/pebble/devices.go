package pebble

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"carillon/server/embedded"
	"carillon/server/failpoint"
	"carillon/server/planted"
	"carillon/server/push"
	"carillon/server/saver"
)

// Open asks for a flush only where something is new that the device relies on: itself, a slot, or a device that had
// to go for it. That a known device was seen again may be lost, and is not even written if it was seen a moment ago. What
// the answer tells of the slots is flushed in any case: a lineage that a loss of power took back would be unknown when the
// device shows it. It asks the locator, under no lock, only when the user has too many devices, and then looks again.
func (s *Store) Open(ctx context.Context, o saver.Open) (saver.Opened, error) {
	if err := s.enter("open"); err != nil {
		return saver.Opened{}, err
	}
	defer s.calls.Done()
	out, ticket, ask, err := s.open(&o, nil, false)
	if ask {
		online := s.locator.OnlineDevices(o.Product, o.User)
		out, ticket, _, err = s.open(&o, online, true)
	}
	if err == nil && failpoint.Enabled {
		_ = ticket.Applied()
		failpoint.Hit(failpoint.SaverOpenApplied)
	}
	if err == nil && out.flush {
		err = ticket.Wait(ctx)
	} else if err == nil {
		if err = ticket.Applied(); err == nil && !planted.Is(planted.OpenBeforeFlush) {
			err = s.db.Flushed(ctx)
		}
	}
	if err != nil {
		return saver.Opened{}, fmt.Errorf("saver: open: %w", err)
	}
	return out.Opened, nil
}

// opening is the result of Open and whether it has to be flushed first.
type opening struct {
	saver.Opened
	flush bool
}

// open submits a device's arrival. If the user has too many devices and it was not asked yet who is online, it writes
// nothing that a second call would not, and ask is true. A refused device leaves the slots behind that it would have
// read.
func (s *Store) open(o *saver.Open, online []push.DeviceID, asked bool) (out opening, _ embedded.Ticket, ask bool, err error) {
	t := s.begin([]int{s.stripeOf(o.Shard())})
	out, ask, err = t.open(o, online, asked)
	if err != nil && push.KindOf(err) != push.KindLimited {
		t.giveUp()
		return out, embedded.Ticket{}, false, err
	}
	if len(t.slots) == 0 && t.b.Empty() {
		// Nothing to write, and nobody to wait for but those who wrote what the answer tells, all of it in this stripe.
		ticket := t.s.stripes[t.locked[0]].last
		t.leave()
		return out, ticket, ask, err
	}
	ticket, serr := t.submit(out.flush)
	return out, ticket, ask, cmp.Or(serr, err)
}

// seenEvery is how old the time may be at which a device is known to have been seen before its arrival is written down for that
// alone. What ends its session writes it in any case, so clients that come back after a moment, as all of a node do when a
// network fails, cost no writes. It may be lost anyway, and devices are forgotten after weeks.
const seenEvery = push.MilliTime(time.Minute / time.Millisecond)

// arrived stores a device that opened a session, unless that says nothing new of it.
func (t *tx) arrived(u *user, v saver.Device, known *saver.Device) {
	if known != nil && v.Seen-known.Seen < seenEvery {
		same := v
		same.Seen = known.Seen
		if same == *known {
			return
		}
	}
	t.putDevice(u, v)
}

func (t *tx) open(o *saver.Open, online []push.DeviceID, asked bool) (out opening, ask bool, err error) {
	u, err := t.user(o.Shard(), o.User)
	if err != nil {
		return out, false, err
	}
	common, err := t.common(o.Shard())
	if err != nil {
		return out, false, err
	}
	if err := t.devices(u); err != nil {
		return out, false, err
	}
	for _, sl := range []*slot{&u.own, common} {
		if sl.Epoch == 0 {
			sl.change(t)
			out.flush = true
		}
	}
	dropped := t.forgetUnseen(u, o.Limits)
	var known *saver.Device
	i, found := u.find(o.Facts.Device)
	others := len(u.devices)
	if found {
		known = &u.devices[i]
		others--
	} else {
		out.New, out.flush = true, true
		out.Forgotten, err = saver.MakeRoom(u.devices, o.Limits, func() []push.DeviceID {
			ask = !asked
			return online
		})
		if err != nil || ask {
			if dropped {
				if err := t.freeAcknowledged(u); err != nil {
					return out, false, err
				}
			}
			return out, ask, err
		}
		for _, id := range out.Forgotten {
			dropped = t.forget(u, id) || dropped
		}
		others = len(u.devices)
	}
	v, starts := saver.Arrive(o, known, others, [2]*push.SlotState{&u.own.SlotState, &common.SlotState}, t.now)
	t.arrived(u, v, known)
	if dropped { // after the device arrived, so that what it still wants stays
		if err := t.freeAcknowledged(u); err != nil {
			return out, false, err
		}
	}
	out.Starts, out.Tags, out.Lineage, out.Now = starts, u.tags.Kept(v.Device), t.lineage, t.now
	return out, false, nil
}

// find returns where a device lies, or would lie.
func (u *user) find(d push.DeviceID) (int, bool) {
	return slices.BinarySearchFunc(u.devices, d, func(v saver.Device, d push.DeviceID) int { return cmp.Compare(v.Device, d) })
}

// putDevice stores a device; the user's devices are known.
func (t *tx) putDevice(u *user, v saver.Device) {
	i, found := u.find(v.Device)
	if found {
		u.devices[i] = v
	} else {
		u.devices = slices.Insert(u.devices, i, v)
	}
	t.key = deviceKey(t.key, u.own.prefix, v.Device)
	t.val = saver.AppendDevice(t.val[:0], &v)
	t.b.Set(t.key, t.val)
}

// forget removes a device and reports whether there was one. What it held back is freed by the caller.
func (t *tx) forget(u *user, d push.DeviceID) bool {
	i, found := u.find(d)
	if found {
		u.devices = slices.Delete(u.devices, i, i+1)
		t.key = deviceKey(t.key, u.own.prefix, d)
		t.b.Delete(t.key)
		t.putTags(u, u.tags.Forget(d), d)
	}
	return found
}

// forgetUnseen removes the devices that were not seen for too long and reports whether there were any.
func (t *tx) forgetUnseen(u *user, l push.Limits) (dropped bool) {
	for i := len(u.devices) - 1; i >= 0; i-- {
		if u.devices[i].Unseen(t.now, l) {
			dropped = t.forget(u, u.devices[i].Device) || dropped
		}
	}
	return dropped
}

// freeAcknowledged makes holes of what every device of the user has acknowledged.
func (t *tx) freeAcknowledged(u *user) error {
	if u.own.Epoch == 0 {
		return nil
	}
	var err error
	before := u.own.Freed
	gone := u.own.ShedAcknowledged(saver.Acknowledged(&u.own.SlotState, u.devices, t.now), u.own.kept(t, &err))
	if err != nil {
		return err
	}
	if len(gone) > 0 || u.own.Freed != before {
		u.own.change(t)
	}
	u.own.drop(t, gone)
	return nil
}

// Ack writes one batch for each stripe and does not wait for a flush: a lost acknowledgement costs a repetition.
// Cursors and what they free are in the same batch.
func (s *Store) Ack(_ context.Context, as []saver.Ack) (unknown []int, err error) {
	if err := s.enter("ack"); err != nil {
		return nil, err
	}
	defer s.calls.Done()
	byStripe := make(map[int][]int, min(len(as), stripes))
	for i := range as {
		n := s.stripeOf(as[i].Shard())
		byStripe[n] = append(byStripe[n], i)
	}
	var last embedded.Ticket
	for n, which := range byStripe {
		ticket, missing, err := s.ackStripe(n, as, which)
		if err != nil {
			return nil, fmt.Errorf("saver: ack: %w", err)
		}
		unknown = append(unknown, missing...)
		if ticket != (embedded.Ticket{}) {
			last = ticket
		}
	}
	// Batches are applied in the order in which they were submitted: with the last, all are.
	if err := last.Applied(); err != nil {
		return nil, fmt.Errorf("saver: ack: %w", err)
	}
	failpoint.Hit(failpoint.SaverAckApplied)
	for i := range as {
		as[i].Done()
	}
	slices.Sort(unknown)
	return unknown, nil
}

// ackStripe returns which of the acknowledgements were of unknown devices.
func (s *Store) ackStripe(n int, as []saver.Ack, which []int) (_ embedded.Ticket, unknown []int, err error) {
	t := s.begin([]int{n})
	for _, i := range which {
		known, err := t.ack(&as[i])
		if err != nil {
			t.giveUp()
			return embedded.Ticket{}, nil, err
		}
		if !known {
			as[i].Unknown()
			unknown = append(unknown, i)
		}
	}
	if t.b.Empty() && len(t.slots) == 0 {
		t.leave()
		return embedded.Ticket{}, unknown, nil
	}
	ticket, err := t.submit(false)
	return ticket, unknown, err
}

// ack reports whether the device is known.
func (t *tx) ack(a *saver.Ack) (known bool, err error) {
	u, err := t.user(a.Shard(), a.User)
	if err != nil {
		return false, err
	}
	if err := t.devices(u); err != nil {
		return false, err
	}
	i, found := u.find(a.Device)
	if !found {
		return false, nil
	}
	common, err := t.common(a.Shard())
	if err != nil {
		return false, err
	}
	v := u.devices[i]
	moved := saver.Acknowledge(&v, a, [2]*push.SlotState{&u.own.SlotState, &common.SlotState}, t.now)
	if v != u.devices[i] {
		t.putDevice(u, v)
	}
	if moved {
		err = t.freeAcknowledged(u)
	}
	return true, err
}

// DeleteDevice also frees what only this device had not acknowledged.
func (s *Store) DeleteDevice(ctx context.Context, ref saver.UserRef, d push.DeviceID) (bool, error) {
	if err := s.enter("delete device"); err != nil {
		return false, err
	}
	defer s.calls.Done()
	found, err := s.deleteDevice(ctx, ref, d)
	if err != nil {
		return false, fmt.Errorf("saver: delete device: %w", err)
	}
	return found, nil
}

func (s *Store) deleteDevice(ctx context.Context, ref saver.UserRef, d push.DeviceID) (bool, error) {
	t := s.begin([]int{s.stripeOf(ref.Shard())})
	u, err := t.user(ref.Shard(), ref.User)
	if err == nil {
		err = t.devices(u)
	}
	found := err == nil && t.forget(u, d)
	if found {
		err = t.freeAcknowledged(u)
	}
	if err != nil {
		t.giveUp()
		return false, err
	}
	if !found {
		t.leave()
		return false, nil
	}
	ticket, err := t.submit(true)
	if err == nil {
		err = ticket.Wait(ctx)
	}
	return found, err
}
