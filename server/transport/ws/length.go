package ws

import "encoding/binary"

// lengths is for the goroutine form what cut is for the parked one. It follows the headers of the frames that pass on their
// way to the library, so that a message is refused when its
// length is announced. The library would refuse it only after it has read what the limit allows: a client that announces
// too much and sends nothing would be waited for.
type lengths struct {
	head    [10]byte // of the header that passes, without its masking key
	have    uint8    // how much of that header passed
	left    uint64   // what is still to pass of the frame's payload
	greeted bool     // the first message, which has a limit of its own, is at its end
}

// pass returns how many bytes of b may go on to the library: all, or those before a header that announces more than the
// limit of its message. What a message adds up to over its frames is for the library to count, and a length of 2^63 or
// more is none at all, which it refuses by itself.
func (l *lengths) pass(b []byte, first, later int) (n int, ok bool) {
	begin := 0 // of the header, as far as it stands in b
	for i := 0; i < len(b); {
		if l.left > 0 {
			skip := min(l.left, uint64(len(b)-i))
			l.left -= skip
			i += int(skip)
			continue
		}
		if l.have == 0 {
			begin = i
		}
		if int(l.have) < len(l.head) {
			l.head[l.have] = b[i]
		}
		l.have++
		i++
		length, size := l.announced()
		if l.have < size {
			continue
		}
		limit := first
		if l.greeted {
			limit = later
		}
		data := opcode(l.head[0])&0xf < opClose
		if data && length > uint64(limit) && length < 1<<63 {
			return begin, false
		}
		if data && opcode(l.head[0])&fin != 0 {
			l.greeted = true
		}
		l.have, l.left = 0, length
	}
	return len(b), true
}

// announced returns the length of the payload and the size of the whole header, as far as they can be told.
func (l *lengths) announced() (length uint64, size uint8) {
	if l.have < 2 {
		return 0, 2
	}
	size = 2
	switch length = uint64(l.head[1] & 0x7f); length {
	case 126:
		size += 2
		length = uint64(binary.BigEndian.Uint16(l.head[2:]))
	case 127:
		size += 8
		length = binary.BigEndian.Uint64(l.head[2:])
	}
	if l.head[1]&0x80 != 0 {
		size += 4
	}
	return length, size
}
