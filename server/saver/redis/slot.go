package redis

import (
	"cmp"
	"encoding/binary"
	"iter"
	"slices"
	"strconv"

	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/saver"
)

// slot is a slot as it was read, and what an attempt makes of it. An attempt that misses something of the entries says so in need;
// once that is loaded the attempt begins anew, from the state as it was read.
type slot struct {
	// Static after newSlot.
	keys  slotKeys
	slack int // holes, besides as many as there are entries, that the list may have

	stateKey, entriesKey string // made when they are asked for
	hash                 uint64 // the same; see guesses

	// As read. A new first reply of the state drops the rest.
	was    any    // the state: nil or string
	then   packed // the same
	front  []string
	whole  bool                     // front is the whole list
	asides []element                // by position; nil: not loaded
	single map[push.Position]string // elements that were asked for by position; "" is a hole
	seen   map[saver.CollapseID]any // index entries: nil or string

	// What the attempt makes of it.
	packed
	changed bool
	// forgotten says that the state goes: nobody needs the slot any more.
	forgotten bool
	gone      map[push.Position]bool // kept before, or added, and a hole now
	unkeyed   []saver.CollapseID     // index entries that go
	rekeyed   map[saver.CollapseID]push.Position
	added     []element
	toAside   []element // kept entries of the list that are moved
	need      need
	err       error

	// Room for what most attempts need, so that it is one piece of memory with the slot.
	stateRoom [96]byte
	stateAs   []byte
	stateArgs [2]any
	pushRoom  [1]any
	addedRoom [1]element
}

// element is an entry at a position.
type element struct {
	saver.Weight
	bytes   string
	message push.MsgID
	id      saver.CollapseID
	keyed   bool
}

// need says what an attempt misses.
type need struct {
	front int // so many elements of the list, from its beginning
	aside bool
	at    []push.Position
}

// frontFirst is how many elements of a list are looked at first, when the oldest are to go.
const frontFirst = 32

// listSlack is how many holes, besides as many as there are entries, a list may have.
const listSlack = 256

func (s *Store) newSlot(k slotKeys) *slot {
	sl := new(slot)
	s.beginSlot(sl, k)
	return sl
}

func (s *Store) beginSlot(sl *slot, k slotKeys) {
	sl.keys, sl.slack = k, s.slack
	sl.added = sl.addedRoom[:0]
}

// state and entries return the keys of the state and of the list.
func (s *slot) state() string   { s.makeKeys(); return s.stateKey }
func (s *slot) entries() string { s.makeKeys(); return s.entriesKey }

func (s *slot) makeKeys() {
	if s.stateKey == "" {
		s.stateKey, s.entriesKey = s.keys.pair()
	}
}

// read takes the reply for the state, and begins an attempt.
func (s *slot) read(state any) error {
	if s.was = state; state != nil {
		v, ok := state.(string)
		if !ok {
			return corrupt("the state of a slot")
		}
		var err error
		if s.then, err = decodePacked(v); err != nil {
			return err
		}
	} else {
		s.then = packed{}
	}
	s.front, s.whole, s.asides, s.single, s.seen = nil, false, nil, nil, nil
	s.begin()
	return nil
}

// begin begins an attempt with what is loaded.
func (s *slot) begin() {
	s.packed = s.then
	s.changed, s.forgotten, s.gone, s.unkeyed, s.rekeyed, s.added, s.toAside, s.need, s.err = false, false, nil, nil, nil, s.added[:0], nil, need{}, nil
	if s.then.base == s.then.Head {
		s.whole = true
	}
}

// make makes the slot if there is none.
func (s *slot) make(epoch push.SlotEpoch, l push.Lineage, now push.MilliTime) {
	if s.Epoch == 0 {
		s.Slot = saver.NewSlot(epoch, l, now)
		s.base = s.Head
		s.then.base, s.then.Head = s.Head, s.Head // the list is empty
		s.whole, s.changed = true, true
	}
}

