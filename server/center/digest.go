package center

import (
	"crypto/sha256"
	"encoding/binary"

	"carillon/server/push"
	"carillon/server/saver"
)

// digestVersion is the first byte of what is hashed. It changes with the form below: requests that are repeated across
// such an upgrade are refused as another request, which is the safe side.
const digestVersion = 1

// digest returns the hash that tells whether two requests ask for the same. It is over the judged request, so that white
// space, order of members and of users, and spelled-out defaults do not matter. The time to live is hashed as it was
// asked for: that the product's default changed between a request and its repeat does not make them differ.
func (q *request) digest() saver.Digest {
	m := &q.message
	b := make([]byte, 0, 64+len(m.Body)+len(m.Ref)+len(m.CollapseKey)+32*len(q.targets))
	b = append(b, digestVersion, byte(m.Kind), flag(m.Persistent), flag(q.everyone))
	b = binary.BigEndian.AppendUint64(b, uint64(q.ttl.Milliseconds()))
	b = appendSized(b, m.Body)
	b = appendSized(b, m.Ref)
	b = appendSized(b, m.CollapseKey)
	b = binary.BigEndian.AppendUint32(b, uint32(len(m.Headers)))
	for _, h := range m.Headers {
		b = appendSized(appendSized(b, h.Name), h.Value)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(q.targets)))
	for _, t := range q.targets {
		b = appendSized(b, t.User)
		var devices []push.DeviceID
		if t.Filter != nil {
			devices = t.Filter.Devices
		}
		b = binary.BigEndian.AppendUint32(b, uint32(len(devices)))
		for _, d := range devices {
			b = appendSized(b, d)
		}
	}
	// Only if there is one: requests without are hashed as they were before there were filters.
	if f := q.filter(); f != nil {
		b = saver.AppendFilter(b, f)
	}
	if q.membership != unsaid {
		b = append(b, byte(q.membership)) // likewise
	}
	return sha256.Sum256(b)
}

// appendSized appends the length and the bytes, so that no two requests are hashed as the same bytes.
func appendSized[T ~string | ~[]byte](b []byte, s T) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}

func flag(v bool) byte {
	if v {
		return 1
	}
	return 0
}
