package redis

import (
	"encoding/binary"
	"math"

	"carillon/server/nextversion"
	"carillon/server/push"
	"carillon/server/saver"
)

// packed is the state of a slot as it is stored: [saver.Slot] and where its entries lie. It is small, since every user has one, and
// a hash of short values is kept by Redis in less than half the memory of one with a long value (more than 64 bytes).
type packed struct {
	saver.Slot
	base    push.Position // the list holds what lies above
	aside   int           // kept entries at or below base: in the hash
	keyed   int           // kept entries with a collapse identity
	changes uint64        // of the user's devices: one that came or went
}

const packedVersion = 1 + nextversion.Step

// appendPacked appends: version, epoch (8 bytes), origin; from the origin on head, floor (0 for none, else one more), freed and base; count,
// bytes, expiry, used, aside, keyed, changes; the number of notes and each one's lineage (8 bytes), start from the origin on, time.
// Numbers without a size are varints.
func appendPacked(dst []byte, p *packed) []byte {
	dst = appendVersion(dst, packedVersion)
	dst = binary.BigEndian.AppendUint64(dst, uint64(p.Epoch))
	var floor push.Position
	if p.Floor > 0 {
		floor = p.Floor - p.Origin + 1
	}
	for _, n := range [...]uint64{
		uint64(p.Origin), uint64(p.Head - p.Origin), uint64(floor), uint64(p.Freed - p.Origin), uint64(p.base - p.Origin),
		uint64(p.Count), uint64(p.Bytes), uint64(p.Expiry), uint64(p.Used), uint64(p.aside), uint64(p.keyed), p.changes, uint64(len(p.Notes)),
	} {
		dst = binary.AppendUvarint(dst, n)
	}
	for _, n := range p.Notes {
		dst = binary.BigEndian.AppendUint64(dst, uint64(n.Lineage))
		dst = binary.AppendUvarint(dst, uint64(n.Start-p.Origin))
		dst = binary.AppendUvarint(dst, uint64(n.At))
	}
	return dst
}

// decodePacked reads what appendPacked wrote.
func decodePacked(v string) (p packed, err error) {
	r := reader{v: v}
	r.version(packedVersion)
	p.Epoch = push.SlotEpoch(r.fixed())
	p.Origin = push.Position(r.uint())
	p.Head = p.Origin + push.Position(r.uint())
	if floor := r.uint(); floor > 0 {
		p.Floor = p.Origin + push.Position(floor) - 1
	}
	p.Freed = p.Origin + push.Position(r.uint())
	p.base = p.Origin + push.Position(r.uint())
	p.Count, p.Bytes = r.count(), int(r.uint()&math.MaxInt)
	p.Expiry, p.Used = push.MilliTime(r.uint()), push.MilliTime(r.uint())
	p.aside, p.keyed = r.count(), r.count()
	p.changes = r.uint()
	n := r.count()
	if n < 1 || n > len(r.v)/10 {
		r.fail()
		n = 0
	}
	p.Notes = make([]push.Note, n)
	for i := range p.Notes {
		p.Notes[i].Lineage = push.Lineage(r.fixed())
		p.Notes[i].Start = p.Origin + push.Position(r.uint())
		p.Notes[i].At = push.MilliTime(r.uint())
	}
	if p.Epoch == 0 || p.base > p.Head {
		r.fail()
	}
	return p, r.end("the state of a slot")
}

// reader takes a value apart. After a mistake it returns zeros; end tells.
type reader struct {
	v   string
	bad bool
}

func (r *reader) fail() { r.bad, r.v = true, "" }

// version reads the version of a value, as package saver does: what the one after ours added is passed over.
func (r *reader) version(ours byte) {
	switch v := r.byte(); {
	case v < 1 || v > ours+1:
		r.fail()
	case v > 1:
		r.text()
	}
}

func appendVersion(dst []byte, v byte) []byte { return append(append(dst, v), nextversion.Part...) }

func (r *reader) byte() byte {
	if len(r.v) == 0 {
		r.fail()
		return 0
	}
	c := r.v[0]
	r.v = r.v[1:]
	return c
}

// fixed reads 8 bytes.
func (r *reader) fixed() (n uint64) {
	if len(r.v) < 8 {
		r.fail()
		return 0
	}
	for i := range 8 {
		n = n<<8 | uint64(r.v[i])
	}
	r.v = r.v[8:]
	return n
}

func (r *reader) uint() (n uint64) {
	for i := 0; i < len(r.v) && i < binary.MaxVarintLen64; i++ {
		c := r.v[i]
		if i == binary.MaxVarintLen64-1 && c > 1 {
			break
		}
		n |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			r.v = r.v[i+1:]
			return n
		}
	}
	r.fail()
	return 0
}

// count reads a number that fits any int.
func (r *reader) count() int {
	n := r.uint()
	if n > 1<<31-1 {
		r.fail()
		return 0
	}
	return int(n)
}

// text reads a string with its length before it.
func (r *reader) text() string {
	n := r.count()
	if n > len(r.v) {
		r.fail()
		return ""
	}
	s := r.v[:n]
	r.v = r.v[n:]
	return s
}

func (r *reader) place() push.Place {
	return push.Place{Epoch: push.SlotEpoch(r.fixed()), Lineage: push.Lineage(r.fixed()), Pos: push.Position(r.uint())}
}

func (r *reader) end(what string) error {
	if r.bad || len(r.v) > 0 {
		return corrupt(what)
	}
	return nil
}

func corrupt(what string) error {
	return push.Errorf(push.KindInternal, "corrupt_value", "%s cannot be read", what)
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func appendPlace(dst []byte, p push.Place) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(p.Epoch))
	dst = binary.BigEndian.AppendUint64(dst, uint64(p.Lineage))
	return binary.AppendUvarint(dst, uint64(p.Pos))
}
