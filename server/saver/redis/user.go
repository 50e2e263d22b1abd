package redis

import (
	"cmp"
	"slices"
	"strings"

	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/saver"
)

// device is one of a user's devices during an attempt.
type device struct {
	saver.Device
	was     string // as read; empty: it is new
	changed bool
	gone    bool
}

// userOp does something to one user: to devices, own slot and tags. What it is for is in act, which works on the fields below its
// comment as if they were all there is; the rest writes the difference.
type userOp struct {
	// Static.
	s     *Store
	user  push.UserID
	tag   redisdb.Tag
	with  userParts
	act   func(o *userOp, a redisdb.Answer) error
	lax   bool // the write may be lost in a failover, whatever it is
	frees bool // it goes on when memory is short

	// For act: what an attempt makes of it. Devices are sorted by id, those gone among them.
	own       *slot
	common    *slot
	devices   []device
	tags      *saver.UserTags
	strict    bool            // it must not be lost
	all       bool            // it relies on every device
	askOnline bool            // set by act, which is called again with online
	online    []push.DeviceID // nil: not asked
	seenToday bool            // a device of the shard was seen

	// As read.
	asRead  []device
	tagsWas any
	tagsGot *saver.UserTags
	seenWas any
	reading int // what the next decide gets

	r   redisdb.Read
	w   redisdb.Write
	a   redisdb.Answer
	err error
}

// userParts says what is read besides the own slot's state and the devices.
type userParts struct {
	common bool
	tags   bool
}

// What a read of a userOp brings.
const (
	readUser = iota
	readLoad
	readOnline
)

func (s *Store) newUserOp(k slotKeys, with userParts, act func(*userOp, redisdb.Answer) error) *userOp {
	o := &userOp{s: s, tag: k.tag, user: k.user, with: with, act: act}
	o.own = s.newSlot(k)
	o.common = s.newSlot(slotKeys{tag: k.tag, kind: push.Common})
	return o
}

func (o *userOp) tagsKey() string { return o.tag.Key(kindTags, string(o.user)) }

func (o *userOp) ask() *redisdb.Read {
	do := append(o.r.Do[:0], redisdb.Command{Name: "HGETALL", Key: o.own.state()})
	if o.with.common {
		do = append(do, redisdb.Command{Name: "HMGET", Key: o.common.state(), Args: []any{fieldState, fieldSeen}})
	}
	if o.with.tags {
		do = append(do, redisdb.Command{Name: "GET", Key: o.tagsKey()})
	}
	o.r = redisdb.Read{Tag: o.tag, Do: do}
	o.reading, o.online = readUser, nil
	return &o.r
}

// took takes the replies to a read.
func (o *userOp) took() error {
	replies := o.r.Replies
	switch o.reading {
	case readLoad:
		if _, ok := o.own.loaded(replies); !ok {
			return errChanged
		}
		return nil
	case readOnline:
		o.online = []push.DeviceID{}
		sessions, _ := replies[0].(string)
		redisdb.EachSession(sessions, func(_ push.RoomID, d push.DeviceID, _ string) { o.online = append(o.online, d) })
		return nil
	}
	state, devices, err := userOf(replies[0])
	if err != nil {
		return err
	}
	o.asRead = devices
	if o.own.keys.kind == push.Common { // a sweep: the hash is that of a common slot
		o.seenWas = fieldOf(replies[0], fieldSeen)
	}
	if err := o.own.read(state); err != nil {
		return err
	}
	replies = replies[1:]
	if o.with.common {
		both, _ := replies[0].([]any)
		if len(both) != 2 {
			return corrupt("a common slot")
		}
		if err := o.common.read(both[0]); err != nil {
			return err
		}
		o.seenWas, replies = both[1], replies[1:]
	}
	if o.with.tags {
		if o.tagsWas = replies[0]; o.tagsWas != nil {
			if o.tagsGot, err = decodeTags(o.tagsWas); err != nil {
				return err
			}
		} else {
			o.tagsGot = nil
		}
	}
	return nil
}

// userOf reads the hash of a user: the own slot's state, and the devices by id.
func userOf(reply any) (state any, devices []device, err error) {
	pairs, _ := reply.([]any)
	for i := 0; i+1 < len(pairs); i += 2 {
		field, _ := pairs[i].(string)
		v, _ := pairs[i+1].(string)
		switch {
		case field == fieldState:
			state = v
		case strings.HasPrefix(field, fieldDevice):
			d, err := saver.DecodeDevice([]byte(v))
			if err != nil {
				return nil, nil, err
			}
			devices = append(devices, device{Device: d, was: v})
		}
	}
	slices.SortFunc(devices, func(a, b device) int { return cmp.Compare(a.Device.Device, b.Device.Device) })
	return state, devices, nil
}

// fieldOf returns a field of a hash that was read whole, nil if there is none.
func fieldOf(reply any, field string) any {
	pairs, _ := reply.([]any)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i] == field {
			return pairs[i+1]
		}
	}
	return nil
}

