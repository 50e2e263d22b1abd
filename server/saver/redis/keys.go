package redis

import (
	"crypto/sha256"
	"hash/fnv"
	"strconv"
	"strings"

	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/saver"
)

// Kinds of keys under the tag of a shard; the common slot's are the capitals of the own slots'.
const (
	kindUser     = "u"
	kindEntries  = "e"
	kindAside    = "x"
	kindCollapse = "k"
	kindTags     = "t"
	kindTagged   = "g" // the set of users who have a tag, or a device with it
	kindCommon   = "S"
	kindRecords  = "r"
	kindBatches  = "n" // a message that a task writes: its token, and the batches
	kindRooms    = "p" // the register's: rooms that hold sessions in the shard
)

// Fields of the hash of a user, and of that of the common slot.
const (
	fieldState  = "o"
	fieldSeen   = "v" // common: day on which a device of the shard was last seen
	fieldDevice = "d" // begins that of a device
)

// fieldFence is the field of the token in the hash of a message that is written in batches; the others are numbers.
const fieldFence = "f"

// askState asks a slot's hash for the state. Nobody changes it.
var askState = []any{fieldState}

// spread is over how many tags lie what belongs to no shard: idempotency records, bodies, intents.
const (
	spread        = 1024
	spreadIntents = 64
)

func tagOf(s saver.ShardRef) redisdb.Tag { return redisdb.ShardTag(s.Product, s.Shard) }

// shardOf takes a shard's tag apart.
func shardOf(t redisdb.Tag) (saver.ShardRef, bool) {
	i := strings.LastIndexByte(string(t), ':')
	if i < 0 {
		return saver.ShardRef{}, false
	}
	n, err := strconv.ParseUint(string(t[i+1:]), 10, 16)
	return saver.ShardRef{Product: push.ProductID(t[:i]), Shard: push.Shard(n)}, err == nil
}

// slotKeys are the names of the keys of one slot.
type slotKeys struct {
	tag  redisdb.Tag
	kind push.SlotKind
	user push.UserID // of an own slot
}

func (k slotKeys) key(own, common string) string {
	if k.kind == push.Common {
		return k.tag.Key(common, "")
	}
	return k.tag.Key(own, string(k.user))
}

// pair returns the keys of state and entries, which are most often needed together.
func (k slotKeys) pair() (state, entries string) {
	if k.kind == push.Common {
		return k.tag.KeyPair(kindCommon, "E", "")
	}
	return k.tag.KeyPair(kindUser, kindEntries, string(k.user))
}

func (k slotKeys) state() string    { return k.key(kindUser, kindCommon) }
func (k slotKeys) entries() string  { return k.key(kindEntries, "E") }
func (k slotKeys) aside() string    { return k.key(kindAside, "X") }
func (k slotKeys) collapse() string { return k.key(kindCollapse, "K") }

// deviceField is the field of a device in the hash of its user.
func deviceField(d push.DeviceID) string { return fieldDevice + string(d) }

// recordBits is how many of the lowest bits of an id do not tell in which hash its record lies. A node gives ids one after the other out of
// its block, so half a block's messages to 1 024 shards are some thirty a hash, whatever the rate: Redis keeps them packed, and looks through all of
// them for each that is new. With hundreds of them a message costs Redis 22 µs in place of 19
// (go test ./server/saver/redis -run '^$' -bench PublishOffline/keyed=false/callers=16 -benchtime 600000x).
const recordBits = 15

func recordKey(t redisdb.Tag, id push.MsgID) string {
	var buf [16]byte
	return t.Key(kindRecords, string(strconv.AppendInt(buf[:0], int64(id)>>recordBits, 36)))
}

// recordField names the record of a message, or of the n-th chunk of its users in the shard, by the bits that the key lacks, in decimal: Redis
// packs such a field as a number, in half the bytes of a string, and compares it at a fraction of the cost when it looks through the hash.
func recordField(id push.MsgID, chunk int) string {
	var b [32]byte
	out := strconv.AppendInt(b[:0], int64(id)&(1<<recordBits-1), 10)
	if chunk > 0 {
		out = strconv.AppendInt(append(out, ':'), int64(chunk), 10)
	}
	return string(out)
}

// spreadTag is the tag of what belongs to no shard: by hash of its name.
func spreadTag(prefix, name string, over uint32) redisdb.Tag {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name))
	return redisdb.Tag(prefix + strconv.FormatUint(uint64(h.Sum32()%over), 10))
}

// keyKey is the key of an idempotency record. It holds a hash of 128 bits, since a sender's keys may be long.
func keyKey(p push.ProductID, k saver.IdempotencyKey) (redisdb.Tag, string) {
	var buf [336]byte
	name := append(append(append(buf[:0], p...), '/'), k...) // no product has a slash
	sum := sha256.Sum256(name)
	t := redisdb.Tag("keys" + strconv.FormatUint(uint64(sum[16])<<8&0x300|uint64(sum[17]), 10))
	return t, t.Key("i", string(sum[:16]))
}

func idName(p push.ProductID, id push.MsgID) string {
	return string(p) + "/" + strconv.FormatInt(int64(id), 10)
}

// cutIDName reads what idName wrote.
func cutIDName(s string) (push.ProductID, push.MsgID, bool) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return "", 0, false
	}
	id, err := strconv.ParseInt(s[i+1:], 10, 64)
	return push.ProductID(s[:i]), push.MsgID(id), err == nil
}

func bodyKey(p push.ProductID, id push.MsgID) (redisdb.Tag, string) {
	name := idName(p, id)
	t := spreadTag("bodies", name, spread)
	return t, t.Key("b", name)
}

func intentKey(p push.ProductID, id push.MsgID) (t redisdb.Tag, key, name string) {
	name = idName(p, id)
	t = spreadTag("intents", name, spreadIntents)
	return t, t.Key("w", name), name
}

func intentTag(n int) redisdb.Tag { return redisdb.Tag("intents" + strconv.Itoa(n)) }

// pendingKey is the hash of intents of that tag that are not finished.
func pendingKey(t redisdb.Tag) string { return t.Key("P", "") }