// append adds an entry at the head, makes holes of what it collapses and of what the limits demand, and returns its place. What the
// entry may collapse is in seen.
func (s *slot) append(e *saver.Stored, l push.Lineage, now push.MilliTime, limits push.Limits) push.Place {
	at := s.Append(e.Weight(0), l, now, limits)
	s.changed = true
	var room [512]byte
	buf := room[:0]
	if 64+e.Size > len(room) {
		buf = make([]byte, 0, 64+e.Size)
	}
	el := element{Weight: e.Weight(at.Pos), message: e.ID, bytes: string(saver.AppendEntry(buf, e))}
	if el.id, el.keyed = saver.CollapseOf(e.CollapseKey, e.Filter); el.keyed {
		s.collapse(el.id)
		s.keyed++
		if s.rekeyed == nil {
			s.rekeyed = make(map[saver.CollapseID]push.Position)
		}
		s.rekeyed[el.id] = at.Pos
	}
	s.added = append(s.added, el)
	if s.Over(s.keys.kind, limits) {
		s.drop(s.Shed(s.keys.kind, limits, now, s.kept()))
	}
	return at
}

// collapse makes a hole of the entry that has an identity, if there is one.
func (s *slot) collapse(id saver.CollapseID) {
	if pos, ok := s.rekeyed[id]; ok { // of this attempt
		if i, found := slices.BinarySearchFunc(s.added, pos, comparePos); found && !s.gone[pos] {
			s.lose(s.added[i])
			s.Removed(s.added[i].Weight)
		}
		return
	}
	v, ok := s.seen[id].(string)
	if !ok || slices.Contains(s.unkeyed, id) {
		return
	}
	epoch, w, err := decodeIndex(v)
	if err != nil {
		s.err = err
		return
	}
	if epoch == s.Epoch && !s.gone[w.Pos] {
		s.lose(element{Weight: w, id: id, keyed: true})
		s.Removed(w)
	}
}

// lose notes that an entry becomes a hole; it is out of the counts already, or the caller takes it out.
func (s *slot) lose(e element) {
	if s.gone == nil {
		s.gone = make(map[push.Position]bool)
	}
	s.gone[e.Pos] = true
	s.changed = true
	if e.keyed {
		s.keyed--
		if s.rekeyed[e.id] == e.Pos {
			delete(s.rekeyed, e.id)
		}
		if e.Pos <= s.then.Head {
			s.unkeyed = append(s.unkeyed, e.id)
		}
	}
	if e.Pos <= s.then.base {
		s.aside--
	}
}

// drop makes holes of entries that are out of the counts already.
func (s *slot) drop(ws []saver.Weight) {
	for _, w := range ws {
		e := element{Weight: w}
		if s.keyed > 0 {
			full, ok := s.lookup(w.Pos)
			if !ok {
				s.err = corrupt("an entry that was just there")
				return
			}
			e = full
		}
		s.lose(e)
	}
}

// find returns the kept entry at a position. If it is not loaded, need says so.
func (s *slot) find(pos push.Position) (element, bool) {
	if s.gone[pos] || pos <= s.Freed || pos > s.Head || s.Count == 0 {
		return element{}, false
	}
	return s.lookup(pos)
}

// lookup is find for an entry that may be out of the counts already.
func (s *slot) lookup(pos push.Position) (element, bool) {
	switch {
	case pos > s.then.Head:
		if i, ok := slices.BinarySearchFunc(s.added, pos, comparePos); ok {
			return s.added[i], true
		}
		return element{}, false
	case pos <= s.then.base:
		if s.then.aside == 0 {
			return element{}, false
		}
		if s.asides == nil {
			s.need.aside = true
			return element{}, false
		}
		i, ok := slices.BinarySearchFunc(s.asides, pos, comparePos)
		if !ok {
			return element{}, false
		}
		return s.decoded(pos, s.asides[i].bytes)
	}
	if i := int(pos - s.then.base - 1); i < len(s.front) {
		return s.decoded(pos, s.front[i])
	}
	if v, ok := s.single[pos]; ok {
		return s.decoded(pos, v)
	}
	s.need.at = append(s.need.at, pos)
	return element{}, false
}

