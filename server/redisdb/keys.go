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

// SessionsKey is the hash of a user's sessions by device: the register writes it, and an append reads the rooms out of it. Each value begins
// with the length of the room's name in one byte and the name.
func (t Tag) SessionsKey(u push.UserID) string { return t.Key("s", string(u)) }

// ChangesKey is the log of the latest changes in the shard; see [Tag.Announce].
func (t Tag) ChangesKey() string { return t.Key("l", "") }

// nowhere is a key that never exists.
func (t Tag) nowhere() string { return t.Key("-", "") }
