package savertest

import (
	"maps"
	"slices"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
)

// model is what a store has to do, written so that it is easily believed: slots are short lists that are walked every
// time, nothing is counted or indexed. It shares push.SlotState.Resolve with every store, and no code of saver.
type model struct {
	limits  push.Limits
	lineage push.Lineage // of the store; does not fall back
	now     push.MilliTime

	slots   map[slotName]modelSlot
	devices map[push.UserID][]modelDevice // by id
	keys    map[saver.IdempotencyKey]modelKey
	records map[push.MsgID]modelRecord
	tasks   map[push.MsgID]modelTask
}

// slotName names an own slot by its user, a common slot by its shard.
type slotName struct {
	user  push.UserID
	shard push.Shard
}

func nameOf(u push.UserID, k push.SlotKind) slotName {
	if k == push.Common {
		return slotName{shard: ref(u).Shard().Shard}
	}
	return slotName{user: u}
}

func (n slotName) kind() push.SlotKind {
	if n.user == "" {
		return push.Common
	}
	return push.Own
}

// modelSlot is a value: what is changed is a copy. An epoch of 0 is not known yet: the store chooses it.
type modelSlot struct {
	state   push.SlotState
	entries []modelEntry
	owed    []push.MsgID // messages not yet excused: not expired, recalled, collapsed, dropped or lost
	history []modelEntry // every message there ever was
}

type modelEntry struct {
	pos     push.Position
	kind    saver.EntryKind
	id      push.MsgID
	expires push.MilliTime
	size    int
	filter  *push.Filter
	key     string
}

type modelDevice struct {
	id      push.DeviceID
	seen    push.MilliTime
	cursors push.Cursor
	missed  []push.MsgID // freed, or not meant for it any more, when this device first came
}

type modelKey struct {
	digest saver.Digest
	m      push.Message
	until  push.MilliTime
}

type modelRecord struct {
	m        push.Message
	slots    []slotName
	filters  []*push.Filter
	recalled bool
}

func newModel(l push.Limits) *model {
	return &model{
		limits: l, slots: make(map[slotName]modelSlot), devices: make(map[push.UserID][]modelDevice),
		keys: make(map[saver.IdempotencyKey]modelKey), records: make(map[push.MsgID]modelRecord),
		tasks: make(map[push.MsgID]modelTask),
	}
}

// clone returns a copy; values in maps are replaced, never written into.
func (m *model) clone() *model {
	c := *m
	c.slots, c.devices = maps.Clone(m.slots), maps.Clone(m.devices)
	c.keys, c.records, c.tasks = maps.Clone(m.keys), maps.Clone(m.records), maps.Clone(m.tasks)
	return &c
}

// slot returns a slot and makes it if need be.
func (m *model) slot(n slotName) modelSlot {
	s, ok := m.slots[n]
	if !ok {
		origin := push.FirstPosition(m.now)
		s.state = push.SlotState{Origin: origin, Head: origin, Notes: []push.Note{{Lineage: m.lineage, Start: origin, At: m.now}}}
		m.slots[n] = s
	}
	return s
}

// append adds an entry and lets go what it collapses and what the limits demand; it returns the entry's place.
func (m *model) append(n slotName, e modelEntry) push.Place {
	s := m.slot(n)
	if s.state.Lineage() != m.lineage {
		s.state.Notes = append(slices.Clone(s.state.Notes), push.Note{Lineage: m.lineage, Start: s.state.Head, At: m.now})
	}
	s.state.Head++
	e.pos = s.state.Head
	s.entries = slices.Clone(s.entries)
	if e.key != "" {
		s = s.without(func(o modelEntry) bool { return o.key == e.key && o.filter.Equal(e.filter) })
	}
	s.entries = append(s.entries, e)
	if e.kind == saver.EntryMessage {
		s.owed = append(slices.Clone(s.owed), e.id)
		s.history = append(slices.Clone(s.history), e)
	}
	if m.over(n, s) {
		s = s.without(func(o modelEntry) bool { return o.expires <= m.now })
	}
	for m.over(n, s) {
		oldest := s.entries[0]
		s.state.Floor = max(s.state.Floor, oldest.pos)
		s = s.without(func(o modelEntry) bool { return o.pos == oldest.pos })
	}
	m.slots[n] = s
	return saver.HeadOf(&s.state)
}

