package center

import (
	"context"

	publicapi "carillon/server/center/api/public"
	"carillon/server/push"
	"carillon/server/saver"
)

// GetUser serves GET /v1/users/{user}.
func (o publicOps) GetUser(
	ctx context.Context, in publicapi.GetUserRequestObject,
) (publicapi.GetUserResponseObject, error) {
	name, err := userID(in.User)
	if err != nil {
		return nil, err
	}
	product := callOf(ctx).principal.Product
	ref := saver.UserRef{Product: product.ID, Shards: product.Shards, User: name}
	user, err := o.cfg.Saver.User(ctx, ref)
	if err != nil {
		return nil, err
	}
	sessions, err := o.cfg.Rooms.Sessions(ctx, product.ID, name)
	if err != nil {
		return nil, unavailable(codeRoomsUnavailable, err)
	}
	kept, err := o.tagsOf(ctx, ref)
	if err != nil {
		return nil, err
	}
	var lags [2][]publicapi.Lag
	for _, k := range []push.SlotKind{push.Own, push.Common} {
		if lags[k], err = o.lagsOf(ctx, ref, k, &user, tagsNow{kept, sessions}); err != nil {
			return nil, err
		}
	}
	answer := publicapi.GetUser200JSONResponse{
		User: string(name), Online: len(sessions) > 0, Tags: showTags(kept.User), Devices: []publicapi.Device{},
	}
	for i := range user.Devices {
		d := &user.Devices[i]
		tags := kept.Of(d.Device)
		answer.Devices = append(answer.Devices, publicapi.Device{
			Device: string(d.Device), Platform: publicapi.Platform(d.Platform.String()), Class: optString(d.Class),
			Tags: showTags(tags.Set), Joined: showTags(tags.Joined),
			FirstSeen: showTime(d.Since), LastSeen: showTime(d.Seen), OnlineSeconds: seconds(d.Online),
			Session: sessionOf(sessions, d.Device),
			Cursor:  cursorOf(product.ID, name, d.Device, d.Cursors),
			Lag:     publicapi.DeviceLag{Own: lags[push.Own][i], Common: lags[push.Common][i]},
		})
	}
	return answer, nil
}

func cursorOf(p push.ProductID, u push.UserID, d push.DeviceID, c push.Cursor) string {
	return string(push.AppendCursor(nil, push.OwnerOf(p, u, d), c))
}

// newestOf returns the live session of a device, nil if it has none. While a newer one takes over from an older one there
// may be two; the newer one counts.
func newestOf(sessions []push.LiveSession, d push.DeviceID) (newest *push.LiveSession) {
	for i := range sessions {
		if s := &sessions[i]; s.Device == d && (newest == nil || s.Epoch > newest.Epoch) {
			newest = s
		}
	}
	return newest
}

// sessionOf returns the live session of a device, nil if it has none.
func sessionOf(sessions []push.LiveSession, d push.DeviceID) *publicapi.DeviceSession {
	newest := newestOf(sessions, d)
	if newest == nil {
		return nil
	}
	return &publicapi.DeviceSession{Transport: newest.Transport, Since: showTime(newest.Since), Tags: showTags(newest.Tags)}
}

// maxLag is where counting a lag stops.
const maxLag = 1000

// The bounds of one read while lags are counted.
const (
	lagEntries = 500
	lagBytes   = 1 << 20
)

// lagsOf counts, for each device of a user, the messages of one slot behind its cursor that its filters admit. It reads
// the slot once, from the cursor that is furthest behind.
func (c *Center) lagsOf(
	ctx context.Context, ref saver.UserRef, k push.SlotKind, user *saver.User, tags tagsNow,
) ([]publicapi.Lag, error) {
	lags := make([]publicapi.Lag, len(user.Devices))
	slot := &user.Slots[k]
	if slot.Epoch == 0 || len(lags) == 0 {
		return lags, nil
	}
	cursors, has := make([]push.Place, len(lags)), make([]func(push.Tag) bool, len(lags))
	from := push.Place{Epoch: slot.Epoch, Lineage: slot.Lineage(), Pos: slot.Head}
	for i := range cursors {
		cursors[i], _ = slot.Resolve(user.Devices[i].Cursors[k])
		from.Pos = min(from.Pos, cursors[i].Pos)
		has[i] = tags.of(user.Devices[i].Device)
	}
	for from.Pos < slot.Head {
		tails, err := c.cfg.Saver.Read(ctx, []saver.Read{{
			ShardRef: ref.Shard(), Slot: k, User: ref.User, From: from, MaxEntries: lagEntries, MaxBytes: lagBytes,
		}})
		if err != nil {
			return nil, err
		}
		full := countLags(lags, cursors, user.Devices, has, tails[0].Entries)
		if full || !tails[0].More() || tails[0].Through <= from.Pos {
			break
		}
		from.Pos = tails[0].Through
	}
	return lags, nil
}

// countLags adds entries to the lags and reports whether every lag is as high as is counted.
func countLags(
	lags []publicapi.Lag, cursors []push.Place, devices []saver.Device, has []func(push.Tag) bool, entries []saver.Entry,
) (full bool) {
	for i := range entries {
		e := &entries[i]
		if e.Kind != saver.EntryMessage {
			continue
		}
		full = true
		for j := range lags {
			switch l := &lags[j]; {
			case l.Capped:
				continue
			case e.Pos <= cursors[j].Pos || !e.Filter.Admits(devices[j].DeviceFacts, has[j]):
			case l.Messages == maxLag:
				l.Capped = true
				continue
			default:
				l.Messages++
			}
			full = false
		}
		if full {
			return true
		}
	}
	return false
}

// DeleteDevice serves DELETE /v1/users/{user}/devices/{device}. The device is forgotten first and its session ended
// after that, so that what the session still acknowledges on its way out is of an unknown device and changes nothing.
func (o publicOps) DeleteDevice(
	ctx context.Context, in publicapi.DeleteDeviceRequestObject,
) (publicapi.DeleteDeviceResponseObject, error) {
	user, err := userID(in.User)
	if err != nil {
		return nil, err
	}
	device, err := deviceID(in.Device)
	if err != nil {
		return nil, err
	}
	product := callOf(ctx).principal.Product
	ctx, cancel := o.finishing(ctx)
	defer cancel()
	ref := saver.UserRef{Product: product.ID, Shards: product.Shards, User: user}
	found, err := o.cfg.Saver.DeleteDevice(ctx, ref, device)
	if err != nil {
		return nil, err
	}
	// Also for a device that was not there: a call before this one may have come no further than the line above.
	if err := o.cfg.Rooms.End(ctx, product.ID, user, device); err != nil {
		return nil, unavailable(codeRoomsUnavailable, err)
	}
	if !found {
		return nil, push.Errorf(push.KindNotFound, string(codeDeviceNotFound), "")
	}
	return publicapi.DeleteDevice204Response{}, nil
}