func (o *userOp) decide() (*redisdb.Write, *redisdb.Read, error) {
	if err := o.took(); err != nil {
		return nil, nil, err
	}
	o.a = o.r.Answer
	o.own.begin()
	o.common.begin()
	o.devices = append(o.devices[:0], o.asRead...)
	o.tags, o.strict, o.all, o.askOnline, o.seenToday = o.tagsGot, !o.lax, false, false, false
	if err := o.act(o, o.a); err != nil {
		return nil, nil, err
	}
	if o.askOnline && o.online == nil {
		o.reading = readOnline
		o.r = redisdb.Read{Tag: o.tag, Do: []redisdb.Command{{Name: "HGET", Key: o.tag.SessionsKey(), Args: []any{string(o.user)}}}}
		return nil, &o.r, nil
	}
	if !o.own.missing() {
		o.own.tidy()
	}
	if o.own.err != nil {
		return nil, nil, o.own.err
	}
	if o.own.missing() {
		o.reading = readLoad
		o.r = redisdb.Read{Tag: o.tag, Do: o.own.load(nil)}
		return nil, &o.r, nil
	}
	return o.writing(), nil, nil
}

// writing returns the write that makes it so; nil if nothing changed.
func (o *userOp) writing() *redisdb.Write {
	w := &o.w
	*w = redisdb.Write{Tag: o.tag, Under: o.a.Lineage, If: w.If[:0], Do: w.Do[:0], Lax: !o.strict, Frees: o.frees}
	user := o.own.state()
	var gone []any
	var kept []any
	for i := range o.devices {
		d := &o.devices[i]
		switch {
		case d.gone && d.was != "":
			gone = append(gone, deviceField(d.Device.Device))
		case d.changed:
			kept = append(kept, deviceField(d.Device.Device), saver.AppendDevice(nil, &d.Device))
		case !o.all:
			continue
		}
		w.If = append(w.If, redisdb.IfField(user, deviceField(d.Device.Device), orNil(d.was)))
	}
	if len(gone) > 0 {
		w.Do = append(w.Do, redisdb.Command{Name: "HDEL", Key: user, Args: gone})
	}
	if len(kept) > 0 {
		w.Do = append(w.Do, redisdb.Command{Name: "HSET", Key: user, Args: kept})
	}
	for _, sl := range []*slot{o.own, o.common} {
		if sl.changed || sl.forgotten {
			w.If = append(w.If, sl.condition())
			w.Do = sl.commands(w.Do)
		}
	}
	if o.tags != o.tagsGot {
		w.If = append(w.If, redisdb.IfValue(o.tagsKey(), o.tagsWas))
		if o.tags == nil {
			w.Do = append(w.Do, redisdb.Command{Name: "DEL", Key: o.tagsKey()})
		} else {
			w.Do = append(w.Do, redisdb.Command{Name: "SET", Key: o.tagsKey(), Args: []any{appendTags(nil, o.tags)}})
		}
		gone, came := saver.Reindexed(o.tagsGot, o.tags)
		for _, tag := range gone {
			w.Do = append(w.Do, redisdb.Command{Name: "SREM", Key: o.tag.Key(kindTagged, string(tag)), Args: []any{string(o.user)}})
		}
		for _, tag := range came {
			w.Do = append(w.Do, redisdb.Command{Name: "SADD", Key: o.tag.Key(kindTagged, string(tag)), Args: []any{string(o.user)}})
		}
	}
	if today := dayOf(o.a.Now); o.seenToday && o.seenWas != today {
		w.Do = append(w.Do, redisdb.Command{Name: "HSET", Key: o.common.state(), Args: []any{fieldSeen, today}})
	}
	if len(w.Do) == 0 {
		return nil
	}
	return w
}

func orNil(v string) any {
	if v == "" {
		return nil
	}
	return v
}

func (o *userOp) wrote(*redisdb.Write) { o.s.guesses.note(o.own) }
func (o *userOp) fail(err error)       { o.err = err }

// find returns where a device lies among devices, or would lie.
func (o *userOp) find(d push.DeviceID) (int, bool) {
	i, ok := slices.BinarySearchFunc(o.devices, d, func(v device, d push.DeviceID) int { return cmp.Compare(v.Device.Device, d) })
	return i, ok && !o.devices[i].gone
}

// present returns the devices that are not gone.
func (o *userOp) present() []saver.Device {
	out := make([]saver.Device, 0, len(o.devices))
	for i := range o.devices {
		if !o.devices[i].gone {
			out = append(out, o.devices[i].Device)
		}
	}
	return out
}

// forget removes a device and its tags. What it held back is freed by the caller.
func (o *userOp) forget(d push.DeviceID) {
	if i, ok := o.find(d); ok {
		o.devices[i].gone = true
		o.tags = o.tags.Forget(d)
		o.membersChanged()
	}
}

// forgetUnseen removes the devices that were not seen for too long, and reports whether there were any.
func (o *userOp) forgetUnseen(now push.MilliTime, l push.Limits) (any bool) {
	for i := range o.devices {
		if d := &o.devices[i]; !d.gone && d.Unseen(now, l) {
			o.forget(d.Device.Device)
			any = true
		}
	}
	return any
}

// membersChanged makes whoever relies on which devices there are begin anew.
func (o *userOp) membersChanged() {
	if o.own.Epoch != 0 {
		o.own.changes++
		o.own.changed = true
	}
}

// free makes holes of what every device has acknowledged.
func (o *userOp) free() {
	o.all = true
	o.own.freeAcknowledged(o.present(), o.a.Now)
}

// dayOf is how the day on which a device was seen is written.
func dayOf(t push.MilliTime) string { return asideField(push.Position(max(t, 0) / 86_400_000)) }

// daysSince returns how many days ago a day was, as it is written; many if there is none.
func daysSince(day any, now push.MilliTime) int64 {
	v, _ := day.(string)
	n, ok := parse36(v)
	if !ok {
		return 1 << 30
	}
	return int64(max(now, 0)/86_400_000) - int64(n)
}
