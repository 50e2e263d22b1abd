package redis

import (
	"slices"
	"time"

	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/saver"
)

// part is what of a publication, or of a recall, is done in one step: entries in slots of one shard, and the record of them.
type part struct {
	// Static.
	tag      redisdb.Tag
	shard    push.Shard
	chunk    int
	limits   push.Limits
	everyone bool           // the shard's common slot; otherwise targets
	filter   *push.Filter   // with everyone
	targets  []saver.Target // of this shard
	at       []int          // where each target, or the common slot, stands in the whole
	inline   bool           // the entries hold the body
	marked   bool           // it may be tried again under this id: the record has to be looked for
	only     bool           // it is all of the publication: the record says everything
	recall   bool           // takes the message back
	accepted bool           // somebody was told that it will be done: it goes on when memory is short
	when     push.MilliTime // of a recall of more than this; 0: now

	batch *saver.Batch // of a task; see batch.go

	message *push.Message      // stamped
	stamp   *saver.Publication // not stamped yet: at each attempt

	// The outcome.
	found  bool         // it was done before
	places []push.Place // by target
	rooms  [][]push.RoomID
	record *record
	raw    any           // the record as it was read
	stored *push.Message // as stored
	answer redisdb.Answer
	err    error

	// Of a batch, as read: its token in the shard, and the record.
	fence    saver.StoredFence
	fenceRaw any
	was      *saver.StoredBatch
	absent   bool // there is nothing to take back

	// The record's key and field, of the message of that id.
	named       push.MsgID
	recordKey   string
	recordField string

	// Room for what a part of one slot needs, so that it is one piece of memory with the part.
	placeRoom  [1]push.Place
	namesRoom  [1][]push.RoomID
	recordRoom [96]byte
	recordAs   []byte
	recordArgs [2]any
}

// name makes the key and the field of the record.
func (p *part) name() {
	if id := p.id(); p.named != id || p.recordKey == "" {
		p.named, p.recordKey, p.recordField = id, recordKey(p.tag, id), recordField(id, p.chunk)
	}
}

// slots returns how many slots it appends to.
func (p *part) slots() int { return max(len(p.targets), 1) }

func (p *part) slotKeys(i int) slotKeys {
	if p.everyone {
		return slotKeys{tag: p.tag, kind: push.Common}
	}
	return slotKeys{tag: p.tag, kind: push.Own, user: p.targets[i].User}
}

func (p *part) filterOf(i int) *push.Filter {
	if p.everyone {
		return p.filter
	}
	return p.targets[i].Filter
}

// opSlots is how many slots one step touches at most, unless one part touches more.
const opSlots = 64

// partsOp does parts of one shard, in order, in one step.
type partsOp struct {
	s     *Store
	tag   redisdb.Tag
	parts []*part

	slots   []*slot
	where   [][]int // by part: the slots of its targets
	indexes []indexAsked
	r       redisdb.Read
	w       redisdb.Write
	reading bool    // the next decide gets the first read of an attempt
	guessed bool    // that read was answered by a guess
	more    []*slot // those that asked for more
	rooms   []roomsAsked
	lives   []livesAsked

	// Owned by opsOf.
	round, size int

	many []slot // room for the slots behind the first; there may be none

	few fewRoom
}

// fewRoom is room for what an op needs that does one part to one slot, as most do, so that it is one piece of memory with the op.
type fewRoom struct {
	slot    slot
	slots   [1]*slot
	parts   [1]*part
	where   [1][]int
	index   [1]int
	read    [2]redisdb.Command
	replies [2]any
	ifs     [2]redisdb.Condition
	do      [5]redisdb.Command
	written [5]any
	rooms   [1]roomsAsked
}

// beginPartsOp begins an op in the room that is there.
func (s *Store) beginPartsOp(o *partsOp, t redisdb.Tag) {
	o.s, o.tag = s, t
	f := &o.few
	o.parts, o.slots, o.rooms = f.parts[:0], f.slots[:0], f.rooms[:0]
	o.r.Do, o.w.If, o.w.Do = f.read[:0], f.ifs[:0], f.do[:0]
}

