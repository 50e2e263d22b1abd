package center

import (
	"context"

	"carillon/server/catalog"
	publicapi "carillon/server/center/api/public"
	"carillon/server/push"
	"carillon/server/saver"
)

// deviceStates returns how far each device of a user has come with a message.
func (c *Center) deviceStates(
	ctx context.Context, product *catalog.Product, rec *saver.Record, p userPlace,
) ([]publicapi.MessageDevice, error) {
	ref := saver.UserRef{Product: product.ID, Shards: product.Shards, User: p.user}
	user, err := c.cfg.Saver.User(ctx, ref)
	if err != nil {
		return nil, err
	}
	out := []publicapi.MessageDevice{}
	if len(user.Devices) == 0 {
		return out, nil
	}
	v := verdict{rec: rec, at: p, slot: &user.Slots[p.slot]}
	if p.filter != nil && p.filter.Tags != nil {
		if v.tags, err = c.tagsNow(ctx, ref); err != nil {
			return nil, err
		}
	}
	for i := range user.Devices {
		d := &user.Devices[i]
		if !v.concerns(d) {
			continue
		}
		state := publicapi.DeviceStateAcknowledged
		if !v.acknowledged(d) {
			if err := v.look(ctx, c, ref); err != nil {
				return nil, err
			}
			state = v.pending(d)
		}
		out = append(out, publicapi.MessageDevice{
			Device: string(d.Device), Platform: publicapi.Platform(d.Platform.String()), State: state,
		})
	}
	return out, nil
}

// verdict judges one message for the devices of one user.
type verdict struct {
	rec  *saver.Record
	at   userPlace
	slot *push.SlotState
	tags tagsNow // empty if the filter does not ask for tags

	// What look found out; it looks once, and only if a device has not acknowledged the message.
	looked bool
	gone   publicapi.DeviceState // what became of the message in the slot; empty: it is there
	sent   map[push.DeviceID]push.Place
}

// concerns reports whether the message is meant for the device: a filter admits it, as its tags are now, and it began before
// the message's place. A start that the slot does not know says nothing; everything retained is sent to such a device.
func (v *verdict) concerns(d *saver.Device) bool {
	if !v.at.filter.Admits(d.DeviceFacts, v.tags.of(d.Device)) {
		return false
	}
	return !v.covers(d.Start[v.at.slot])
}

// acknowledged reports whether the device's cursor stands at or after the message.
func (v *verdict) acknowledged(d *saver.Device) bool { return v.covers(d.Cursors[v.at.slot]) }

// covers reports whether a place, judged by the slot as it is now, lies at or after the message. The message's own place
// is judged too: where the slot fell back behind it, another message may lie there now.
func (v *verdict) covers(p push.Place) bool {
	if v.due() || v.lost() {
		return false
	}
	at, known := v.slot.Resolve(p)
	return known && at.Pos >= v.at.place.Pos
}

// due reports whether the message is accepted and not in the slot yet: it comes behind all that is there.
func (v *verdict) due() bool { return v.at.place.IsZero() }

// lost reports whether the slot lost the place: it began anew, or fell back to a state before the message.
func (v *verdict) lost() bool {
	at, known := v.slot.Resolve(v.at.place)
	return !known || at.Pos < v.at.place.Pos
}

// pending returns the state for a device that has not acknowledged the message.
func (v *verdict) pending(d *saver.Device) publicapi.DeviceState {
	if v.gone != "" {
		return v.gone
	}
	if p, online := v.sent[d.Device]; online && v.covers(p) {
		return publicapi.DeviceStateSent
	}
	return publicapi.DeviceStateStored
}

// look finds out whether the message is still in its slot, and what live sessions were sent.
func (v *verdict) look(ctx context.Context, c *Center, ref saver.UserRef) error {
	if v.looked {
		return nil
	}
	v.looked = true
	var err error
	if v.gone, err = v.fate(ctx, c, ref); err != nil || v.gone != "" {
		return err
	}
	sessions, err := c.cfg.Rooms.Sessions(ctx, ref.Product, ref.User)
	if err != nil {
		return unavailable(codeRoomsUnavailable, err)
	}
	v.sent = make(map[push.DeviceID]push.Place, len(sessions))
	for i := range sessions {
		v.sent[sessions[i].Device] = sessions[i].Sent[v.at.slot]
	}
	return nil
}

// fate returns what became of the message in the slot, empty if it is still there. What is told beside the message comes
// first; then a hole that nothing else explains is one that a newer message of its collapse key left.
func (v *verdict) fate(ctx context.Context, c *Center, ref saver.UserRef) (publicapi.DeviceState, error) {
	switch {
	case v.rec.Recalled != 0:
		return publicapi.DeviceStateRecalled, nil
	case v.rec.Message.Expires <= v.rec.Now:
		return publicapi.DeviceStateExpired, nil
	case v.due():
		return publicapi.DeviceStateStored, nil
	case v.lost(), v.at.place.Pos <= v.slot.Floor:
		return publicapi.DeviceStateGap, nil
	}
	from := v.at.place
	from.Pos--
	tails, err := c.cfg.Saver.Read(ctx, []saver.Read{{
		ShardRef: ref.Shard(), Slot: v.at.slot, User: ref.User, From: from, MaxEntries: 1, MaxBytes: 1,
	}})
	if err != nil {
		return "", err
	}
	for _, e := range tails[0].Entries {
		if e.Pos == v.at.place.Pos {
			if e.Lost {
				return publicapi.DeviceStateGap, nil
			}
			return "", nil
		}
	}
	return publicapi.DeviceStateCollapsed, nil
}
