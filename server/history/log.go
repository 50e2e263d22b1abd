package history

import (
	"cmp"
	"encoding/binary"
	"iter"
	"slices"
	"sync"
	"time"
)

// Seq is a history: records in the order of their times, as often as somebody goes through them. A record that it yields is good, and is
// not changed, until the next one is asked for; strings and lists in it stay.
type Seq = iter.Seq[*Record]

// Of returns records in the order of their times; of one time, in the order that they have. They must not change meanwhile.
func Of(records []Record) Seq {
	inOrder := func(a, b Record) int { return cmp.Compare(a.At, b.At) }
	if slices.IsSortedFunc(records, inOrder) {
		return func(yield func(*Record) bool) {
			for i := range records {
				if !yield(&records[i]) {
					return
				}
			}
		}
	}
	turn := make([]int32, len(records)) // records are large
	for i := range turn {
		turn[i] = int32(i)
	}
	slices.SortFunc(turn, func(a, b int32) int { return cmp.Or(cmp.Compare(records[a].At, records[b].At), cmp.Compare(a, b)) })
	return func(yield func(*Record) bool) {
		for _, i := range turn {
			if !yield(&records[i]) {
				return
			}
		}
	}
}

// Merge returns several histories as one. Of one time, what is in an earlier history comes first.
func Merge(histories ...Seq) Seq {
	return func(yield func(*Record) bool) {
		type source struct {
			head *Record
			next func() (*Record, bool)
		}
		var open []*source
		for _, h := range histories {
			next, stop := iter.Pull(h)
			defer stop()
			if r, ok := next(); ok {
				open = append(open, &source{r, next})
			}
		}
		for len(open) > 0 {
			first := 0
			for i, s := range open {
				if s.head.At < open[first].head.At {
					first = i
				}
			}
			s := open[first]
			if !yield(s.head) {
				return
			}
			if r, ok := s.next(); ok {
				s.head = r
			} else {
				open = slices.Delete(open, first, first+1)
			}
		}
	}
}

// Log collects records. It is safe for concurrent use. It keeps them packed, some fifty bytes for each: a record as such is several hundred,
// and a run of an hour has millions.
type Log struct {
	began time.Time

	mu      sync.Mutex
	full    []string           // guarded by mu; chunks of packed records
	chunk   []byte             // guarded by mu; the one that is being filled
	scratch []byte             // guarded by mu
	last    time.Duration      // guarded by mu; the time of the last record
	names   []string           // guarded by mu; what comes again and again, by number
	numbers map[string]uint64  // guarded by mu; its inverse
	having  []*Having          // guarded by mu
	counts  []map[string]int64 // guarded by mu
}

// chunkSize is how many bytes a chunk has at most, but that one record fits in any case.
const chunkSize = 1 << 20

// NewLog returns an empty log whose time begins at began.
func NewLog(began time.Time) *Log { return &Log{began: began, numbers: make(map[string]uint64)} }

// Add notes a record at this moment.
func (l *Log) Add(r Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.At = time.Since(l.began)
	l.addLocked(&r)
}

// Records returns what was noted so far, in order.
func (l *Log) Records() []Record {
	var rs []Record
	for r := range l.All() {
		rs = append(rs, *r)
	}
	return rs
}

// kinds are all kinds, by the number that stands for each in a packed record.
var kinds = []Kind{
	Invoke, OK, Fail, Unknown, Recall, Online, Off, Deliver, Peek, Ack, Gap, Crash, Forget, Ended, Stall, Lost, Stored, Live, TagAsk, TagAnswer, TagRest,
	MoveAsk, MoveAnswer, Held, Told,
}

// numberOf returns the number of a kind.
func numberOf(k Kind) uint8 {
	i := slices.Index(kinds, k)
	if i < 0 {
		panic("history: there is no kind " + string(k))
	}
	return uint8(i)
}

// The fields of a packed record that are not zero, as bits. A record is its kind, these bits, its time since the last one, and those of
// the fields that have a value, in this order.
const (
	hasSeq = 1 << iota
	hasID
	hasDevice
	hasBody
	hasPos
	hasSession
	hasSlot
	hasSender
	hasKey
	hasTo
	isPersistent
	isEveryone
	hasBegins
	hasCode
	hasProduct
	hasDevices
	hasHaving
	hasCollapse
	hasTTL
	isReset
	hasSince
	hasCount
	hasSet
	hasTags
	isThroughout
	hasCounts
)