// decoded reads an element whole; one that is empty is a hole.
func (s *slot) decoded(pos push.Position, v string) (element, bool) {
	if v == "" {
		return element{}, false
	}
	e, err := saver.DecodeEntry([]byte(v))
	if err != nil {
		s.err = err
		return element{}, false
	}
	el := element{Weight: e.Weight(pos), bytes: v, message: e.ID}
	el.id, el.keyed = saver.CollapseOf(e.CollapseKey, e.Filter)
	return el, true
}

func comparePos(e element, pos push.Position) int { return cmp.Compare(e.Pos, pos) }

// kept walks the kept entries in order. Where something is not loaded, it ends and need says so.
func (s *slot) kept() iter.Seq[saver.Weight] {
	return func(yield func(saver.Weight) bool) {
		if s.then.aside > 0 {
			if s.asides == nil {
				s.need.aside = true
				return
			}
			for i := range s.asides {
				if w := s.asides[i].Weight; !s.gone[w.Pos] && !yield(w) {
					return
				}
			}
		}
		for i, v := range s.front {
			pos := s.then.base + push.Position(i) + 1
			if v == "" || s.gone[pos] {
				continue
			}
			w, err := weigh(pos, v)
			if err != nil {
				s.err = err
				return
			}
			if !yield(w) {
				return
			}
		}
		if !s.whole {
			s.need.front = max(frontFirst, 4*len(s.front))
			return
		}
		for i := range s.added {
			if w := s.added[i].Weight; !s.gone[w.Pos] && !yield(w) {
				return
			}
		}
	}
}

func weigh(pos push.Position, v string) (saver.Weight, error) {
	e, err := saver.PeekEntry([]byte(v[:min(len(v), 40)])) // its head is shorter
	if err != nil {
		return saver.Weight{}, err
	}
	return e.Weight(pos), nil
}

// freeAcknowledged makes holes of what every device has acknowledged.
func (s *slot) freeAcknowledged(devices []saver.Device, now push.MilliTime) {
	if s.Epoch == 0 {
		return
	}
	upTo := saver.Acknowledged(&s.SlotState, devices, now)
	if s.Count > 0 && upTo >= s.Head && len(s.added) == 0 {
		s.clear()
		return
	}
	if freed := s.Freed; s.Count > 0 && upTo > freed {
		s.drop(s.ShedAcknowledged(upTo, s.kept()))
		s.changed = true
	}
}

// clear makes holes of all entries at once, without looking at them.
func (s *slot) clear() {
	s.Count, s.Bytes, s.Expiry, s.Freed = 0, 0, 0, s.Head
	s.keyed, s.aside = 0, 0
	s.changed = true
}

// missing reports whether the attempt has to begin anew once something is loaded.
func (s *slot) missing() bool { return s.need.front > 0 || s.need.aside || len(s.need.at) > 0 }

// tidy moves the beginning of the list over holes, and entries to the side where most of the list is holes. It may need something.
func (s *slot) tidy() {
	if s.Epoch == 0 || !s.changed {
		return
	}
	if s.Count == 0 {
		s.base, s.aside = s.Head, 0
		return
	}
	s.base = max(s.base, s.Freed)
	for s.base < s.Head && s.isHole(s.base+1) {
		s.base++
	}
	if int(s.Head-s.base) <= 2*(s.Count-s.aside)+s.slack {
		return
	}
	// The first half of the list is looked through, a part at a time.
	n := min(int(s.then.Head-s.then.base), 512, int(s.Head-s.base)/2+1)
	if len(s.front) < n && !s.whole {
		s.need.front = n
		return
	}
	for i := range n {
		pos := s.then.base + push.Position(i) + 1
		if pos <= s.base {
			continue
		}
		if v := s.front[i]; v != "" && !s.gone[pos] {
			s.toAside = append(s.toAside, element{Weight: saver.Weight{Pos: pos}, bytes: v})
			s.aside++
		}
		s.base = pos
	}
}

