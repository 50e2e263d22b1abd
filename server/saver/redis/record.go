package redis

import (
	"encoding/binary"

	"carillon/server/nextversion"
	"carillon/server/push"
	"carillon/server/saver"
)

// record is what a shard keeps of a message: where it lies in the slots of that shard. It is also the mark by which nobody appends the
// message again. That of a message to one user is all there is of it, so it says what the message was; otherwise the
// publication's intent does, which also names the users.
type record struct {
	single *single // nil: there is an intent

	places   []push.Place   // by user
	recalled push.MilliTime // 0: it was not
	recalls  []push.Place   // by user, if it was recalled
}

// single is a message to one user.
type single struct {
	message *push.Message // without body
	target  saver.Target
}

const recordVersion = 1 + nextversion.Step

// Flags of a record.
const (
	recordSingle   = 1 << 0
	recordRecalled = 1 << 1
	recordAttrs    = 1 << 2 // the message has attributes besides its times
	recordFilter   = 1 << 3
	recordFlags    = recordSingle | recordRecalled | recordAttrs | recordFilter
)

// appendRecord appends: version, flags; of a single one created and expires (from created on), then as the flags say the message, as
// AppendMessage writes it, and the filter, each with its length before it; otherwise the number of places; then the places; if it was
// recalled when, and those places; last, of a single one, the user. Places are epoch and lineage (8 bytes each) and position. A record
// of a plain message to one user has 37 bytes and the user's name.
func appendRecord(dst []byte, r *record) []byte {
	var flags byte
	var attrs, filter []byte
	if r.recalled != 0 {
		flags |= recordRecalled
	}
	if one := r.single; one != nil {
		flags |= recordSingle
		if m := one.message; m.Ref != "" || m.CollapseKey != "" || len(m.Headers) > 0 || m.Kind != push.BodyJSON || m.Task || !m.Persistent {
			flags |= recordAttrs
			attrs = saver.AppendMessage(nil, saver.WithoutBody(m))
		}
		if !one.target.Filter.IsZero() {
			flags |= recordFilter
			filter = saver.AppendFilter(nil, one.target.Filter)
		}
	}
	dst = append(appendVersion(dst, recordVersion), flags)
	if one := r.single; one != nil {
		dst = binary.AppendUvarint(dst, uint64(one.message.Created))
		dst = binary.AppendVarint(dst, int64(one.message.Expires-one.message.Created))
		if attrs != nil {
			dst = appendText(dst, string(attrs))
		}
		if filter != nil {
			dst = appendText(dst, string(filter))
		}
	} else {
		dst = binary.AppendUvarint(dst, uint64(len(r.places)))
	}
	for _, p := range r.places {
		dst = appendPlace(dst, p)
	}
	if r.recalled != 0 {
		dst = binary.AppendUvarint(dst, uint64(r.recalled))
		for _, p := range r.recalls {
			dst = appendPlace(dst, p)
		}
	}
	if r.single != nil {
		dst = append(dst, r.single.target.User...)
	}
	return dst
}

// decodeRecord reads what appendRecord wrote, of the message of that id.
func decodeRecord(id push.MsgID, v any) (*record, error) {
	s, ok := v.(string)
	if !ok {
		return nil, corrupt("a message's record")
	}
	d := reader{v: s}
	d.version(recordVersion)
	flags := d.byte()
	if flags&^recordFlags != 0 || flags&recordSingle == 0 && flags&(recordAttrs|recordFilter) != 0 {
		d.fail()
	}
	r := &record{}
	n := 1
	if flags&recordSingle != 0 {
		m := &push.Message{ID: id, Created: push.MilliTime(d.uint()), Persistent: true}
		zig := d.uint()
		m.Expires = m.Created + push.MilliTime(int64(zig>>1)^-int64(zig&1))
		r.single = &single{message: m}
		if flags&recordAttrs != 0 {
			full, err := saver.DecodeMessage([]byte(d.text()))
			if err != nil {
				return nil, err
			}
			r.single.message = full
		}
		if flags&recordFilter != 0 {
			var err error
			if r.single.target.Filter, err = saver.DecodeFilter([]byte(d.text())); err != nil {
				return nil, err
			}
		}
	} else if n = d.count(); n > len(d.v)/17 {
		d.fail()
		n = 0
	}
	r.places = d.places(n)
	if flags&recordRecalled != 0 {
		if r.recalled = push.MilliTime(d.uint()); r.recalled == 0 {
			d.fail() // the flag says otherwise
		}
		r.recalls = d.places(n)
	}
	if r.single != nil {
		r.single.target.User, d.v = push.UserID(d.v), ""
	}
	if err := d.end("a message's record"); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *reader) places(n int) []push.Place {
	ps := make([]push.Place, n)
	for i := range ps {
		ps[i] = r.place()
	}
	return ps
}
