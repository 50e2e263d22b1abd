package redisdb

import (
	"encoding/binary"
	"strconv"

	"carillon/server/push"
)

// A unit of work travels to its function as some keys and one packed argument, because an argument costs Redis as much as reading ten
// fields out of one that it has. In it stand first all numbers and then all strings, so that the function takes the ones apart at once, and then the
// others: a look at each would cost it as much as the commands do. Numbers are little-endian:
//
//	unit:      numbers:4 strings:4 number:2... (length:4 string)...
//
// Keys are arguments of their own where Redis has to know them before the call, in a cluster. Elsewhere they are the first strings of their unit.
//
// By their numbers, and the strings in the order in which those name them:
//
//	read:      keys commands command...
//	write:     keys lineage(there) conditions condition... commands command...
//	condition: key fields there...           strings: field..., then the value of each that is there; of a string if there is no field,
//	                                         and of the number of a hash's fields if there are 65535
//	command:   0 key args                    strings: name arg...; or 3 in place of 0: its reply is not returned
//	           1 sessions log kept idle      strings: user change; see Tag.Announce. Idle is in seconds
//	           2 log kept idle mark          strings: after; see Tag.ChangesSince
//
// A key is told by its place among the unit's, from 1.
type encoder struct {
	named bool // keys are arguments of the call
	buf   []byte
	keys  []string
	base  int // where the keys of the unit at hand begin
	err   error

	// Of the unit at hand.
	numbers, strings   []byte
	nNumbers, nStrings int
}

// The most that a unit may hold, so that one cannot keep Redis from all others.
const (
	maxUnitKeys  = 1 << 12
	maxUnitArgs  = 1 << 14
	maxUnitBytes = 32 << 20
)

func (e *encoder) number(n int) {
	e.numbers = binary.LittleEndian.AppendUint16(e.numbers, uint16(n))
	e.nNumbers++
}

func (e *encoder) text(s string) {
	e.strings = append(binary.LittleEndian.AppendUint32(e.strings, uint32(len(s))), s...)
	e.nStrings++
}

func (e *encoder) bytes(b []byte) {
	e.strings = append(binary.LittleEndian.AppendUint32(e.strings, uint32(len(b))), b...)
	e.nStrings++
}

// made adds the string that put appends.
func (e *encoder) made(put func(b []byte) []byte) {
	at := len(e.strings)
	e.strings = put(binary.LittleEndian.AppendUint32(e.strings, 0))
	binary.LittleEndian.PutUint32(e.strings[at:], uint32(len(e.strings)-at-4))
	e.nStrings++
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
			e.number(i + 1)
			return
		}
	}
	e.keys = append(e.keys, k)
	e.number(len(e.keys) - e.base)
}

// count writes how many there are, none of which may be left out.
func (e *encoder) count(n int) {
	if n > maxUnitArgs {
		e.refuse("%d parts of one kind", n)
	}
	e.number(n)
}

// arg writes an argument as Redis will see it.
func (e *encoder) arg(a any) {
	switch a := a.(type) {
	case string:
		e.text(a)
	case *string:
		e.text(*a)
	case []byte:
		e.bytes(a)
	case *[]byte:
		e.bytes(*a)
	case int:
		e.decimal(int64(a))
	case int64:
		e.decimal(a)
	case uint64:
		e.made(func(b []byte) []byte { return strconv.AppendUint(b, a, 10) })
	default:
		e.refuse("an argument of type %T", a)
	}
}

func (e *encoder) decimal(n int64) {
	e.made(func(b []byte) []byte { return strconv.AppendInt(b, n, 10) })
}

func (e *encoder) commands(cs []Command, write bool) {
	e.count(len(cs))
	for i := range cs {
		c := &cs[i]
		if c.log != nil {
			c.log.encode(e, c.Key)
			continue
		}
		if c.tells(write) {
			e.number(commandPlain)
		} else {
			e.number(commandQuiet)
		}
		e.key(c.Key)
		e.count(len(c.Args))
		e.text(c.Name)
		for _, a := range c.Args {
			e.arg(a)
		}
	}
}

// Kinds of commands.
const (
	commandPlain = iota
	commandAnnounce
	commandSince
	commandQuiet
)

// conditions writes conditions, those on fields of one hash that stand next to each other in one.
func (e *encoder) conditions(cs []Condition) {
	at, n := len(e.numbers), 0
	e.number(0)
	for len(cs) > 0 {
		same := 1
		for same < len(cs) && cs[0].Hash && !cs[0].Len && cs[same].Hash && !cs[same].Len && cs[same].Key == cs[0].Key && same < maxFields {
			same++
		}
		e.key(cs[0].Key)
		switch {
		case cs[0].Len:
			e.number(fieldsCounted)
		case !cs[0].Hash:
			e.number(0)
		default:
			e.number(same)
			for i := range cs[:same] {
				e.text(cs[i].Field)
			}
		}
		for i := range cs[:same] {
			switch c := &cs[i]; {
			case c.Len:
				e.number(1)
				e.decimal(int64(c.N))
			case c.Absent:
				e.number(0)
			default:
				e.number(1)
				e.text(c.Value)
			}
		}
		cs = cs[same:]
		n++
	}
	if n > maxUnitArgs {
		e.refuse("%d conditions", n)
	}
	binary.LittleEndian.PutUint16(e.numbers[at:], uint16(n))
}

const (
	maxFields     = 256       // of one condition
	fieldsCounted = 1<<16 - 1 // in place of how many: the condition is how many fields the hash has
)

// begin starts a unit; end finishes it.
func (e *encoder) begin() {
	e.base, e.err = len(e.keys), nil
	e.numbers, e.strings, e.nNumbers, e.nStrings = e.numbers[:0], e.strings[:0], 0, 0
	e.number(0) // how many keys there are
}

func (e *encoder) end() {
	n := len(e.keys) - e.base
	if n > maxUnitKeys {
		e.refuse("%d keys", n)
	}
	if len(e.numbers)+len(e.strings) > maxUnitBytes {
		e.refuse("%d bytes", len(e.numbers)+len(e.strings))
	}
	binary.LittleEndian.PutUint16(e.numbers, uint16(n))
	strings := e.nStrings
	if !e.named {
		strings += n
	}
	e.buf = binary.LittleEndian.AppendUint32(e.buf, uint32(e.nNumbers))
	e.buf = binary.LittleEndian.AppendUint32(e.buf, uint32(strings))
	e.buf = append(e.buf, e.numbers...)
	if !e.named {
		for _, k := range e.keys[e.base:] {
			e.buf = append(binary.LittleEndian.AppendUint32(e.buf, uint32(len(k))), k...)
		}
		clear(e.keys[e.base:])
		e.keys = e.keys[:e.base]
	}
	e.buf = append(e.buf, e.strings...)
}

func (e *encoder) read(r *Read) {
	e.begin()
	e.commands(r.Do, false)
	e.end()
}

func (e *encoder) write(w *Write) {
	e.begin()
	if w.Under == 0 {
		e.number(0)
	} else {
		e.number(1)
		e.made(func(b []byte) []byte { return appendLineage(b, w.Under) })
	}
	e.conditions(w.If)
	e.commands(w.Do, true)
	e.end()
}

// appendLineage appends a lineage as the functions compare it: 15 digits, so that it is below 2^63 as lineages are.
func appendLineage(b []byte, l push.Lineage) []byte {
	const digits = "0123456789abcdef"
	for shift := 4 * (lineageLen - 1); shift >= 0; shift -= 4 {
		b = append(b, digits[l>>shift&15])
	}
	return b
}

const lineageLen = 15