// isHole reports whether a position of the list is known to be a hole.
func (s *slot) isHole(pos push.Position) bool {
	if s.gone[pos] {
		return true
	}
	if pos > s.then.Head {
		return false
	}
	i := int(pos - s.then.base - 1)
	return i >= 0 && i < len(s.front) && s.front[i] == ""
}

// condition is that the slot is still what was read.
func (s *slot) condition() redisdb.Condition {
	return redisdb.IfField(s.state(), fieldState, s.was)
}

// commands appends what makes the attempt so; tidy was called before.
func (s *slot) commands(do []redisdb.Command) []redisdb.Command {
	if s.forgotten {
		do = append(do, redisdb.Command{Name: "HDEL", Key: s.state(), Args: []any{fieldState, fieldSeen}})
		return s.indexCommands(s.asideCommands(s.listCommands(do)))
	}
	s.stateAs = appendPacked(s.stateRoom[:0], &s.packed)
	s.stateArgs = [2]any{fieldState, &s.stateAs}
	do = append(do, redisdb.Command{Name: "HSET", Key: s.state(), Args: s.stateArgs[:]})
	do = s.listCommands(do)
	do = s.asideCommands(do)
	return s.indexCommands(do)
}

func (s *slot) listCommands(do []redisdb.Command) []redisdb.Command {
	entries := s.entries()
	had := s.then.Head > s.then.base
	if had {
		switch {
		case s.base >= s.then.Head:
			do = append(do, redisdb.Command{Name: "DEL", Key: entries})
		case s.base > s.then.base:
			do = append(do, redisdb.Command{Name: "LTRIM", Key: entries, Args: []any{int(s.base - s.then.base), -1}})
		}
		for pos := range s.gone {
			if pos > s.base && pos <= s.then.Head {
				do = append(do, redisdb.Command{Name: "LSET", Key: entries, Args: []any{int(pos - s.base - 1), ""}})
			}
		}
	}
	// RPUSH takes many, but not any number: a function unpacks its arguments onto a stack.
	const most = 1000
	args := s.pushRoom[:0]
	for i := range s.added {
		e := &s.added[i]
		if e.Pos <= s.base {
			continue
		}
		if s.gone[e.Pos] {
			args = append(args, "")
		} else {
			args = append(args, &e.bytes)
		}
		if len(args) == most {
			do, args = append(do, redisdb.Command{Name: "RPUSH", Key: entries, Args: args}), nil
		}
	}
	if len(args) > 0 {
		do = append(do, redisdb.Command{Name: "RPUSH", Key: entries, Args: args})
	}
	return do
}

func (s *slot) asideCommands(do []redisdb.Command) []redisdb.Command {
	switch {
	case s.then.aside > 0 && s.aside == 0:
		do = append(do, redisdb.Command{Name: "DEL", Key: s.keys.aside()})
	case s.then.aside > 0:
		var fields []any
		for pos := range s.gone {
			if pos <= s.then.base {
				fields = append(fields, asideField(pos))
			}
		}
		if len(fields) > 0 {
			do = append(do, redisdb.Command{Name: "HDEL", Key: s.keys.aside(), Args: fields})
		}
	}
	var pairs []any
	for i := range s.toAside {
		pairs = append(pairs, asideField(s.toAside[i].Pos), s.toAside[i].bytes)
	}
	if len(pairs) > 0 {
		do = append(do, redisdb.Command{Name: "HSET", Key: s.keys.aside(), Args: pairs})
	}
	return do
}

func (s *slot) indexCommands(do []redisdb.Command) []redisdb.Command {
	if s.then.keyed > 0 && s.keyed == 0 {
		return append(do, redisdb.Command{Name: "DEL", Key: s.keys.collapse()})
	}
	var fields, pairs []any
	for _, id := range s.unkeyed {
		if _, again := s.rekeyed[id]; !again {
			fields = append(fields, string(id[:]))
		}
	}
	if len(fields) > 0 {
		do = append(do, redisdb.Command{Name: "HDEL", Key: s.keys.collapse(), Args: fields})
	}
	for i := range s.added {
		if e := &s.added[i]; e.keyed && !s.gone[e.Pos] {
			pairs = append(pairs, string(e.id[:]), appendIndex(nil, s.Epoch, e.Weight))
		}
	}
	if len(pairs) > 0 {
		do = append(do, redisdb.Command{Name: "HSET", Key: s.keys.collapse(), Args: pairs})
	}
	return do
}

