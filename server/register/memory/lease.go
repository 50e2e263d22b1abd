package memory

import (
	"cmp"
	"context"
	"slices"

	"carillon/server/push"
	"carillon/server/register"
)

// Join begins a new life of a room. Joining again with a boot whose lease holds prolongs it and keeps its sessions.
func (r *Register) Join(ctx context.Context, room register.Room) error {
	if err := r.usable(ctx, "join"); err != nil {
		return err
	}
	if room.ID == "" || room.Boot == 0 {
		return push.Errorf(push.KindInvalid, "bad_room", "register: join: a room has an id and a boot that is not zero")
	}
	r.joining.Lock()
	defer r.joining.Unlock()
	r.retireLocked()
	old := r.lives.Load().byRoom[room.ID]
	if old != nil && old.boot == room.Boot {
		old.addr.Store(&room.Addr)
		r.prolong(old)
		return nil
	}
	l := &life{id: room.ID, boot: room.Boot}
	l.addr.Store(&room.Addr)
	r.prolong(l)
	r.replaceLocked(old, l)
	return nil
}

// Renew prolongs a lease and takes the orders for its room.
func (r *Register) Renew(ctx context.Context, room push.RoomID, boot push.BootID) ([]register.Order, error) {
	if err := r.usable(ctx, "renew"); err != nil {
		return nil, err
	}
	l := r.renew(room, boot)
	r.clear(clearAtRenew)
	if l == nil {
		return nil, leaseLost("renew")
	}
	return l.takeOrders(), nil
}

// renew prolongs the lease of that life and returns it, nil if it is lost.
func (r *Register) renew(room push.RoomID, boot push.BootID) *life {
	r.joining.Lock()
	defer r.joining.Unlock()
	r.retireLocked()
	l := r.lives.Load().lifeOf(room, boot)
	if l != nil {
		r.prolong(l)
	}
	return l
}

// Leave ends a lease.
func (r *Register) Leave(ctx context.Context, room push.RoomID, boot push.BootID) error {
	if err := r.usable(ctx, "leave"); err != nil {
		return err
	}
	r.joining.Lock()
	defer r.joining.Unlock()
	if l := r.lives.Load().lifeOf(room, boot); l != nil {
		r.replaceLocked(l, nil)
	}
	return nil
}

// Rooms returns the rooms whose lease holds, by id.
func (r *Register) Rooms(ctx context.Context) ([]register.Room, error) {
	if err := r.usable(ctx, "rooms"); err != nil {
		return nil, err
	}
	var rooms []register.Room
	now := r.now()
	for _, l := range r.lives.Load().list {
		if l.counts(now) {
			rooms = append(rooms, l.room())
		}
	}
	return rooms, nil
}

func (r *Register) prolong(l *life) { l.until.Store(int64(r.now() + register.LeaseTTL)) }

// retireLocked ends the lives whose lease ran out. The caller holds joining.
func (r *Register) retireLocked() {
	now := r.now()
	for _, l := range r.lives.Load().list {
		if !l.counts(now) {
			r.replaceLocked(l, nil)
		}
	}
}

// replaceLocked puts a life in the place of an old one; either may be nil. The caller holds joining.
func (r *Register) replaceLocked(old, l *life) {
	t := &table{byRoom: make(map[push.RoomID]*life)}
	for id, other := range r.lives.Load().byRoom {
		if other != old {
			t.byRoom[id] = other
		}
	}
	if l != nil {
		t.byRoom[l.id] = l
	}
	for _, other := range t.byRoom {
		t.list = append(t.list, other)
	}
	slices.SortFunc(t.list, func(a, b *life) int { return cmp.Compare(a.id, b.id) })
	if old != nil {
		old.end()
	}
	r.lives.Store(t)
	if old != nil {
		r.graves.add(old)
	}
}

func leaseLost(op string) error {
	return push.Errorf(push.KindConflict, "lease_lost", "register: %s: the room has no lease under this boot", op)
}