// without returns the slot with some entries made holes and excused.
func (s modelSlot) without(gone func(modelEntry) bool) modelSlot {
	owed := slices.Clone(s.owed)
	s.entries = slices.DeleteFunc(slices.Clone(s.entries), func(e modelEntry) bool {
		if !gone(e) {
			return false
		}
		owed = slices.DeleteFunc(owed, func(id push.MsgID) bool { return id == e.id })
		return true
	})
	s.owed = owed
	return s
}

func (m *model) over(n slotName, s modelSlot) bool {
	most, mostBytes := m.limits.OwnMessages, m.limits.OwnBytes
	if n.kind() == push.Common {
		most, mostBytes = m.limits.CommonMessages, m.limits.CommonBytes
	}
	bytes := 0
	for _, e := range s.entries {
		bytes += e.size
	}
	return len(s.entries) > 1 && (len(s.entries) > most || bytes > mostBytes)
}

// live returns what a read after a position finds.
func (m *model) live(n slotName, after push.Position) []modelEntry {
	var out []modelEntry
	for _, e := range m.slots[n].entries {
		if e.pos > after && e.expires > m.now {
			out = append(out, e)
		}
	}
	return out
}

// publish stores a message in slots and returns the places.
func (m *model) publish(msg push.Message, slots []slotName, filters []*push.Filter) []push.Place {
	places := make([]push.Place, len(slots))
	for i, n := range slots {
		places[i] = m.append(n, entryOf(&msg, filters[i]))
	}
	m.records[msg.ID] = modelRecord{m: msg, slots: slots, filters: filters}
	return places
}

// recall takes a message back; first is false if that was done before, and no places are told then.
func (m *model) recall(id push.MsgID) (places []push.Place, first, ok bool) {
	r, ok := m.records[id]
	if !ok || r.m.Expires.Add(time.Hour) <= m.now {
		return nil, false, false
	}
	if r.recalled {
		return nil, false, true
	}
	for i, n := range r.slots {
		places = append(places, m.recallIn(n, &r.m, r.filters[i]))
	}
	r.recalled = true
	m.records[id] = r
	return places, true, true
}

// entryOf returns the entry of a message.
func entryOf(m *push.Message, f *push.Filter) modelEntry {
	return modelEntry{id: m.ID, expires: m.Expires, size: m.Size(), filter: f, key: m.CollapseKey}
}

// recallIn takes a message back in one slot.
func (m *model) recallIn(n slotName, msg *push.Message, f *push.Filter) push.Place {
	s := m.slot(n).without(func(e modelEntry) bool { return e.id == msg.ID })
	s.owed = slices.DeleteFunc(slices.Clone(s.owed), func(o push.MsgID) bool { return o == msg.ID })
	m.slots[n] = s
	return m.append(n, modelEntry{kind: saver.EntryRecall, id: msg.ID, expires: max(msg.Expires, m.now.Add(time.Hour)), size: 64, filter: f})
}

// modelStart is where a device begins.
type modelStart struct {
	at  push.Place
	how saver.How
}