// indexAsked is a collapse identity that was read; roomsAsked a command whose reply names rooms; livesAsked a hash that was
// made to live longer.
type (
	indexAsked struct {
		slot *slot
		id   saver.CollapseID
	}
	roomsAsked struct {
		command int
		part    *part
		target  int
		how     roomsHow
	}
	livesAsked struct {
		key   string
		lives time.Duration
	}
	roomsHow uint8
)

const (
	roomsNamed    roomsHow = iota // names
	roomsSessions                 // a user's sessions
	roomsCounted                  // fields of the hash of rooms, and their counts
)

// opsAtOnce is how many ops lie in one piece of memory.
const opsAtOnce = 8

// opsOf groups parts into ops by rounds: those of a later round wait for those of the earlier ones. The ops lie in the room that is there, which
// holds no others.
func (s *Store) opsOf(parts []*part, room []partsOp) (rounds [][]op) {
	last := make(map[redisdb.Tag]*partsOp, len(parts))
	for i, p := range parts {
		o := last[p.tag]
		if o == nil || o.size+p.slots() > opSlots {
			round := 0
			if o != nil {
				round = o.round + 1
			}
			if len(room) == 0 {
				room = make([]partsOp, min(len(parts)-i, opsAtOnce))
			}
			o, room = &room[0], room[1:]
			s.beginPartsOp(o, p.tag)
			o.round = round
			last[p.tag] = o
			if round == len(rounds) {
				rounds = append(rounds, make([]op, 0, min(len(parts)-i, runMost)))
			}
			rounds[round] = append(rounds[round], o)
		}
		o.parts = append(o.parts, p)
		o.size += p.slots()
	}
	return rounds
}

// ask reads the states of the slots, what may be collapsed in them, and the records.
func (o *partsOp) ask() *redisdb.Read {
	o.judge(false) // or else there would be no other attempt
	if o.where == nil {
		o.gather()
	}
	do := o.r.Do[:0]
	for _, sl := range o.slots {
		do = append(do, redisdb.Command{Name: "HGET", Key: sl.state(), Args: askState})
	}
	for i := range o.indexes {
		x := &o.indexes[i]
		do = append(do, redisdb.Command{Name: "HGET", Key: x.slot.keys.collapse(), Args: []any{string(x.id[:])}})
	}
	for _, p := range o.parts {
		switch {
		case p.batch != nil:
			do = append(do, p.askBatch())
		case p.marked:
			p.name()
			do = append(do, redisdb.Command{Name: "HGET", Key: p.recordKey, Args: []any{&p.recordField}})
		}
	}
	o.r = redisdb.Read{Tag: o.tag, Do: do, Replies: o.few.replies[:0]}
	o.reading, o.more = true, nil
	return &o.r
}

func (p *part) id() push.MsgID {
	if p.message != nil {
		return p.message.ID
	}
	return p.stamp.Message.ID
}

// collapseKey returns the collapse key of the message, empty for a recall.
func (p *part) collapseKey() string {
	switch {
	case p.recall:
		return ""
	case p.message != nil:
		return p.message.CollapseKey
	}
	return p.stamp.Message.CollapseKey
}

// gather finds out which slots there are.
func (o *partsOp) gather() {
	o.where = o.few.where[:]
	if len(o.parts) > 1 {
		o.where = make([][]int, len(o.parts))
	}
	for i, p := range o.parts {
		n := p.slots()
		if o.where[i] = o.few.index[:]; n > 1 || i > 0 {
			o.where[i] = make([]int, n)
		}
		for j := range n {
			k := p.slotKeys(j)
			at := -1
			if p.batch == nil { // a batch has each user once, and its op for itself
				at = slices.IndexFunc(o.slots, func(sl *slot) bool { return sl.keys == k })
			}
			if at < 0 {
				sl := &o.few.slot
				switch at = len(o.slots); {
				case at > 0 && at <= len(o.many):
					sl = &o.many[at-1]
				case at > 0:
					sl = new(slot)
				}
				o.s.beginSlot(sl, k)
				o.slots = append(o.slots, sl)
			}
			o.where[i][j] = at
			if id, ok := saver.CollapseOf(p.collapseKey(), p.filterOf(j)); ok {
				o.indexes = append(o.indexes, indexAsked{o.slots[at], id})
			}
		}
	}
}