// addLocked packs a record.
func (l *Log) addLocked(r *Record) {
	fields := uint64(0)
	for _, f := range [...]struct {
		bit uint64
		is  bool
	}{
		{hasSeq, r.Seq != 0}, {hasID, r.ID != ""}, {hasDevice, r.Device != Device{}}, {hasBody, r.Body != ""}, {hasPos, r.Pos != 0},
		{hasSession, r.Session != 0}, {hasSlot, r.Slot != 0}, {hasSender, r.Sender != ""}, {hasKey, r.Key != ""}, {hasTo, len(r.To) > 0},
		{isPersistent, r.Persistent}, {isEveryone, r.Everyone}, {hasBegins, r.Begins != [2]string{}}, {hasCode, r.Code != ""},
		{hasProduct, r.Product != ""}, {hasDevices, len(r.Devices) > 0}, {hasHaving, r.Having != nil}, {hasCollapse, r.Collapse != ""},
		{hasTTL, r.TTL != 0}, {isReset, r.Reset}, {hasSince, r.Since != 0}, {hasCount, r.Count != 0}, {hasSet, r.Set != ""}, {hasTags, len(r.Tags) > 0},
		{isThroughout, r.Throughout}, {hasCounts, len(r.Counts) > 0},
	} {
		if f.is {
			fields |= f.bit
		}
	}
	b := binary.AppendUvarint(append(l.scratch[:0], numberOf(r.Kind)), fields)
	b = binary.AppendVarint(b, int64(r.At-l.last))
	l.last = r.At
	is := func(bit uint64) bool { return fields&bit != 0 }
	number := func(bit uint64, n int64) {
		if is(bit) {
			b = binary.AppendVarint(b, n)
		}
	}
	whole := func(bit uint64, s string) {
		if is(bit) {
			b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
		}
	}
	name := func(s string) { b = binary.AppendUvarint(b, l.numberLocked(s)) }
	list := func(bit uint64, ss []string) {
		if is(bit) {
			b = binary.AppendUvarint(b, uint64(len(ss)))
			for _, s := range ss {
				name(s)
			}
		}
	}
	one := func(bit uint64, s string) {
		if is(bit) {
			name(s)
		}
	}
	device := func(d Device) { name(d.User); name(d.Device); name(d.Product) }
	number(hasSeq, int64(r.Seq))
	whole(hasID, r.ID)
	if is(hasDevice) {
		device(r.Device)
	}
	whole(hasBody, r.Body)
	number(hasPos, int64(r.Pos))
	number(hasSession, int64(r.Session))
	number(hasSlot, int64(r.Slot))
	one(hasSender, r.Sender)
	whole(hasKey, r.Key)
	list(hasTo, r.To)
	if is(hasBegins) {
		name(r.Begins[0])
		name(r.Begins[1])
	}
	one(hasCode, r.Code)
	one(hasProduct, r.Product)
	if is(hasDevices) {
		b = binary.AppendUvarint(b, uint64(len(r.Devices)))
		for _, d := range r.Devices {
			device(d)
		}
	}
	if is(hasHaving) {
		b = binary.AppendUvarint(b, uint64(len(l.having)))
		l.having = append(l.having, r.Having)
	}
	one(hasCollapse, r.Collapse)
	number(hasTTL, int64(r.TTL))
	number(hasSince, int64(r.Since))
	number(hasCount, int64(r.Count))
	one(hasSet, r.Set)
	list(hasTags, r.Tags)
	if is(hasCounts) {
		b = binary.AppendUvarint(b, uint64(len(l.counts)))
		l.counts = append(l.counts, r.Counts)
	}
	l.scratch = b
	if len(l.chunk)+len(b) > chunkSize && len(l.chunk) > 0 {
		l.full, l.chunk = append(l.full, string(l.chunk)), l.chunk[:0]
	}
	l.chunk = append(l.chunk, b...)
}

// numberLocked returns the number of a name.
func (l *Log) numberLocked(s string) uint64 {
	n, ok := l.numbers[s]
	if !ok {
		n = uint64(len(l.names))
		l.numbers[s], l.names = n, append(l.names, s)
	}
	return n
}

