package memory

import (
	"slices"

	"carillon/server/push"
)

// RoomsOf returns the rooms with sessions of each user that count, each room once.
func (r *Register) RoomsOf(p push.ProductID, users []push.UserID) [][]push.RoomID {
	found := make([][]push.RoomID, len(users))
	if r.closed.Load() {
		return found
	}
	var all []push.RoomID // one allocation for most callers: a user is mostly in one room
	for i, u := range users {
		from := len(all)
		r.each(p, u, func(e *entry) {
			if id := e.counts.life.id; !slices.Contains(all[from:], id) {
				if all == nil {
					all = make([]push.RoomID, 0, len(users)-i)
				}
				all = append(all, id)
			}
		})
		if len(all) > from {
			found[i] = all[from:len(all):len(all)]
		}
	}
	return found
}

// RoomsIn returns the rooms with sessions of any user of the shard. Its cost is one look at each room.
func (r *Register) RoomsIn(p push.ProductID, s push.Shard) []push.RoomID {
	if r.closed.Load() {
		return nil
	}
	var rooms []push.RoomID
	now := r.now()
	for _, l := range r.lives.Load().list {
		if !l.counts(now) {
			continue
		}
		if c := l.countsOf(p); c != nil && c.of(s) > 0 {
			rooms = append(rooms, l.id)
		}
	}
	return rooms
}

// OnlineDevices returns the devices of a user that have a session that counts.
func (r *Register) OnlineDevices(p push.ProductID, u push.UserID) []push.DeviceID {
	if r.closed.Load() {
		return nil
	}
	var devices []push.DeviceID
	r.each(p, u, func(e *entry) { devices = append(devices, e.device) })
	return devices
}