// took takes the replies to a read.
func (o *partsOp) took() error {
	replies := o.r.Replies
	if !o.reading {
		ok := true
		for _, sl := range o.more {
			var same bool
			if replies, same = sl.loaded(replies); !same {
				ok = false
			}
		}
		if !ok {
			return errChanged
		}
		return nil
	}
	o.reading = false
	for i, sl := range o.slots {
		if err := sl.read(replies[i]); err != nil {
			return err
		}
	}
	replies = replies[len(o.slots):]
	for i := range o.indexes {
		x := &o.indexes[i]
		if x.slot.seen == nil {
			x.slot.seen = make(map[saver.CollapseID]any)
		}
		x.slot.seen[x.id] = replies[i]
	}
	replies = replies[len(o.indexes):]
	for _, p := range o.parts {
		p.record, p.raw = nil, nil
		if p.batch != nil {
			if err := p.tookBatch(replies[0]); err != nil {
				return err
			}
			replies = replies[1:]
		} else if p.marked {
			if p.raw = replies[0]; p.raw != nil {
				var err error
				if p.record, err = decodeRecord(p.id(), replies[0]); err != nil {
					return err
				}
			}
			replies = replies[1:]
		}
	}
	return nil
}

// decide implements op.
func (o *partsOp) decide() (*redisdb.Write, *redisdb.Read, error) {
	if err := o.took(); err != nil {
		return nil, nil, err
	}
	a := o.r.Answer
	for _, sl := range o.slots {
		sl.begin()
	}
	for i, p := range o.parts {
		if err := o.apply(p, o.where[i], a); err != nil {
			return nil, nil, err
		}
	}
	for _, sl := range o.slots {
		if !sl.missing() {
			sl.tidy()
		}
		if sl.err != nil {
			return nil, nil, sl.err
		}
	}
	if more := o.missing(); more != nil {
		return nil, more, nil
	}
	return o.writing(a), nil, nil
}

// missing returns what reads what slots miss.
func (o *partsOp) missing() *redisdb.Read {
	o.more = o.more[:0]
	var do []redisdb.Command
	for _, sl := range o.slots {
		if sl.missing() {
			do, o.more = sl.load(do), append(o.more, sl)
		}
	}
	if do == nil {
		return nil
	}
	a := o.r.Answer // the attempt goes on under the lineage it began with
	o.r = redisdb.Read{Tag: o.tag, Do: do, Answer: a}
	return &o.r
}

// apply does one part to the slots.
func (o *partsOp) apply(p *part, where []int, a redisdb.Answer) error {
	p.found, p.placeRoom[0], p.namesRoom[0] = false, push.Place{}, nil
	if p.places, p.rooms = p.placeRoom[:], p.namesRoom[:]; len(where) > 1 {
		p.places, p.rooms = make([]push.Place, len(where)), make([][]push.RoomID, len(where))
	}
	if p.batch != nil {
		return o.applyBatch(p, where, a)
	}
	if p.recall {
		return o.takeBack(p, where, a)
	}
	if p.record != nil {
		if len(p.record.places) != len(where) {
			return corrupt("a message's record")
		}
		p.found = true
		copy(p.places, p.record.places)
		p.stored = p.message
		return nil
	}
	p.stored = p.message
	if p.stamp != nil {
		p.stored = saver.Stamp(p.stamp, a.Now)
	}
	o.append(p, where, a)
	return nil
}

