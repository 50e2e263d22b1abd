package pebble

import (
	"encoding/binary"

	"carillon/server/embedded"
	"carillon/server/push"
	"carillon/server/saver"
)

// All keys, where product, user, device and key are escaped and ended strings, and numbers are big endian:
//
//	s u product shard(2) user c collapse(32)   epoch and position of the newest entry of that identity
//	s u product shard(2) user d device         a device with its cursors
//	s u product shard(2) user e position(8)    an entry of the own slot
//	s u product shard(2) user s                the state of the own slot
//	s u product shard(2) user t                the tags of the user
//	s u product shard(2) user t device         the tags of a device
//	s u product shard(2) user u device         those of the device's token
//	s g product shard(2) tag user              nothing: the user has the tag, or a device of the user
//	s c product shard(2) c collapse(32)        the same for the shard's common slot
//	s c product shard(2) e position(8)
//	s c product shard(2) s
//	s k hour(4) product key                    an idempotency key
//	s m hour(4) product id(8)                  a message's record
//	s b hour(4) product id(8)                  a body that several slots share
//	s f product id(8)                          the fence of a message that a task writes
//	s n product id(8) shard(2) number(4)       the record of one of its batches; goes with the fence
//
// hour is the one in which the thing may be forgotten, in hours since 1970: everything below it goes in one range.
const (
	spaceUser    = 'u'
	spaceCommon  = 'c'
	spaceTagged  = 'g'
	spaceKey     = 'k'
	spaceMessage = 'm'
	spaceBucket  = 'b'
	spaceFence   = 'f'
	spaceBatch   = 'n'

	subCollapse = 'c'
	subDevice   = 'd'
	subEntry    = 'e'
	subState    = 's'
	subTags     = 't'
	subToken    = 'u' // right behind subTags: one scan reads both
)

func appendSpace(dst []byte, space byte) []byte { return append(dst, byte(embedded.SpaceSaver), space) }

func appendShard(dst []byte, ref saver.ShardRef) []byte {
	dst = embedded.AppendKeyString(dst, ref.Product)
	return embedded.AppendKeyUint16(dst, uint16(ref.Shard))
}

// userPrefix, in the memory of dst, begins every key of a user; commonPrefix every key of a common slot.
func userPrefix(dst []byte, ref saver.ShardRef, u push.UserID) []byte {
	return embedded.AppendKeyString(appendShard(appendSpace(dst[:0], spaceUser), ref), u)
}

func commonPrefix(dst []byte, ref saver.ShardRef) []byte {
	return appendShard(appendSpace(dst[:0], spaceCommon), ref)
}

// slotPrefix begins every key of a slot.
func slotPrefix(ref saver.ShardRef, k push.SlotKind, u push.UserID) []byte {
	if k == push.Own {
		return userPrefix(nil, ref, u)
	}
	return commonPrefix(nil, ref)
}

// sub returns prefix and one byte in dst's memory.
func sub[P ~string | ~[]byte](dst []byte, prefix P, b byte) []byte {
	return append(append(dst[:0], prefix...), b)
}

func entryKey[P ~string | ~[]byte](dst []byte, prefix P, pos push.Position) []byte {
	return binary.BigEndian.AppendUint64(sub(dst, prefix, subEntry), uint64(pos))
}

// entryPos returns the position at the end of an entry's key.
func entryPos(key []byte) push.Position {
	return push.Position(binary.BigEndian.Uint64(key[len(key)-8:]))
}

func deviceKey[P ~string | ~[]byte](dst []byte, prefix P, d push.DeviceID) []byte {
	return embedded.AppendKeyString(sub(dst, prefix, subDevice), d)
}

// tagsKey is the key of a device's tags, or of the user's own if device is empty.
func tagsKey[P ~string | ~[]byte](dst []byte, prefix P, d push.DeviceID) []byte {
	dst = sub(dst, prefix, subTags)
	if d == "" {
		return dst
	}
	return embedded.AppendKeyString(dst, d)
}

// tokenKey is the key of the tags of a device's token.
func tokenKey[P ~string | ~[]byte](dst []byte, prefix P, d push.DeviceID) []byte {
	return embedded.AppendKeyString(sub(dst, prefix, subToken), d)
}

// taggedPrefix begins the keys of those in a shard who have a tag.
func taggedPrefix(dst []byte, ref saver.ShardRef, tag push.Tag) []byte {
	return embedded.AppendKeyString(appendShard(appendSpace(dst[:0], spaceTagged), ref), tag)
}

func collapseKey[P ~string | ~[]byte](dst []byte, prefix P, id *saver.CollapseID) []byte {
	return append(sub(dst, prefix, subCollapse), id[:]...)
}

// hour is a moment in hours since 1970, as keys carry it.
type hour uint32

const hourMilli = 3_600_000

// hourAfter returns the first hour that begins after a moment: from then on what is forgotten at that moment may go.
func hourAfter(t push.MilliTime) hour {
	return hour(min(max(t, 0)/hourMilli+1, 1<<32-1))
}

// hourOf returns the hour that a moment lies in.
func hourOf(t push.MilliTime) hour { return hour(min(max(t, 0)/hourMilli, 1<<32-1)) }

func appendHour(dst []byte, space byte, h hour) []byte {
	return binary.BigEndian.AppendUint32(appendSpace(dst, space), uint32(h))
}

func idempotencyKey(dst []byte, h hour, p push.ProductID, k saver.IdempotencyKey) []byte {
	return embedded.AppendKeyString(embedded.AppendKeyString(appendHour(dst, spaceKey, h), p), k)
}

func messageKey(dst []byte, space byte, h hour, p push.ProductID, id push.MsgID) []byte {
	return embedded.AppendKeyUint64(embedded.AppendKeyString(appendHour(dst, space, h), p), uint64(id))
}

// forgetHour is the hour of a message's record and bucket.
func forgetHour(expires push.MilliTime) hour { return hourAfter(expires.Add(saver.RecordKept)) }
