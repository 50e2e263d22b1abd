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
	return Tag(string(p) + ":" + strconv.Itoa(int(s)))
}

// Prefix begins every key of ours, so that others may use the same Redis.
const Prefix = "c:"

// Key returns the key of that kind and name under the tag: "c:{shop:12}:u:alice". A kind is one letter or a few, without a colon. The name
// comes last and may hold any bytes: Redis takes the first pair of braces for the tag, and nothing is read out of the rest.
func (t Tag) Key(kind, name string) string {
	b := make([]byte, 0, len(Prefix)+len(t)+len(kind)+len(name)+4)
	b = append(b, Prefix...)
	b = append(b, '{')
	b = append(b, t...)
	b = append(b, '}', ':')
	b = append(b, kind...)
	b = append(b, ':')
	return string(append(b, name...))
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
func (t Tag) SessionsKey() string { return t.Key("s", "") }

// EachSession calls f for each of a user's sessions, as a field of the hash holds them. rest is what the register alone knows. It reports
// whether all of them could be read.
func EachSession(sessions string, f func(room push.RoomID, device push.DeviceID, rest string)) bool {
	for len(sessions) > 0 {
		if len(sessions) < 2 {
			return false
		}
		n := int(sessions[0])<<8 | int(sessions[1])
		if len(sessions) < 2+n {
			return false
		}
		one := sessions[2 : 2+n]
		sessions = sessions[2+n:]
		room, one, ok1 := cutName(one)
		device, one, ok2 := cutName(one)
		if !ok1 || !ok2 {
			return false
		}
		f(push.RoomID(room), push.DeviceID(device), one)
	}
	return true
}

func cutName(s string) (name, rest string, ok bool) {
	if s == "" || len(s) < 1+int(s[0]) {
		return "", "", false
	}
	n := 1 + int(s[0])
	return s[1:n], s[n:], true
}

// ChangesKey is the log of the latest changes in the shard; see [Tag.Announce].
func (t Tag) ChangesKey() string { return t.Key("l", "") }

// nowhere is a key that never exists.
func (t Tag) nowhere() string { return t.Key("-", "") }
