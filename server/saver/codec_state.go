package saver

import (
	"encoding/binary"
	"time"

	"carillon/server/push"
)

// AppendSlot appends: version, epoch, head, origin, floor, freed, count, bytes, expiry, used; then the number of notes
// and each one's lineage, start and time.
func AppendSlot(dst []byte, s *Slot) []byte {
	dst = appendVersion(dst)
	for _, n := range [...]uint64{
		uint64(s.Epoch), uint64(s.Head), uint64(s.Origin), uint64(s.Floor), uint64(s.Freed),
		uint64(s.Count), uint64(s.Bytes), uint64(s.Expiry), uint64(s.Used), uint64(len(s.Notes)),
	} {
		dst = binary.AppendUvarint(dst, n)
	}
	for _, n := range s.Notes {
		dst = binary.AppendUvarint(dst, uint64(n.Lineage))
		dst = binary.AppendUvarint(dst, uint64(n.Start))
		dst = binary.AppendUvarint(dst, uint64(n.At))
	}
	return dst
}

// DecodeSlot reads what AppendSlot wrote. A slot without a note is refused: every slot has at least one.
func DecodeSlot(b []byte) (Slot, error) {
	d := decoder{b: b}
	d.version()
	s := Slot{
		SlotState: push.SlotState{
			Epoch:  push.SlotEpoch(d.uint()),
			Head:   push.Position(d.uint()),
			Origin: push.Position(d.uint()),
			Floor:  push.Position(d.uint()),
		},
		Freed:  push.Position(d.uint()),
		Count:  d.count(maxSize),
		Bytes:  d.count(maxSlotBytes),
		Expiry: push.MilliTime(d.uint()),
		Used:   push.MilliTime(d.uint()),
	}
	s.Notes = make([]push.Note, d.some(3))
	for i := range s.Notes {
		s.Notes[i] = push.Note{Lineage: push.Lineage(d.uint()), Start: push.Position(d.uint()), At: push.MilliTime(d.uint())}
	}
	if err := d.end("slot"); err != nil {
		return Slot{}, err
	}
	return s, nil
}

// maxSlotBytes is the most that the live entries of a slot may count for together.
const maxSlotBytes = 1<<53 - 1

// AppendDevice appends: version, id, platform (one byte), class, since, seen, online in milliseconds, then own and
// common cursor, own and common start, each as epoch, lineage and position. What is below a millisecond of Online is
// cut off.
func AppendDevice(dst []byte, v *Device) []byte {
	dst = appendVersion(dst)
	dst = appendString(dst, string(v.Device))
	dst = append(dst, byte(v.Platform))
	dst = appendString(dst, v.Class)
	dst = binary.AppendUvarint(dst, uint64(v.Since))
	dst = binary.AppendUvarint(dst, uint64(v.Seen))
	dst = binary.AppendUvarint(dst, uint64(max(v.Online, 0).Milliseconds()))
	for _, c := range [...]push.Cursor{v.Cursors, v.Start} {
		for _, p := range c {
			dst = appendPlace(dst, p)
		}
	}
	return dst
}

// DecodeDevice reads what AppendDevice wrote.
func DecodeDevice(b []byte) (Device, error) {
	d := decoder{b: b}
	d.version()
	var v Device
	v.Device = push.DeviceID(d.str())
	v.Platform = push.Platform(d.byte())
	v.Class = d.str()
	v.Since = push.MilliTime(d.uint())
	v.Seen = push.MilliTime(d.uint())
	v.Online = time.Duration(d.count(uint64(maxOnline/time.Millisecond))) * time.Millisecond
	for _, c := range [...]*push.Cursor{&v.Cursors, &v.Start} {
		for i := range c {
			c[i] = d.place()
		}
	}
	if err := d.end("device"); err != nil {
		return Device{}, err
	}
	return v, nil
}

// maxOnline is the longest time online that is kept: no sum of durations overflows before.
const maxOnline = time.Duration(1<<63 - 1)

// KeyRecord is what is remembered of an idempotency key: enough to answer a repeat as the first time.
type KeyRecord struct {
	Digest     Digest
	ID         push.MsgID
	Created    push.MilliTime // of the message: the key is remembered from then on
	Expires    push.MilliTime // of the message; 0 if it was not persistent
	Until      push.MilliTime // the key is forgotten then
	Persistent bool
	Finished   bool // everything that the publication asked for is stored
}

// Known reports whether the key is still remembered.
func (k *KeyRecord) Known(now push.MilliTime) bool { return now < k.Until }

