package redis

import (
	"encoding/binary"
	"errors"
	"strconv"

	"carillon/server/nextversion"
	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/register"
)

// How things are stored. What begins a record never changes; after it come fields, and whoever reads one stops behind the last that it
// knows, so that a later version adds its own at the end and both work on one store.

// life is the random number of one life of a room.
type life [lifeBytes]byte

const lifeBytes = 6

// place is a room in one life of it.
type place struct {
	room push.RoomID
	life life
}

// name is the place as keys end with it: the room, then the life.
func (p place) name() string { return string(p.room) + string(p.life[:]) }

// field is the place as it names a number: the length of the room's name in one byte, the name, the life.
func (p place) field() string {
	b := appendName(nil, string(p.room))
	return string(append(b, p.life[:]...))
}

func appendName(b []byte, s string) []byte { return append(append(b, byte(len(s))), s...) }

var errDamaged = errors.New("a record cannot be read")

// readField reads what field returned.
func readField(s string) (p place, err error) {
	if len(s) == 0 || len(s) < 1+int(s[0])+lifeBytes {
		return p, errDamaged
	}
	n := 1 + int(s[0])
	p.room = push.RoomID(s[1:n])
	copy(p.life[:], s[n:])
	return p, nil
}

// transports are stored as a number, one above its place here; others by name behind a zero.
var transports = [...]string{"ws", "sse", "poll", "tcp"}

const (
	hasToken = 1 << iota
	hasShard // it is not the one of the user's name
	hasRow
)

