package redis

import (
	"encoding/binary"
	"math"
	"time"

	"carillon/server/nextversion"
	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/saver"
)

// intent is a publication to several slots, whole: whoever holds it can finish it. It stays as the head of the message's record.
type intent struct {
	product  push.ProductID
	shards   int
	limits   push.Limits
	message  *push.Message // stamped; with its body if that is inline
	bucket   bool          // the body lies in a bucket
	everyone bool
	filter   *push.Filter // with everyone
	own      []saver.Target
	recalled push.MilliTime // when it was taken back: entries go, and those that say so come
}

const intentVersion = 1 + nextversion.Step

// appendIntent appends: version, shards, the limits in order, whether there is a bucket, the time of the recall; the body, if it is
// inline, with its length before it; then the rest as AppendRecord writes it, with places of zeros.
func appendIntent(dst []byte, in *intent) []byte {
	dst = appendVersion(dst, intentVersion)
	l := in.limits
	for _, n := range [...]uint64{
		uint64(in.shards),
		uint64(l.BodyBytes), uint64(l.OwnMessages), uint64(l.OwnBytes), uint64(l.CommonMessages), uint64(l.CommonBytes),
		uint64(l.TTL), uint64(l.DevicesPerUser), uint64(l.DeviceUnseen), uint64(l.KeyTTL),
		truth(in.bucket), uint64(in.recalled),
	} {
		dst = binary.AppendUvarint(dst, n)
	}
	body := in.message.Body
	if in.bucket {
		body = nil
	}
	dst = appendText(dst, string(body))
	rec := saver.StoredRecord{Record: saver.Record{Message: in.message, Everyone: in.everyone, Filter: in.filter}}
	for _, t := range in.own {
		rec.Own = append(rec.Own, saver.RecordPlace{Target: t})
	}
	return saver.AppendRecord(dst, &rec)
}

func truth(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// decodeIntent reads what appendIntent wrote for a product.
func decodeIntent(p push.ProductID, v string) (*intent, error) {
	r := reader{v: v}
	r.version(intentVersion)
	in := &intent{product: p, shards: r.count()}
	size := func() int { return int(min(r.uint(), math.MaxInt)) }
	in.limits = push.Limits{
		BodyBytes: size(), OwnMessages: size(), OwnBytes: size(), CommonMessages: size(), CommonBytes: size(),
		TTL: time.Duration(r.uint()), DevicesPerUser: size(), DeviceUnseen: time.Duration(r.uint()), KeyTTL: time.Duration(r.uint()),
	}
	in.bucket = r.uint() == 1
	in.recalled = push.MilliTime(r.uint())
	body := r.text()
	if r.bad {
		return nil, corrupt("the intent of a publication")
	}
	rec, err := saver.DecodeRecord([]byte(r.v))
	if err != nil {
		return nil, err
	}
	in.message, in.everyone, in.filter = rec.Message, rec.Everyone, rec.Filter
	if body != "" {
		m := *rec.Message
		m.Body = []byte(body)
		in.message = &m
	}
	for _, o := range rec.Own {
		in.own = append(in.own, o.Target)
	}
	return in, nil
}

// chunkMost is how many users of a shard a message is appended for in one step. It is part of what is stored: the chunks of a
// message have records of their own.
const chunkMost = 64

// parts returns the steps in which the publication is appended: by shard, in chunks of its users.
func (in *intent) parts() []*part {
	if in.everyone {
		out := make([]*part, in.shards)
		for i := range out {
			ref := saver.ShardRef{Product: in.product, Shard: push.Shard(i)}
			out[i] = in.part(tagOf(ref), ref.Shard, 0)
			out[i].at = []int{i}
		}
		return out
	}
	last := make(map[push.Shard]*part)
	var out []*part
	for i := range in.own {
		shard := push.ShardOf(in.own[i].User, in.shards)
		p := last[shard]
		if p == nil || len(p.at) == chunkMost {
			chunk := 0
			if p != nil {
				chunk = p.chunk + 1
			}
			p = in.part(tagOf(saver.ShardRef{Product: in.product, Shard: shard}), shard, chunk)
			last[shard] = p
			out = append(out, p)
		}
		p.targets, p.at = append(p.targets, in.own[i]), append(p.at, i)
	}
	return out
}

func (in *intent) part(t redisdb.Tag, shard push.Shard, chunk int) *part {
	return &part{tag: t, shard: shard, chunk: chunk, message: in.message, limits: in.limits, everyone: in.everyone, filter: in.filter,
		inline: !in.bucket, marked: true, accepted: true}
}
