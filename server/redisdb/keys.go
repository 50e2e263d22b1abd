package redisdb

import (
	"strconv"

	"carillon/server/push"
)

// Tag is the hash tag of keys that belong together: they lie on the same node, and one unit of work touches those of one
// tag alone. It holds no braces.
type Tag string

// ShardTag returns the tag of everything that belongs to one shard of a product: slots, cursors, tags, sessions, change logs.
func ShardTag(p push.ProductID, s push.Shard) Tag {
	var buf [80]byte
	return Tag(strconv.AppendInt(append(append(buf[:0], p...), ':'), int64(s), 10))
}

// Prefix begins every key of ours, so that others may use the same Redis.
const Prefix = "c:"

// Key returns the key of that kind and name under the tag: "c:{shop:12}:u:alice". A kind is one letter or a few, without a colon. The name
// comes last and may hold any bytes: Redis takes the first pair of braces for the tag, and nothing is read out of the rest.
func (t Tag) Key(kind, name string) string {
	var buf [128]byte // of most keys; a longer one costs an allocation more
	return string(t.appendKey(buf[:0], kind, name))
}

func (t Tag) appendKey(b []byte, kind, name string) []byte {
	b = append(b, Prefix...)
	b = append(b, '{')
	b = append(b, t...)
	b = append(b, '}', ':')
	b = append(b, kind...)
	b = append(b, ':')
	return append(b, name...)
}

// KeyPair returns the keys of two kinds with one name, in one piece of memory.
func (t Tag) KeyPair(kind1, kind2, name string) (key1, key2 string) {
	var buf [256]byte
	b := t.appendKey(buf[:0], kind1, name)
	n := len(b)
	both := string(t.appendKey(b, kind2, name))
	return both[:n], both[n:]
}

// slot returns the part of a cluster that the tag lies in: CRC16 (XMODEM) of it, in 16384 parts.
func (t Tag) slot() int {
	crc := uint16(0)
	for i := range len(t) {
		crc = crc<<8 ^ crc16[byte(crc>>8)^t[i]]
	}
	return int(crc % slots)
}

const slots = 16384

var crc16 = func() (table [256]uint16) {
	for i := range table {
		crc := uint16(i) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
		table[i] = crc
	}
	return table
}()

// SessionsKey is the hash of the sessions of the shard, by user: the register writes it, and an append reads the rooms out of it. A field
// holds the sessions of its user one after the other, each with its length in two bytes (big endian) before it, and beginning with the names of
// room and device, each with its length in one byte before it; [EachSession] reads that. So the sessions of many users are one command, and one user's
// are one condition; a key for each user would take half as much memory again.
func (t Tag) SessionsKey() string { return t.Key(kindSessions, "") }

// EachSession calls f for each of a user's sessions, as a field of the hash holds them. rest is what the register alone knows. It reports
// whether all of them could be read.
func EachSession(sessions string, f func(room push.RoomID, device push.DeviceID, rest string)) bool {
	for len(sessions) > 0 {
		room, device, rest, size := NextSession(sessions)
		if size == 0 {
			return false
		}
		f(room, device, rest)
		sessions = sessions[size:]
	}
	return true
}

// NextSession reads the first of a user's sessions, and returns how many bytes it takes, 0 if it cannot be read.
func NextSession(sessions string) (room push.RoomID, device push.DeviceID, rest string, size int) {
	if len(sessions) < 2 {
		return "", "", "", 0
	}
	if size = 2 + (int(sessions[0])<<8 | int(sessions[1])); len(sessions) < size {
		return "", "", "", 0
	}
	r, rest, ok1 := cutName(sessions[2:size])
	d, rest, ok2 := cutName(rest)
	if !ok1 || !ok2 {
		return "", "", "", 0
	}
	return push.RoomID(r), push.DeviceID(d), rest, size
}

func cutName(s string) (name, rest string, ok bool) {
	if s == "" || len(s) < 1+int(s[0]) {
		return "", "", false
	}
	n := 1 + int(s[0])
	return s[1:n], s[n:], true
}

// ChangesKey is the log of the latest changes in the shard; see [Tag.Announce].
func (t Tag) ChangesKey() string { return t.Key(kindChanges, "") }

const (
	kindSessions = "s"
	kindChanges  = "l"
)

// nowhere is a key that never exists.
func (t Tag) nowhere() string { return t.Key("-", "") }
