package saver

import (
	"encoding/binary"

	"carillon/server/push"
)

// Flags of a fence.
const (
	fenceBody  = 1 << 0
	fenceFlags = fenceBody
)

// AppendFence appends: version, flags, token, until.
func AppendFence(dst []byte, f *StoredFence) []byte {
	var flags byte
	if f.Body {
		flags |= fenceBody
	}
	dst = append(appendVersion(dst), flags)
	dst = binary.AppendUvarint(dst, f.Token)
	return binary.AppendUvarint(dst, uint64(f.Until))
}

// DecodeFence reads what AppendFence wrote.
func DecodeFence(b []byte) (StoredFence, error) {
	d := decoder{b: b}
	d.version()
	flags := d.byte()
	if flags&^byte(fenceFlags) != 0 {
		d.fail("unknown flags")
	}
	f := StoredFence{Body: flags&fenceBody != 0, Token: d.uint(), Until: push.MilliTime(d.uint())}
	if err := d.end("fence"); err != nil {
		return StoredFence{}, err
	}
	return f, nil
}

// Flags of a batch.
const (
	batchEveryone = 1 << 0
	batchRecalled = 1 << 1
	batchFlags    = batchEveryone | batchRecalled
)

// AppendBatch appends: version, flags; if it is for users how many, and each one's name; the lineage of the places (8 bytes), each one's epoch (8 bytes) and
// position; if it was taken back when, and the places of that in the same way.
func AppendBatch(dst []byte, s *StoredBatch) []byte {
	var flags byte
	if s.Everyone {
		flags |= batchEveryone
	}
	if s.Recalled != 0 {
		flags |= batchRecalled
	}
	dst = append(appendVersion(dst), flags)
	if !s.Everyone {
		dst = binary.AppendUvarint(dst, uint64(len(s.Users)))
		for _, u := range s.Users {
			dst = appendString(dst, string(u))
		}
	}
	dst = appendPlacesOfOne(dst, s.Places)
	if s.Recalled != 0 {
		dst = binary.AppendUvarint(dst, uint64(s.Recalled))
		dst = appendPlacesOfOne(dst, s.Recalls)
	}
	return dst
}

// appendPlacesOfOne appends places of one lineage.
func appendPlacesOfOne(dst []byte, ps []push.Place) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(ps[0].Lineage))
	for _, p := range ps {
		dst = binary.BigEndian.AppendUint64(dst, uint64(p.Epoch))
		dst = binary.AppendUvarint(dst, uint64(p.Pos))
	}
	return dst
}

// DecodeBatch reads what AppendBatch wrote.
func DecodeBatch(b []byte) (StoredBatch, error) {
	d := decoder{b: b}
	d.version()
	flags := d.byte()
	if flags&^byte(batchFlags) != 0 {
		d.fail("unknown flags")
	}
	s := StoredBatch{Everyone: flags&batchEveryone != 0}
	n := 1
	if !s.Everyone {
		n = d.some(10) // a name's length, an epoch and a position
		s.Users = make([]push.UserID, n)
		for i := range s.Users {
			s.Users[i] = push.UserID(d.str())
		}
	}
	s.Places = d.placesOfOne(n)
	if flags&batchRecalled != 0 {
		if s.Recalled = push.MilliTime(d.uint()); s.Recalled == 0 {
			d.fail("a batch that was taken back at no time")
		}
		s.Recalls = d.placesOfOne(n)
	}
	if err := d.end("batch"); err != nil {
		return StoredBatch{}, err
	}
	return s, nil
}

// placesOfOne reads n places of one lineage.
func (d *decoder) placesOfOne(n int) []push.Place {
	l := push.Lineage(d.fixed())
	ps := make([]push.Place, n)
	for i := range ps {
		ps[i] = push.Place{Epoch: push.SlotEpoch(d.fixed()), Lineage: l, Pos: push.Position(d.uint())}
	}
	return ps
}

// fixed reads 8 bytes.
func (d *decoder) fixed() uint64 {
	if len(d.b) < 8 {
		d.fail("too short")
		return 0
	}
	n := binary.BigEndian.Uint64(d.b)
	d.b = d.b[8:]
	return n
}
