package redisdb

import (
	"encoding/binary"
	"fmt"
	"strconv"

	"carillon/server/push"
)

// A unit of work travels to its function as some keys and one packed argument, because an argument costs Redis as much as reading ten
// fields out of one that it has. All numbers are little-endian, and what is variable stands behind its length:
//
//	read:      keys:2 commands:2 command...
//	write:     keys:2 lineage:1+ conditions:2 condition... commands:2 command...
//	condition: key:2 fields:2 field:4+... (there:1 value:4+)...    of a string if there is no field,
//	           and of the number of a hash's fields if there are 65535
//	command:   name:1+ key:2 args:2 arg:4+...
//
// A key is told by its place among the unit's, from 1.
type encoder struct {
	buf  []byte
	keys []string
	base int // where the keys of the unit at hand begin
	err  error
}

// The most that a unit may hold, so that one cannot keep Redis from all others.
const (
	maxUnitKeys  = 1 << 12
	maxUnitArgs  = 1 << 14
	maxUnitBytes = 32 << 20
)

func (e *encoder) u8(n int)  { e.buf = append(e.buf, byte(n)) }
func (e *encoder) u16(n int) { e.buf = binary.LittleEndian.AppendUint16(e.buf, uint16(n)) }
func (e *encoder) u32(n int) { e.buf = binary.LittleEndian.AppendUint32(e.buf, uint32(n)) }

func (e *encoder) short(s string) {
	if len(s) > 255 {
		e.refuse("a name of %d bytes", len(s))
		s = ""
	}
	e.u8(len(s))
	e.buf = append(e.buf, s...)
}

func (e *encoder) long(s string) {
	e.u32(len(s))
	e.buf = append(e.buf, s...)
}

func (e *encoder) refuse(format string, args ...any) {
	if e.err == nil {
		e.err = push.Errorf(push.KindInternal, "store_unit", "no unit of work has "+format, args...)
	}
}

// key writes where a key stands among those of the unit, which it joins if it is new.
func (e *encoder) key(k string) {
	for i, known := range e.keys[e.base:] {
		if known == k {
			e.u16(i + 1)
			return
		}
	}
	e.keys = append(e.keys, k)
	e.u16(len(e.keys) - e.base)
}

// count writes how many there are, none of which may be left out.
func (e *encoder) count(n int) {
	if n > maxUnitArgs {
		e.refuse("%d parts of one kind", n)
	}
	e.u16(n)
}

// arg writes an argument as Redis will see it.
func (e *encoder) arg(a any) {
	switch a := a.(type) {
	case string:
		e.long(a)
	case []byte:
		e.u32(len(a))
		e.buf = append(e.buf, a...)
	case int:
		e.number(int64(a))
	case int64:
		e.number(a)
	case uint64:
		e.buf = append(e.buf, 0, 0, 0, 0)
		from := len(e.buf)
		e.buf = strconv.AppendUint(e.buf, a, 10)
		binary.LittleEndian.PutUint32(e.buf[from-4:], uint32(len(e.buf)-from))
	default:
		e.refuse("an argument of type %T", a)
	}
}

func (e *encoder) number(n int64) {
	e.buf = append(e.buf, 0, 0, 0, 0)
	from := len(e.buf)
	e.buf = strconv.AppendInt(e.buf, n, 10)
	binary.LittleEndian.PutUint32(e.buf[from-4:], uint32(len(e.buf)-from))
}

func (e *encoder) commands(cs []Command) {
	e.count(len(cs))
	for i := range cs {
		c := &cs[i]
		e.short(c.Name)
		if c.log != nil {
			c.log.encode(e, c.Key)
			continue
		}
		e.key(c.Key)
		e.count(len(c.Args))
		for _, a := range c.Args {
			e.arg(a)
		}
	}
}

// conditions writes conditions, those on fields of one hash that stand next to each other in one.
func (e *encoder) conditions(cs []Condition) {
	at, n := len(e.buf), 0
	e.u16(0)
	for len(cs) > 0 {
		same := 1
		for same < len(cs) && cs[0].Hash && !cs[0].Len && cs[same].Hash && !cs[same].Len && cs[same].Key == cs[0].Key && same < maxFields {
			same++
		}
		e.key(cs[0].Key)
		switch {
		case cs[0].Len:
			e.u16(fieldsCounted)
		case !cs[0].Hash:
			e.u16(0)
		default:
			e.u16(same)
			for _, c := range cs[:same] {
				e.long(c.Field)
			}
		}
		for _, c := range cs[:same] {
			switch {
			case c.Len:
				e.u8(1)
				e.number(int64(c.N))
			case c.Absent:
				e.u8(0)
				e.u32(0)
			default:
				e.u8(1)
				e.long(c.Value)
			}
		}
		cs = cs[same:]
		n++
	}
	if n > maxUnitArgs {
		e.refuse("%d conditions", n)
	}
	binary.LittleEndian.PutUint16(e.buf[at:], uint16(n))
}

const (
	maxFields     = 256       // of one condition
	fieldsCounted = 1<<16 - 1 // in place of how many: the condition is how many fields the hash has
)

// begin starts a unit and returns where it begins; end finishes it.
func (e *encoder) begin() (at int) {
	at, e.base, e.err = len(e.buf), len(e.keys), nil
	e.u16(0)
	return at
}

func (e *encoder) end(at int) {
	n := len(e.keys) - e.base
	if n > maxUnitKeys {
		e.refuse("%d keys", n)
	}
	if len(e.buf)-at > maxUnitBytes {
		e.refuse("%d bytes", len(e.buf)-at)
	}
	binary.LittleEndian.PutUint16(e.buf[at:], uint16(n))
}

func (e *encoder) read(r *Read) {
	at := e.begin()
	e.commands(r.Do)
	e.end(at)
}

func (e *encoder) write(w *Write) {
	at := e.begin()
	if w.Under == 0 {
		e.u8(0)
	} else {
		e.short(lineageDigits(w.Under))
	}
	e.conditions(w.If)
	e.commands(w.Do)
	e.end(at)
}

// lineageDigits returns a lineage as the functions compare it: 15 digits, so that it is below 2^63 as lineages are.
func lineageDigits(l push.Lineage) string { return fmt.Sprintf("%015x", uint64(l)) }