// append appends the entries of the message.
func (o *partsOp) append(p *part, where []int, a redisdb.Answer) {
	m := p.stored
	e := saver.Stored{Kind: saver.EntryMessage, ID: m.ID, Expires: m.Expires, Size: m.Size(), CollapseKey: m.CollapseKey}
	if p.inline {
		e.Message = m
	}
	var bodies [][]byte
	if p.batch != nil && len(p.batch.Bodies) > 0 {
		bodies = p.batch.Bodies
		own := *m
		m, e.Message = &own, &own
	}
	for i, n := range where {
		sl := o.slots[n]
		if sl.Epoch == 0 {
			sl.make(o.s.epoch(), a.Lineage, a.Now)
		}
		if bodies != nil {
			m.Body = bodies[i]
			e.Size = m.Size()
		}
		e.Filter = p.filterOf(i)
		p.places[i] = sl.append(&e, a.Lineage, a.Now, p.limits)
	}
}

// takeBack makes holes of the message's entries and appends those that say so.
func (o *partsOp) takeBack(p *part, where []int, a redisdb.Answer) error {
	switch {
	case p.record == nil:
		return saver.ErrNoMessage()
	case len(p.record.places) != len(where):
		return corrupt("a message's record")
	case p.record.recalled != 0:
		p.found = true
		copy(p.places, p.record.recalls)
		return nil
	}
	o.appendRecalls(p, where, p.record.places, a)
	return nil
}

// appendRecalls makes holes of the entries at places, and appends those that say so.
func (o *partsOp) appendRecalls(p *part, where []int, places []push.Place, a redisdb.Answer) {
	e := saver.Stored{
		Kind: saver.EntryRecall, ID: p.message.ID, Expires: saver.RecallExpires(p.message, a.Now), Size: saver.RecallSize,
	}
	for i, n := range where {
		sl := o.slots[n]
		was := places[i]
		if sl.Epoch == was.Epoch {
			if old, ok := sl.find(was.Pos); ok && old.message == p.message.ID {
				sl.lose(old)
				sl.Removed(old.Weight)
			}
		}
		sl.make(o.s.epoch(), a.Lineage, a.Now)
		e.Filter = p.filterOf(i)
		p.places[i] = sl.append(&e, a.Lineage, a.Now, p.limits)
	}
}

// writing returns the write that makes it so.
func (o *partsOp) writing(a redisdb.Answer) *redisdb.Write {
	o.w = redisdb.Write{Tag: o.tag, Under: a.Lineage, If: o.w.If[:0], Do: o.w.Do[:0], Frees: true, Replies: o.few.written[:0]}
	w := &o.w
	o.rooms, o.lives = o.rooms[:0], o.lives[:0]
	for _, sl := range o.slots {
		if sl.changed {
			w.If = append(w.If, sl.condition())
			w.Do = sl.commands(w.Do)
		}
	}
	for i, p := range o.parts {
		w.Frees = w.Frees && p.accepted
		if p.batch != nil {
			if o.writeBatch(p, a); p.absent {
				continue
			}
		} else {
			o.writeRecord(p, a)
		}
		for j, n := range o.where[i] {
			o.tell(p, j, o.slots[n])
		}
	}
	return w
}

// writeRecord writes the record of a part, on the condition that it still is what was read. One that was done before is written as it
// was: nobody is told that it is stored before it is confirmed that it is, also if somebody else wrote it.
func (o *partsOp) writeRecord(p *part, a redisdb.Answer) {
	w := &o.w
	p.name()
	key := p.recordKey
	next := record{places: p.places}
	var one single
	m := p.stored
	switch {
	case p.found:
		next = *p.record
	case p.recall:
		m = p.message
		next = *p.record
		next.recalls = p.places
		if next.recalled = p.when; next.recalled == 0 {
			next.recalled = a.Now
		}
	case p.only:
		one = single{message: m, target: p.targets[0]} // of which the body is not written
		next.single = &one
	}
	if p.raw != nil {
		// Where there was none, nobody can have made one since: that would have changed the slots, whose states were read before it.
		w.If = append(w.If, redisdb.IfField(key, p.recordField, p.raw))
	}
	p.recordAs = appendRecord(p.recordRoom[:0], &next)
	p.recordArgs = [2]any{&p.recordField, &p.recordAs}
	w.Do = append(w.Do, redisdb.Command{Name: "HSET", Key: key, Args: p.recordArgs[:]})
	if p.found || p.recall {
		return
	}
	until := m.Expires.Add(saver.RecordKept)
	if p.marked {
		until = max(until, m.Created.Add(p.limits.WithDefaults().KeyTTL))
	}
	if lives := o.s.lasting.due(o.tag, key, a, until); lives > 0 {
		w.Do = append(w.Do, redisdb.Command{Name: "PEXPIRE", Key: key, Args: []any{lives.Milliseconds()}})
		o.lives = append(o.lives, livesAsked{key, lives})
	}
}