// appendSession appends a session as it is stored: its length in two bytes, room and device (see [redisdb.EachSession]), life, epoch (8
// bytes, big endian), flags, platform, when it began (milliseconds after its epoch did), transport, class, and by the flags token id, shard,
// and by how much less than its epoch its row is.
func appendSession(b []byte, s *register.Session, at place, shard push.Shard) []byte {
	from := len(b)
	b = append(b, 0, 0)
	b = appendName(b, string(at.room))
	b = appendName(b, string(s.Device))
	b = append(b, at.life[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(s.Epoch))
	flags := byte(0)
	if s.TokenID != "" {
		flags |= hasToken
	}
	if s.Shard != shard {
		flags |= hasShard
	}
	if s.Row != 0 {
		flags |= hasRow
	}
	b = append(b, flags, byte(s.Platform))
	b = binary.AppendVarint(b, int64(s.Since)-epochMilli(s.Epoch))
	code := byte(0)
	for i, t := range transports {
		if t == s.Transport {
			code = byte(i + 1)
		}
	}
	if b = append(b, code); code == 0 {
		b = appendText(b, s.Transport)
	}
	b = appendText(b, s.Class)
	if flags&hasToken != 0 {
		b = appendText(b, s.TokenID)
	}
	if flags&hasShard != 0 {
		b = binary.AppendUvarint(b, uint64(s.Shard))
	}
	if flags&hasRow != 0 {
		b = binary.AppendUvarint(b, uint64(s.Epoch-s.Row))
	}
	b = append(b, nextversion.Part...)
	binary.BigEndian.PutUint16(b[from:], uint16(len(b)-from-2))
	return b
}

// epochMilli is about when an epoch was given.
func epochMilli(e push.SessionEpoch) int64 { return int64(e >> register.EpochShift) }

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// reader takes fields off the front of a record. After an error it returns zeros.
type reader struct {
	s   string
	err error
}

func (r *reader) bytes(n uint64) string {
	if uint64(len(r.s)) < n {
		r.s, r.err = "", errDamaged
		return ""
	}
	v := r.s[:n]
	r.s = r.s[n:]
	return v
}

func (r *reader) byte() byte {
	if v := r.bytes(1); v != "" {
		return v[0]
	}
	return 0
}

func (r *reader) uint64() uint64 {
	v := r.bytes(8)
	if v == "" {
		return 0
	}
	return binary.BigEndian.Uint64([]byte(v))
}

func (r *reader) uvarint() uint64 {
	var head [binary.MaxVarintLen64]byte
	v, n := binary.Uvarint(head[:copy(head[:], r.s)])
	if n <= 0 {
		r.s, r.err = "", errDamaged
		return 0
	}
	r.s = r.s[n:]
	return v
}

func (r *reader) varint() int64 {
	u := r.uvarint()
	v := int64(u >> 1)
	if u&1 != 0 {
		v = ^v
	}
	return v
}

func (r *reader) text() string { return r.bytes(r.uvarint()) }

// stored is a session as it was read: its boot is known by its life alone.
type stored struct {
	register.Session
	at  place
	raw string // with its length
}

// readSessions reads the sessions of a user in that shard, as appendSession wrote them one after the other.
func readSessions(p push.ProductID, u push.UserID, shard push.Shard, value string, each func(*stored)) error {
	var s stored // one for all: the caller copies
	for len(value) > 0 {
		n := s.read(p, u, shard, value)
		if n == 0 {
			return errDamaged
		}
		each(&s)
		value = value[n:]
	}
	return nil
}

// read reads the first of a user's sessions, and returns how many bytes it takes, 0 if it cannot be read.
func (s *stored) read(p push.ProductID, u push.UserID, shard push.Shard, value string) int {
	room, device, rest, n := redisdb.NextSession(value)
	if n == 0 {
		return 0
	}
	*s = stored{at: place{room: room}, raw: value[:n]}
	s.Key, s.Room, s.Shard = register.Key{Product: p, User: u, Device: device}, room, shard
	r := reader{s: rest}
	r.session(s)
	if r.err != nil {
		return 0
	}
	return n
}

// whereOf reads of the first of a user's sessions what a look-up tells, and returns how many bytes the session takes, 0 if it cannot be read.
func whereOf(value string) (at place, epoch push.SessionEpoch, device push.DeviceID, n int) {
	room, device, rest, n := redisdb.NextSession(value)
	if n == 0 || len(rest) < lifeBytes+8 {
		return place{}, 0, "", 0
	}
	at.room = room
	copy(at.life[:], rest)
	r := reader{s: rest[lifeBytes:]}
	return at, push.SessionEpoch(r.uint64()), device, n
}

// session reads what stands behind the names.
func (r *reader) session(s *stored) {
	copy(s.at.life[:], r.bytes(lifeBytes))
	s.Epoch = push.SessionEpoch(r.uint64())
	flags := r.byte()
	s.Platform = push.Platform(r.byte())
	s.Since = push.MilliTime(epochMilli(s.Epoch) + r.varint())
	if code := int(r.byte()); code == 0 {
		s.Transport = r.text()
	} else if code <= len(transports) {
		s.Transport = transports[code-1]
	}
	s.Class = r.text()
	if flags&hasToken != 0 {
		s.TokenID = r.text()
	}
	if flags&hasShard != 0 {
		s.Shard = push.Shard(r.uvarint())
	}
	if flags&hasRow != 0 {
		s.Row = s.Epoch - push.SessionEpoch(r.uvarint())
	}
}

// lease is a line of the table of leases.
type lease struct {
	room  push.RoomID
	life  life
	boot  push.BootID
	until push.MilliTime // by the store's clock
	addr  string
	value string // as it was read
}

func appendLease(b []byte, l *lease) []byte {
	b = append(b, l.life[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(l.boot))
	b = binary.BigEndian.AppendUint64(b, uint64(l.until))
	return append(appendText(b, l.addr), nextversion.Part...)
}

func readLease(value string) (lease, error) {
	r := reader{s: value}
	l := lease{value: value}
	copy(l.life[:], r.bytes(lifeBytes))
	l.boot, l.until = push.BootID(r.uint64()), push.MilliTime(r.uint64())
	l.addr = r.text()
	return l, r.err
}

// appendOrder appends an order as it is stored: whose session ends, up to which epoch, the session that took its place, and a number by which the
// copies of one order are told from another of the same words.
func appendOrder(b []byte, o *register.Order, by place, shard push.Shard, number uint32) []byte {
	for _, s := range [...]string{string(o.Product), string(o.User), string(o.Device)} {
		b = appendText(b, s)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(o.Epoch))
	b = binary.BigEndian.AppendUint64(b, uint64(o.By.Boot))
	b = binary.AppendUvarint(b, uint64(shard))
	b = appendText(b, string(appendSession(nil, &o.By, by, shard)))
	return append(binary.BigEndian.AppendUint32(b, number), nextversion.Part...)
}

// readOrder reads what appendOrder wrote, and returns the shard of the user besides.
func readOrder(value string) (o register.Order, shard push.Shard, err error) {
	r := reader{s: value}
	o.Product, o.User, o.Device = push.ProductID(r.text()), push.UserID(r.text()), push.DeviceID(r.text())
	o.Epoch = push.SessionEpoch(r.uint64())
	boot := push.BootID(r.uint64())
	shard = push.Shard(r.uvarint())
	session := r.text()
	if r.err != nil {
		return o, 0, r.err
	}
	err = readSessions(o.Product, o.User, shard, session, func(s *stored) { o.By = s.Session })
	o.By.Boot = boot
	return o, shard, err
}

// numberValue is a room's number of sessions of a product, with the life that wrote it.
func numberValue(l life, n int) string {
	return string(strconv.AppendInt(append([]byte(nil), l[:]...), int64(n), 10))
}

func readNumber(value string) (l life, n int, err error) {
	if len(value) < lifeBytes {
		return l, 0, errDamaged
	}
	copy(l[:], value)
	n, err = strconv.Atoi(value[lifeBytes:])
	return l, n, err
}

// pairs walks a hash as Redis tells it.
func pairs(reply any, each func(field, value string) error) error {
	all, ok := reply.([]any)
	if !ok || len(all)%2 != 0 {
		return errors.New("a reply is no hash")
	}
	for i := 0; i < len(all); i += 2 {
		field, ok1 := all[i].(string)
		value, ok2 := all[i+1].(string)
		if !ok1 || !ok2 {
			return errors.New("a reply is no hash")
		}
		if err := each(field, value); err != nil {
			return err
		}
	}
	return nil
}

// texts returns a list as Redis tells it.
func texts(reply any) []string {
	all, _ := reply.([]any)
	list := make([]string, 0, len(all))
	for _, v := range all {
		if s, ok := v.(string); ok {
			list = append(list, s)
		}
	}
	return list
}

// damaged is the error of what cannot be read.
func damaged(op string, err error) error {
	return &push.Error{Kind: push.KindInternal, Code: "register_damaged", Detail: "register: " + op + ": the register holds what cannot be read", Err: err}
}
