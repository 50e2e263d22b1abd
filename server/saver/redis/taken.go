package redis

import (
	"encoding/binary"
	"hash/fnv"
	"time"

	"carillon/server/nextversion"
	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/saver"
)

// keyOp takes the key of a request: a record with its id and digest, which says that the slots are about to be written. The record of
// a message to one user never says that they were: a repeat finds the message's own record there.
type keyOp struct {
	p   *saver.Publication
	tag redisdb.Tag
	key string

	// The outcome.
	known  bool // the key was taken before
	rec    taken
	raw    any // as it lies there now
	answer redisdb.Answer
	err    error

	r redisdb.Read
	w redisdb.Write
}

// keySlack is how much longer than it is remembered a key lies there.
const keySlack = time.Minute

func (s *Store) newKeyOp(p *saver.Publication) *keyOp {
	k := &keyOp{p: p}
	k.tag, k.key = keyKey(keyProduct(p), p.Key)
	return k
}

func (k *keyOp) ask() *redisdb.Read {
	k.r = redisdb.Read{Tag: k.tag, Do: []redisdb.Command{{Name: "GET", Key: k.key}}}
	return &k.r
}

func (k *keyOp) decide() (*redisdb.Write, *redisdb.Read, error) {
	a := k.r.Answer
	k.answer, k.raw, k.known = a, k.r.Replies[0], false
	if v, ok := k.raw.(string); ok {
		rec, err := decodeTaken(v)
		if err != nil {
			return nil, nil, err
		}
		if k.rec = rec; rec.Known(a.Now) {
			if [digestKept]byte(rec.Digest[:]) == [digestKept]byte(k.p.Digest[:]) {
				k.rec.Digest = k.p.Digest
			}
			// Written again as it is, so that it is confirmed whoever wrote it.
			k.known = true
			return k.writing(v, rec.Until.Add(keySlack)), nil, nil
		}
	}
	k.rec = taken{KeyRecord: saver.KeyRecordOf(k.p, saver.Stamp(k.p, a.Now))}
	k.rec.Finished = !k.p.Message.Persistent || !isWide(k.p) && len(k.p.Own) == 0
	if k.rec.single = !k.rec.Finished && !isWide(k.p); k.rec.single {
		k.rec.user = whose(k.p.Own[0].User)
	}
	return k.writing(string(appendTaken(nil, &k.rec)), k.rec.Until.Add(keySlack)), nil, nil
}

func (k *keyOp) writing(v string, until push.MilliTime) *redisdb.Write {
	k.w = redisdb.Write{Tag: k.tag, If: []redisdb.Condition{redisdb.IfValue(k.key, k.raw)},
		Do: []redisdb.Command{{Name: "SET", Key: k.key, Args: []any{v, "PX", int64(until - k.answer.Now)}}}}
	k.raw = v
	return &k.w
}

func (k *keyOp) wrote(w *redisdb.Write) { k.answer = w.Answer }
func (k *keyOp) fail(err error)         { k.err = err }

// finished returns the write that notes that everything is stored.
func (k *keyOp) finished() *redisdb.Write {
	rec := k.rec
	rec.Finished = true
	return &redisdb.Write{Tag: k.tag, Lax: true, If: []redisdb.Condition{redisdb.IfValue(k.key, k.raw)},
		Do: []redisdb.Command{{Name: "SET", Key: k.key, Args: []any{appendTaken(nil, &rec), "KEEPTTL"}}}}
}

// taken is what is kept of an idempotency key. It has at most 44 bytes, for which Redis needs half of what it does for more.
type taken struct {
	saver.KeyRecord        // of its digest the first 16 bytes
	single          bool   // it is for one user
	user            uint16 // a hash of the name of that one
}

const takenVersion = 1 + nextversion.Step

// Flags of a key.
const (
	takenPersistent = 1 << 0
	takenFinished   = 1 << 1
	takenSingle     = 1 << 2
)

// digestKept is how much of a digest is kept: as much as makes it certain that no two requests meet by chance.
const digestKept = 16

// appendTaken appends: version and flags in one byte (4 bits each), digest, hash of the user (2 bytes), id, created; then, from created on, expires (0
// if it is not persistent) and until.
func appendTaken(dst []byte, k *taken) []byte {
	flags := byte(takenVersion << 4)
	if k.Persistent {
		flags |= takenPersistent
	}
	if k.Finished {
		flags |= takenFinished
	}
	if k.single {
		flags |= takenSingle
	}
	dst = append(append(append(dst, flags), nextversion.Part...), k.Digest[:digestKept]...)
	dst = binary.BigEndian.AppendUint16(dst, k.user)
	dst = binary.AppendUvarint(dst, uint64(k.ID))
	dst = binary.AppendUvarint(dst, uint64(k.Created))
	if k.Persistent {
		dst = binary.AppendUvarint(dst, uint64(k.Expires-k.Created))
	}
	return binary.AppendUvarint(dst, uint64(k.Until-k.Created))
}

func decodeTaken(v string) (k taken, err error) {
	r := reader{v: v}
	flags := r.byte()
	switch v := flags >> 4; {
	case v < 1 || v > takenVersion+1:
		r.fail()
	case v > 1:
		r.text() // as in other values
	}
	k.Persistent, k.Finished, k.single = flags&takenPersistent != 0, flags&takenFinished != 0, flags&takenSingle != 0
	for i := range digestKept {
		k.Digest[i] = r.byte()
	}
	k.user = uint16(r.byte())<<8 | uint16(r.byte())
	k.ID, k.Created = push.MsgID(r.uint()), push.MilliTime(r.uint())
	if k.Persistent {
		k.Expires = k.Created + push.MilliTime(r.uint())
	}
	k.Until = k.Created + push.MilliTime(r.uint())
	return k, r.end("an idempotency key")
}

// whose returns the hash of a user's name.
func whose(u push.UserID) uint16 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(u))
	n := h.Sum32()
	return uint16(n>>16) ^ uint16(n)
}
