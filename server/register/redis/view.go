package redis

import (
	"context"
	"maps"
	"sync"
	"time"

	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/register"
)

// view is the table of leases as it was read once. It is replaced, never changed.
type view struct {
	rooms   map[push.RoomID]*lease // which nobody changes
	at      push.MilliTime         // of the reading, by the store's clock
	got     time.Time              // when it came, by ours
	number  uint64                 // of the reading; 0: there was none
	lineage push.Lineage
}

// viewAge is how old a view may become before somebody who needs one reads the table anew.
const viewAge = 2 * register.RenewEvery

// leaseSlack is how much longer than at a renewal a lease may have left. One that has more was written by another clock, and holds no more than one
// that ran out: or a store that fell back to a slow clock would keep dead rooms for as long.
const leaseSlack = 5 * time.Second

// now is the present moment by the store's clock.
func (v *view) now(r *Register) push.MilliTime { return v.at.Add(r.clock.Now().Sub(v.got)) }

// isOld reports whether the view is to be read anew.
func (v *view) isOld(r *Register) bool {
	age := r.clock.Now().Sub(v.got)
	return v.number == 0 || age > viewAge || age < 0
}

// holds reports whether the lease has not run out at that moment.
func (l *lease) holds(now push.MilliTime) bool {
	return now < l.until && l.until <= now.Add(register.LeaseTTL+leaseSlack)
}

// find returns the lease of a room's life, nil if that is not its present one.
func (v *view) find(at place) *lease {
	if l := v.rooms[at.room]; l != nil && l.life == at.life {
		return l
	}
	return nil
}

// hasLife reports whether a life is in the table, whatever its room.
func (v *view) hasLife(l life) bool {
	for _, lease := range v.rooms {
		if lease.life == l {
			return true
		}
	}
	return false
}

// counts reports whether sessions of that life of a room count.
func (v *view) counts(at place, now push.MilliTime) bool {
	l := v.find(at)
	return l != nil && l.holds(now)
}

// isDead reports whether sessions of that life can be taken out because they do not count and never will: the room has begun another one, or the lease
// had run out when the table was read, so that nobody can have renewed it since.
func (v *view) isDead(at place) bool {
	l := v.find(at)
	return l == nil || !l.holds(v.at)
}

// with returns the view with another line, or without it if l is nil.
func (v *view) with(room push.RoomID, l *lease) *view {
	w := *v
	w.rooms = maps.Clone(v.rooms)
	if l == nil {
		delete(w.rooms, room)
	} else {
		w.rooms[room] = l
	}
	return &w
}

// tableRead returns a read of the table.
func tableRead() *redisdb.Read {
	return &redisdb.Read{Tag: leaseTag, Do: []redisdb.Command{{Name: "HGETALL", Key: leaseKey}}}
}

// looking returns the number of the reading that begins now. Who calls it has the turn.
func (r *Register) looking() uint64 { return r.asked.Add(1) }

// take makes a view of the answer of a reading, and stores it. Who calls it has the turn.
func (r *Register) take(number uint64, read *redisdb.Read) (*view, error) {
	v, err := r.viewOf(read)
	if err != nil {
		return nil, err
	}
	v.number = number
	if was := r.view.Swap(v); was.lineage != v.lineage {
		r.dead.clear()
	}
	return v, nil
}

// viewOf makes a view of the answer of a reading.
func (r *Register) viewOf(read *redisdb.Read) (*view, error) {
	if read.Err != nil {
		return nil, read.Err
	}
	v := &view{rooms: make(map[push.RoomID]*lease), at: read.Now, got: r.clock.Now(), lineage: read.Lineage}
	err := pairs(read.Replies[0], func(room, value string) error {
		l, err := readLease(value)
		l.room = push.RoomID(room)
		v.rooms[push.RoomID(room)] = &l
		return err
	})
	if err != nil {
		return nil, damaged("leases", err)
	}
	return v, nil
}

// look returns a view that was read after the reading of that number began: a new one if there is none.
func (r *Register) look(ctx context.Context, after uint64) (*view, error) {
	if err := r.leasing.lock(ctx); err != nil {
		return nil, err
	}
	defer r.leasing.unlock()
	if v := r.view.Load(); v.number > after {
		return v, nil
	}
	number, read := r.looking(), tableRead()
	r.db.Read(ctx, read)
	v, err := r.take(number, read)
	if err != nil {
		return nil, failed("look at the rooms", err)
	}
	return v, nil
}

// present returns a view that is young enough.
func (r *Register) present(ctx context.Context) (*view, error) {
	v := r.view.Load()
	if !v.isOld(r) {
		return v, nil
	}
	return r.look(ctx, v.number)
}

// dead are lives that were once missing in the table, and so will not be there again, under this lineage of it: whoever meets their sessions
// need not look.
type dead struct {
	mu    sync.Mutex
	lives map[life]struct{}
}

const maxDead = 4096

func (d *dead) has(l life) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.lives[l]
	return ok
}

func (d *dead) add(l life) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lives == nil || len(d.lives) >= maxDead {
		d.lives = make(map[life]struct{})
	}
	d.lives[l] = struct{}{}
}

func (d *dead) clear() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lives = nil
}

// known returns a view that knows the lives of all these sessions, which were read after `before` was taken from asked: v itself, or one that was
// read since. What is not in that one is dead.
func (r *Register) known(ctx context.Context, v *view, before uint64, ss []stored) (*view, error) {
	for i := range ss {
		if r.knows(v, ss[i].at) {
			continue
		}
		if v.number <= before {
			var err error
			if v, err = r.look(ctx, before); err != nil {
				return nil, err
			}
		}
		if v.find(ss[i].at) == nil {
			r.dead.add(ss[i].at.life)
		}
	}
	return v, nil
}

// knows reports whether the view tells whether sessions of that life count.
func (r *Register) knows(v *view, at place) bool { return v.find(at) != nil || r.dead.has(at.life) }
