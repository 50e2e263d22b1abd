package node

import (
	"encoding/binary"

	"carillon/server/nextversion"
	"carillon/server/push"
	"carillon/server/saver"
)

// Flags of a delivery.
const (
	hasMessage  = 1 << 0
	toEveryone  = 1 << 1
	hasFilter   = 1 << 2
	isBare      = 1 << 3 // neither a message nor a recall; rooms that do not know it get none, since they tell no tags
	flagsOfUser = 1 << 0 // of one user or place: a filter follows
)

// appendDelivery appends a delivery. Numbers are unsigned varints; strings have their length before them as such a number, messages and
// filters, which are as stores keep them, theirs in four bytes:
//
//	flags, product, recall, lineage
//	the message and the filter, as the flags say
//	the number of entries of own slots, each: user, epoch, lineage, position, flags, filter as they say
//	the number of entries of common slots, each: shard, epoch, lineage, position
//	the number of users, each: user, flags, filter as they say
//
// A later version adds to the end.
func appendDelivery(b []byte, d *push.Delivery) []byte {
	var flags uint64
	if d.Message != nil {
		flags |= hasMessage
	}
	if d.Everyone {
		flags |= toEveryone
	}
	if !d.Filter.IsZero() {
		flags |= hasFilter
	}
	if d.IsBare() {
		flags |= isBare
	}
	b = binary.AppendUvarint(b, flags)
	b = appendString(b, string(d.Product))
	b = binary.AppendUvarint(b, uint64(d.Recall))
	b = binary.AppendUvarint(b, uint64(d.Lineage))
	if flags&hasMessage != 0 {
		b = appendPart(b, func(b []byte) []byte { return saver.AppendMessage(b, d.Message) })
	}
	if flags&hasFilter != 0 {
		b = appendFilter(b, d.Filter)
	}
	b = binary.AppendUvarint(b, uint64(len(d.Own)))
	for i := range d.Own {
		o := &d.Own[i]
		b = appendPlace(appendString(b, string(o.User)), o.Place)
		b = appendMaybe(b, o.Filter)
	}
	b = binary.AppendUvarint(b, uint64(len(d.Common)))
	for i := range d.Common {
		b = appendPlace(binary.AppendUvarint(b, uint64(d.Common[i].Shard)), d.Common[i].Place)
	}
	b = binary.AppendUvarint(b, uint64(len(d.Users)))
	for i := range d.Users {
		b = appendMaybe(appendString(b, string(d.Users[i].User)), d.Users[i].Filter)
	}
	return append(b, nextversion.Part...)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendPlace(b []byte, p push.Place) []byte {
	b = binary.AppendUvarint(b, uint64(p.Epoch))
	b = binary.AppendUvarint(b, uint64(p.Lineage))
	return binary.AppendUvarint(b, uint64(p.Pos))
}

func appendMaybe(b []byte, f *push.Filter) []byte {
	if f.IsZero() {
		return append(b, 0)
	}
	return appendFilter(append(b, flagsOfUser), f)
}

func appendFilter(b []byte, f *push.Filter) []byte {
	return appendPart(b, func(b []byte) []byte { return saver.AppendFilter(b, f) })
}

// appendPart appends what add appends, with its length before it.
func appendPart(b []byte, add func([]byte) []byte) []byte {
	at := len(b)
	b = add(append(b, 0, 0, 0, 0))
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return b
}

// decodeDelivery reads what appendDelivery wrote; nothing of the result shares memory with b.
func decodeDelivery(b []byte) (*push.Delivery, error) {
	r := reader{b: b}
	flags := r.uint()
	d := &push.Delivery{
		Product: push.ProductID(r.str()), Recall: push.MsgID(r.uint()), Lineage: push.Lineage(r.uint()), Everyone: flags&toEveryone != 0,
	}
	if flags&hasMessage != 0 {
		m, err := saver.DecodeMessage(r.part())
		if r.check(err) {
			d.Message = m
		}
	}
	if flags&hasFilter != 0 {
		d.Filter = r.filter()
	}
	if n := r.count(5); n > 0 {
		d.Own = make([]push.OwnPlace, n)
		for i := range d.Own {
			d.Own[i] = push.OwnPlace{User: push.UserID(r.str()), Place: r.place(), Filter: r.maybe()}
		}
	}
	if n := r.count(4); n > 0 {
		d.Common = make([]push.CommonPlace, n)
		for i := range d.Common {
			d.Common[i] = push.CommonPlace{Shard: push.Shard(r.uint()), Place: r.place()}
		}
	}
	if n := r.count(2); n > 0 {
		d.Users = make([]push.UserFilter, n)
		for i := range d.Users {
			d.Users[i] = push.UserFilter{User: push.UserID(r.str()), Filter: r.maybe()}
		}
	}
	if r.err == nil && d.IsBare() && flags&isBare == 0 {
		r.err = errBatch
	}
	if r.err != nil {
		return nil, r.err
	}
	return d, nil
}

var errBatch = push.Errorf(push.KindInvalid, "bad_batch", "a delivery that cannot be read")

// reader reads from b and stops at the first error: what it reads after that is zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) check(err error) bool {
	if err != nil && r.err == nil {
		r.err, r.b = errBatch, nil
	}
	return r.err == nil
}

func (r *reader) uint() uint64 {
	n, l := binary.Uvarint(r.b)
	if l <= 0 {
		r.check(errBatch)
		return 0
	}
	r.b = r.b[l:]
	return n
}

// count reads how many things follow, each of at least size bytes.
func (r *reader) count(size int) int {
	n := r.uint()
	if n > uint64(len(r.b)/size) {
		r.check(errBatch)
		return 0
	}
	return int(n)
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.check(errBatch)
		return nil
	}
	part := r.b[:n]
	r.b = r.b[n:]
	return part
}

func (r *reader) str() string { return string(r.take(r.uint())) }

func (r *reader) part() []byte {
	n := r.take(4)
	if n == nil {
		r.check(errBatch)
		return nil
	}
	return r.take(uint64(binary.BigEndian.Uint32(n)))
}

func (r *reader) filter() *push.Filter {
	f, err := saver.DecodeFilter(r.part())
	r.check(err)
	return f
}

func (r *reader) maybe() *push.Filter {
	if r.uint()&flagsOfUser == 0 {
		return nil
	}
	return r.filter()
}

func (r *reader) place() push.Place {
	return push.Place{Epoch: push.SlotEpoch(r.uint()), Lineage: push.Lineage(r.uint()), Pos: push.Position(r.uint())}
}