// open opens a device; nothing is changed if ok is false: all devices are online.
func (m *model) open(
	u push.UserID, d push.DeviceID, presented *push.Cursor, online []push.DeviceID,
) (starts [2]modelStart, forgotten []push.DeviceID, isNew, ok bool) {
	ds := slices.Clone(m.devices[u])
	i := slices.IndexFunc(ds, func(v modelDevice) bool { return v.id == d })
	for k := range push.SlotKind(2) {
		m.slot(nameOf(u, k))
	}
	if i < 0 {
		for len(ds)+1 > m.limits.DevicesPerUser {
			o := -1
			for j, v := range ds {
				if !slices.Contains(online, v.id) && (o < 0 || v.seen < ds[o].seen) {
					o = j
				}
			}
			if o < 0 {
				return starts, nil, true, false
			}
			forgotten = append(forgotten, ds[o].id)
			ds = slices.Delete(ds, o, o+1)
		}
		isNew = true
	}
	first := len(ds) == 0
	v := modelDevice{id: d, missed: m.slot(nameOf(u, push.Own)).owed}
	if !isNew {
		v = ds[i]
		ds = slices.Delete(ds, i, i+1)
	}
	for k := range push.SlotKind(2) {
		s := m.slot(nameOf(u, k)).state
		from := v.cursors[k]
		if presented != nil && !presented[k].IsZero() {
			from = presented[k]
		}
		at, known := s.Resolve(from)
		how := saver.Resumed
		switch {
		case !from.IsZero() && !known:
			how = saver.Reset
		case from.IsZero() && k == push.Own && first:
			how = saver.Beginning // Resolve said the origin
		case from.IsZero():
			how, at = saver.AtHead, saver.HeadOf(&s)
		}
		if isNew {
			v.cursors[k] = at
		}
		if isNew && k == push.Own {
			v.missed = slices.Clone(v.missed)
			for _, e := range m.slots[nameOf(u, k)].entries {
				if e.pos > at.Pos {
					v.missed = slices.DeleteFunc(v.missed, func(id push.MsgID) bool { return id == e.id })
				}
			}
		}
		starts[k] = modelStart{at, how}
	}
	v.seen = max(v.seen, m.now)
	ds = append(ds, v)
	slices.SortFunc(ds, func(a, b modelDevice) int { return slices.Compare([]byte(a.id), []byte(b.id)) })
	m.devices[u] = ds
	if len(forgotten) > 0 {
		m.free(u)
	}
	return starts, forgotten, isNew, true
}

// stored returns where a device's cursors stand, as the slots are now; the zero Place for one of which nothing is known.
func (m *model) stored(u push.UserID, d push.DeviceID) (out push.Cursor) {
	for _, v := range m.devices[u] {
		for k, p := range v.cursors {
			s := m.slots[nameOf(u, push.SlotKind(k))].state
			if at, known := s.Resolve(p); v.id == d && known && s.Epoch != 0 {
				out[k] = at
			}
		}
	}
	return out
}

// ack moves cursors, and frees only if an own one moved: a device that began further on acknowledged nothing yet.
func (m *model) ack(u push.UserID, d push.DeviceID, places push.Cursor) {
	ds := slices.Clone(m.devices[u])
	i := slices.IndexFunc(ds, func(v modelDevice) bool { return v.id == d })
	if i < 0 {
		return
	}
	moved := false
	for k, p := range places {
		s, ok := m.slots[nameOf(u, push.SlotKind(k))]
		to, known := s.state.Resolve(p)
		if !ok || p.IsZero() || !known {
			continue
		}
		if at, known := s.state.Resolve(ds[i].cursors[k]); !known || to.Pos > at.Pos {
			ds[i].cursors[k] = to
			moved = moved || k == int(push.Own)
		}
	}
	m.devices[u] = ds
	if moved {
		m.free(u)
	}
}

// deleteDevice forgets a device.
func (m *model) deleteDevice(u push.UserID, d push.DeviceID) bool {
	ds := slices.DeleteFunc(slices.Clone(m.devices[u]), func(v modelDevice) bool { return v.id == d })
	had := len(ds) < len(m.devices[u])
	m.devices[u] = ds
	if had {
		m.free(u)
	}
	return had
}

// free makes holes of what every device of a user has acknowledged; messages stay owed, so that it shows if one did not.
func (m *model) free(u push.UserID) {
	n := nameOf(u, push.Own)
	s, ok := m.slots[n]
	if !ok || len(m.devices[u]) == 0 {
		return
	}
	upTo := s.state.Head
	for _, v := range m.devices[u] {
		at, _ := s.state.Resolve(v.cursors[push.Own])
		upTo = min(upTo, at.Pos)
	}
	for _, n := range s.state.Notes[1:] {
		if m.now < n.At.Add(saver.ReopenWithin) { // somebody may have been forgotten who is to come again
			upTo = min(upTo, n.Start)
		}
	}
	s.entries = slices.DeleteFunc(slices.Clone(s.entries), func(e modelEntry) bool { return e.pos <= upTo })
	m.slots[n] = s
}