// All returns what was noted so far. It may be gone through while more is noted.
func (l *Log) All() Seq {
	l.mu.Lock()
	defer l.mu.Unlock()
	chunks := append(slices.Clone(l.full), string(l.chunk))
	names, having, counts := l.names, l.having, l.counts
	lists := make([][]string, len(names)) // most messages are to one user
	for i := range names {
		lists[i] = names[i : i+1 : i+1]
	}
	return func(yield func(*Record) bool) {
		var r Record
		at := time.Duration(0)
		for _, chunk := range chunks {
			for u := (unpacker{chunk, names, lists, having, counts}); len(u.rest) > 0; {
				u.record(&r, at)
				at = r.At
				if !yield(&r) {
					return
				}
			}
		}
	}
}

// unpacker reads a chunk.
type unpacker struct {
	rest   string
	names  []string
	lists  [][]string
	having []*Having
	counts []map[string]int64
}

func (u *unpacker) count() (n uint64) {
	for i, shift := 0, 0; ; i, shift = i+1, shift+7 {
		c := u.rest[i]
		n |= uint64(c&0x7f) << shift
		if c < 0x80 {
			u.rest = u.rest[i+1:]
			return n
		}
	}
}

func (u *unpacker) number() int64 {
	n := u.count()
	return int64(n>>1) ^ -int64(n&1)
}

func (u *unpacker) whole() string {
	n := u.count()
	s := u.rest[:n]
	u.rest = u.rest[n:]
	return s
}

func (u *unpacker) name() string { return u.names[u.count()] }

func (u *unpacker) list() []string {
	n := u.count()
	if n == 1 {
		return u.lists[u.count()]
	}
	ss := make([]string, n)
	for i := range ss {
		ss[i] = u.name()
	}
	return ss
}

func (u *unpacker) device() Device {
	return Device{User: u.name(), Device: u.name(), Product: u.name()}
}

// record unpacks one, which comes after another of a time.
func (u *unpacker) record(r *Record, last time.Duration) {
	*r = Record{Kind: kinds[u.rest[0]]}
	u.rest = u.rest[1:]
	fields := u.count()
	r.At = last + time.Duration(u.number())
	is := func(bit uint64) bool { return fields&bit != 0 }
	r.Persistent, r.Everyone, r.Reset, r.Throughout = is(isPersistent), is(isEveryone), is(isReset), is(isThroughout)
	if is(hasSeq) {
		r.Seq = int(u.number())
	}
	if is(hasID) {
		r.ID = u.whole()
	}
	if is(hasDevice) {
		r.Device = u.device()
	}
	if is(hasBody) {
		r.Body = u.whole()
	}
	if is(hasPos) {
		r.Pos = uint64(u.number())
	}
	if is(hasSession) {
		r.Session = uint64(u.number())
	}
	if is(hasSlot) {
		r.Slot = int(u.number())
	}
	if is(hasSender) {
		r.Sender = u.name()
	}
	if is(hasKey) {
		r.Key = u.whole()
	}
	if is(hasTo) {
		r.To = u.list()
	}
	if is(hasBegins) {
		r.Begins = [2]string{u.name(), u.name()}
	}
	if fields >= hasCode {
		u.rare(r, is)
	}
}

// rare unpacks what few records have.
func (u *unpacker) rare(r *Record, is func(uint64) bool) {
	if is(hasCode) {
		r.Code = u.name()
	}
	if is(hasProduct) {
		r.Product = u.name()
	}
	if is(hasDevices) {
		r.Devices = make([]Device, u.count())
		for i := range r.Devices {
			r.Devices[i] = u.device()
		}
	}
	if is(hasHaving) {
		r.Having = u.having[u.count()]
	}
	if is(hasCollapse) {
		r.Collapse = u.name()
	}
	if is(hasTTL) {
		r.TTL = time.Duration(u.number())
	}
	if is(hasSince) {
		r.Since = time.Duration(u.number())
	}
	if is(hasCount) {
		r.Count = int(u.number())
	}
	if is(hasSet) {
		r.Set = u.name()
	}
	if is(hasTags) {
		r.Tags = u.list()
	}
	if is(hasCounts) {
		r.Counts = u.counts[u.count()]
	}
}