// tell tells the rooms of an append, or asks which they are if it was done before.
func (o *partsOp) tell(p *part, i int, sl *slot) {
	w := &o.w
	how := roomsNamed
	switch {
	case p.everyone:
		how = roomsCounted
		w.Do = append(w.Do, redisdb.Command{Name: "HGETALL", Key: o.tag.Key(kindRooms, ""), Tell: true})
	case p.found:
		how = roomsSessions
		w.Do = append(w.Do, redisdb.Command{Name: "HGET", Key: o.tag.SessionsKey(), Args: []any{string(p.targets[i].User)}, Tell: true})
	default:
		var room [320]byte
		change := appendChange(room[:0], saver.Change{User: p.targets[i].User, Place: p.places[i]})
		w.Do = append(w.Do, o.tag.Announce(p.targets[i].User, change))
	}
	o.rooms = append(o.rooms, roomsAsked{len(w.Do) - 1, p, i, how})
}

// wrote implements op.
func (o *partsOp) wrote(w *redisdb.Write) {
	o.judge(true)
	for _, sl := range o.slots {
		if o.parts[0].batch != nil {
			o.s.guesses.forget(sl)
		} else {
			o.s.guesses.note(sl)
		}
	}
	for _, q := range o.rooms {
		q.part.rooms[q.target] = roomsOf(w.Replies[q.command], q.how)
	}
	for _, l := range o.lives {
		o.s.lasting.note(o.tag, l.key, w.Answer, l.lives)
	}
	for _, p := range o.parts {
		p.answer = w.Answer
	}
}

// fail implements op.
func (o *partsOp) fail(err error) {
	for _, p := range o.parts {
		p.err = err
	}
}

// roomsOf reads the names of rooms out of a reply, each once, sorted; nil if there are none.
func roomsOf(reply any, how roomsHow) (rooms []push.RoomID) {
	list := texts(reply)
	if sessions, ok := reply.(string); ok && how == roomsSessions {
		redisdb.EachSession(sessions, func(room push.RoomID, _ push.DeviceID, _ string) { rooms = append(rooms, room) })
	}
	for i, v := range list {
		switch {
		case how == roomsNamed:
			rooms = append(rooms, push.RoomID(v))
		case how == roomsCounted && (i%2 == 1 || i+1 == len(list) || !isPositive(list[i+1])):
		case v != "" && len(v) > int(v[0]):
			rooms = append(rooms, push.RoomID(v[1:1+int(v[0])]))
		}
	}
	if len(rooms) > 1 {
		slices.Sort(rooms)
		rooms = slices.Compact(rooms)
	}
	return rooms
}

// isPositive reports whether a decimal number is above zero.
func isPositive(s string) bool { return s != "" && s != "0" && s[0] != '-' }

// appendChange appends a change as it lies in the logs of rooms: epoch and lineage (8 bytes each), position, and the user.
func appendChange(dst []byte, c saver.Change) []byte {
	return append(appendPlace(dst, c.Place), c.User...)
}

// decodeChange reads what appendChange wrote.
func decodeChange(v string) (saver.Change, error) {
	r := reader{v: v}
	c := saver.Change{Place: r.place()}
	c.User, r.v = push.UserID(r.v), ""
	return c, r.end("a change")
}