// load returns what reads what is needed, and the state with it first: if that is another by now, the rest is of no use.
func (s *slot) load(do []redisdb.Command) []redisdb.Command {
	do = append(do, redisdb.Command{Name: "HGET", Key: s.state(), Args: askState})
	if s.need.front > 0 {
		do = append(do, redisdb.Command{Name: "LRANGE", Key: s.entries(), Args: []any{0, s.need.front - 1}})
	}
	if s.need.aside {
		do = append(do, redisdb.Command{Name: "HGETALL", Key: s.keys.aside()})
	}
	for _, pos := range s.need.at {
		do = append(do, redisdb.Command{Name: "LINDEX", Key: s.entries(), Args: []any{int(pos - s.then.base - 1)}})
	}
	return do
}

// loaded takes the replies to load and returns those left over. ok is false if the slot is another by now.
func (s *slot) loaded(replies []any) (rest []any, ok bool) {
	state, rest := replies[0], replies[1:]
	ok = state == s.was
	if s.need.front > 0 {
		s.front = texts(rest[0])
		s.whole = len(s.front) == int(s.then.Head-s.then.base)
		if !s.whole && len(s.front) < s.need.front {
			ok = false // the list is not what the state says: lost, or it went on meanwhile
		}
		rest = rest[1:]
	}
	if s.need.aside {
		s.asides = asidesOf(texts(rest[0]), &s.err)
		rest = rest[1:]
	}
	for _, pos := range s.need.at {
		v, _ := rest[0].(string)
		if s.single == nil {
			s.single = make(map[push.Position]string)
		}
		s.single[pos] = v
		rest = rest[1:]
	}
	err := s.err
	s.begin()
	s.err = err
	return rest, ok
}

// asidesOf sorts the entries that HGETALL returned.
func asidesOf(pairs []string, err *error) []element {
	out := make([]element, 0, len(pairs)/2)
	for i := 0; i+1 < len(pairs); i += 2 {
		pos, e := strconv.ParseUint(pairs[i], 36, 64)
		if e != nil {
			*err = corrupt("the position of an entry")
			return out
		}
		w, e := weigh(push.Position(pos), pairs[i+1])
		if e != nil {
			*err = e
			return out
		}
		out = append(out, element{Weight: w, bytes: pairs[i+1]})
	}
	slices.SortFunc(out, func(a, b element) int { return cmp.Compare(a.Pos, b.Pos) })
	return out
}

func asideField(pos push.Position) string { return strconv.FormatUint(uint64(pos), 36) }

// appendIndex appends what is kept of a collapse identity: epoch (8 bytes), position, size, expiry.
func appendIndex(dst []byte, epoch push.SlotEpoch, w saver.Weight) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(epoch))
	dst = binary.AppendUvarint(dst, uint64(w.Pos))
	dst = binary.AppendUvarint(dst, uint64(w.Size))
	return binary.AppendUvarint(dst, uint64(w.Expires))
}

func decodeIndex(v string) (push.SlotEpoch, saver.Weight, error) {
	r := reader{v: v}
	epoch := push.SlotEpoch(r.fixed())
	w := saver.Weight{Pos: push.Position(r.uint()), Size: r.count(), Expires: push.MilliTime(r.uint())}
	return epoch, w, r.end("a collapse index entry")
}

// texts returns a reply that is a list of strings; nil elements are empty.
func texts(reply any) []string {
	list, _ := reply.([]any)
	out := make([]string, len(list))
	for i, v := range list {
		out[i], _ = v.(string)
	}
	return out
}
