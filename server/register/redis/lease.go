package redis

import (
	"cmp"
	"context"
	"io"
	"slices"

	"carillon/server/failpoint"
	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/register"
)

// maxRoom is the most bytes of the name of a room.
const maxRoom = 255

// Join begins a new life of a room. Joining again with a boot whose lease holds prolongs it and keeps its sessions.
func (r *Register) Join(ctx context.Context, room register.Room) error {
	if err := r.usable(ctx, "join"); err != nil {
		return err
	}
	if room.ID == "" || len(room.ID) > maxRoom || room.Boot == 0 {
		return push.Errorf(push.KindInvalid, "bad_room", "register: join: a room has an id of 1 to %d bytes and a boot that is not zero", maxRoom)
	}
	return r.changeLease(ctx, "join", func(v *view) (bool, error) {
		old := v.rooms[room.ID]
		l := lease{room: room.ID, boot: room.Boot, addr: room.Addr, until: v.at.Add(register.LeaseTTL)}
		t := r.tenure(room.ID, room.Boot)
		keeps := old != nil && t != nil && old.life == t.at.life && old.holds(v.at)
		if keeps {
			l.life = old.life
		} else if _, err := io.ReadFull(r.rand, l.life[:]); err != nil {
			return false, &push.Error{Kind: push.KindInternal, Code: "register_random", Detail: "register: join: no randomness", Err: err}
		}
		w := v.leaseWrite(room.ID, &l)
		r.db.Write(ctx, w)
		if w.Err != nil || !w.Done {
			return false, w.Err
		}
		failpoint.Hit(failpoint.RegisterJoined)
		if keeps {
			r.keep(t)
		} else {
			r.begin(place{room.ID, l.life}, room.Boot)
		}
		r.view.Store(v.with(room.ID, &l))
		return true, nil
	})
}

// Leave ends a lease.
func (r *Register) Leave(ctx context.Context, room push.RoomID, boot push.BootID) error {
	if err := r.usable(ctx, "leave"); err != nil {
		return err
	}
	return r.changeLease(ctx, "leave", func(v *view) (bool, error) {
		if l := v.rooms[room]; l == nil || l.boot != boot {
			return true, nil
		}
		w := v.leaseWrite(room, nil)
		r.db.Write(ctx, w)
		if w.Err != nil || !w.Done {
			return false, w.Err
		}
		if t := r.tenure(room, boot); t != nil {
			r.end(t)
		}
		r.view.Store(v.with(room, nil))
		return true, nil
	})
}

// changeLease reads the table and has it changed, again if somebody else was faster.
func (r *Register) changeLease(ctx context.Context, op string, change func(*view) (done bool, err error)) error {
	if err := r.leasing.lock(ctx); err != nil {
		return err
	}
	defer r.leasing.unlock()
	for try := range tries {
		if err := redisdb.Pause(ctx, try); err != nil {
			return unavailable("wait", err)
		}
		number, read := r.looking(), tableRead()
		r.db.Read(ctx, read)
		v, err := r.take(number, read)
		if err != nil {
			return failed(op, err)
		}
		done, err := change(v)
		if err != nil {
			return failed(op, err)
		}
		if done {
			return nil
		}
	}
	return unavailable(op, errBusy)
}

// leaseWrite returns the write that puts a lease in the place of what the view has of that room, or takes that out if l is nil. Leases are overwritten all the
// time, and one that a failover lost is taken anew.
func (v *view) leaseWrite(room push.RoomID, l *lease) *redisdb.Write {
	var was any
	if old := v.rooms[room]; old != nil {
		was = old.value
	}
	w := &redisdb.Write{
		Tag: leaseTag, Under: v.lineage, Frees: true, Lax: true,
		If: []redisdb.Condition{redisdb.IfField(leaseKey, string(room), was)},
	}
	if l == nil {
		w.Do = []redisdb.Command{{Name: "HDEL", Key: leaseKey, Args: []any{string(room)}}}
		return w
	}
	l.value = string(appendLease(nil, l))
	w.Do = []redisdb.Command{{Name: "HSET", Key: leaseKey, Args: []any{string(room), l.value}}}
	return w
}

// Rooms returns the rooms whose lease holds, by id. It reads the table.
func (r *Register) Rooms(ctx context.Context) ([]register.Room, error) {
	if err := r.usable(ctx, "rooms"); err != nil {
		return nil, err
	}
	v, err := r.look(ctx, r.asked.Load())
	if err != nil {
		return nil, err
	}
	return v.list(), nil
}

// LastRooms returns the rooms whose lease held when the table was read last, by id. It asks nobody, so it works without Redis; a room
// that renews its lease reads the table each second.
func (r *Register) LastRooms() []register.Room { return r.view.Load().list() }

// list returns the rooms whose lease held when the table was read, by id.
func (v *view) list() []register.Room {
	var rooms []register.Room
	for id, l := range v.rooms {
		if l.holds(v.at) {
			rooms = append(rooms, register.Room{ID: id, Boot: l.boot, Addr: l.addr})
		}
	}
	slices.SortFunc(rooms, func(a, b register.Room) int { return cmp.Compare(a.ID, b.ID) })
	return rooms
}