// AppendKey appends: version, the digest as it is, id, created, expires, until, persistent and finished as 0 or 1.
func AppendKey(dst []byte, k *KeyRecord) []byte {
	dst = appendVersion(dst)
	dst = append(dst, k.Digest[:]...)
	for _, n := range [...]uint64{uint64(k.ID), uint64(k.Created), uint64(k.Expires), uint64(k.Until)} {
		dst = binary.AppendUvarint(dst, n)
	}
	return append(dst, truth(k.Persistent), truth(k.Finished))
}

// DecodeKey reads what AppendKey wrote.
func DecodeKey(b []byte) (KeyRecord, error) {
	d := decoder{b: b}
	d.version()
	var k KeyRecord
	for i := range k.Digest {
		k.Digest[i] = d.byte()
	}
	k.ID = push.MsgID(d.uint())
	k.Created = push.MilliTime(d.uint())
	k.Expires = push.MilliTime(d.uint())
	k.Until = push.MilliTime(d.uint())
	k.Persistent = d.flag()
	k.Finished = d.flag()
	if err := d.end("idempotency record"); err != nil {
		return KeyRecord{}, err
	}
	return k, nil
}

func truth(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// StoredRecord is a message's record as stores keep it: Now is not stored, and the message has no body.
type StoredRecord struct {
	Record
	Recalls []push.Place // where the recall's entries lie, as Own or Common; nil if it was not recalled
}

// AppendRecord appends: version, the length and bytes of the message as AppendMessage writes it without its body,
// recalled, everyone as 0 or 1; then, if for everyone, the filter (0 if there is none), the number of places and each
// place; otherwise the number of users and for each one name, filter and place; last the number of recall places and
// each place.
func AppendRecord(dst []byte, r *StoredRecord) []byte {
	dst = appendVersion(dst)
	m := WithoutBody(r.Message)
	enc := AppendMessage(make([]byte, 0, 64+m.Size()), m)
	dst = binary.AppendUvarint(dst, uint64(len(enc)))
	dst = append(dst, enc...)
	dst = binary.AppendUvarint(dst, uint64(r.Recalled))
	dst = append(dst, truth(r.Everyone))
	if r.Everyone {
		dst = appendFilter(dst, r.Filter)
		dst = appendPlaces(dst, r.Common)
	} else {
		dst = binary.AppendUvarint(dst, uint64(len(r.Own)))
		for i := range r.Own {
			o := &r.Own[i]
			dst = appendString(dst, string(o.User))
			dst = appendFilter(dst, o.Filter)
			dst = appendPlace(dst, o.Place)
		}
	}
	return appendPlaces(dst, r.Recalls)
}

// DecodeRecord reads what AppendRecord wrote.
func DecodeRecord(b []byte) (StoredRecord, error) {
	d := decoder{b: b}
	d.version()
	var r StoredRecord
	md := decoder{b: d.bytes(), err: d.err}
	r.Message = md.message()
	if err := md.end("message record"); err != nil {
		return StoredRecord{}, err
	}
	if r.Message.Body != nil {
		d.fail("a record with a body")
	}
	r.Recalled = push.MilliTime(d.uint())
	if r.Everyone = d.flag(); r.Everyone {
		r.Filter = d.maybeFilter()
		r.Common = d.places()
	} else if n := d.count(uint64(len(d.b) / 5)); n > 0 {
		r.Own = make([]RecordPlace, n)
		for i := range r.Own {
			o := &r.Own[i]
			o.User = push.UserID(d.str())
			o.Filter = d.maybeFilter()
			o.Place = d.place()
		}
	}
	r.Recalls = d.places()
	if err := d.end("message record"); err != nil {
		return StoredRecord{}, err
	}
	return r, nil
}

// maybeFilter reads a filter that may be zero; it is nil then.
func (d *decoder) maybeFilter() *push.Filter {
	if len(d.b) > 0 && d.b[0] == 0 {
		d.b = d.b[1:]
		return nil
	}
	return d.filter()
}

func appendPlace(dst []byte, p push.Place) []byte {
	dst = binary.AppendUvarint(dst, uint64(p.Epoch))
	dst = binary.AppendUvarint(dst, uint64(p.Lineage))
	return binary.AppendUvarint(dst, uint64(p.Pos))
}

func (d *decoder) place() push.Place {
	return push.Place{Epoch: push.SlotEpoch(d.uint()), Lineage: push.Lineage(d.uint()), Pos: push.Position(d.uint())}
}

func appendPlaces(dst []byte, ps []push.Place) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(ps)))
	for _, p := range ps {
		dst = appendPlace(dst, p)
	}
	return dst
}

// places reads a list of places; an empty one is nil.
func (d *decoder) places() []push.Place {
	n := d.count(uint64(len(d.b) / 3))
	if n == 0 {
		return nil
	}
	ps := make([]push.Place, n)
	for i := range ps {
		ps[i] = d.place()
	}
	return ps
}
