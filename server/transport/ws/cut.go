package ws

import (
	"encoding/binary"
)

// cut returns how many bytes at the beginning of b are whole frames, and why what follows them is none that may be waited
// for. It looks at headers only, and refuses before it adds: a client that announces 2^64 bytes is refused at the
// announcement, and no length meets an addition that could overflow.
//
// What else RFC 6455 asks of a frame is judged once it is whole, by the library unless nothing is left to judge (readWhole). What
// stands here are the lengths, which it has to know, and what a header alone gives away, so that a client need not send a megabyte to hear that
// its first byte was wrong.
//
// limit is that of the message that b begins in, later the one of those behind it.
func cut(b []byte, limit, later int) (whole int, refusal error) {
	for {
		h, n := readHeader(b[whole:])
		switch {
		case n == 0:
			return whole, nil
		case h.broken():
			return whole, errProtocol
		case h.length > uint64(limit):
			return whole, errTooLarge
		case uint64(len(b)-whole-n) < h.length:
			return whole, nil
		}
		whole += n + int(h.length)
		if h.first&fin != 0 && h.first.data() {
			limit = later // the first message ends here
		}
	}
}

// frameHeader is the header of a client's frame, of which the mask is the library's business.
type frameHeader struct {
	first  opcode
	masked bool
	length uint64
}

const (
	reserved   opcode = 0x70
	opcodeBits opcode = 0x0f
	masked     byte   = 0x80
	maskBytes         = 4
	lengthBits byte   = 0x7f
	length16   byte   = 126
	length64   byte   = 127
	highestBit        = 1 << 63
)

// readHeader reads a header at the beginning of b and returns how many bytes it has, 0 if it has not come whole.
func readHeader(b []byte) (h frameHeader, n int) {
	if len(b) < 2 {
		return h, 0
	}
	h.first, h.masked = opcode(b[0]), b[1]&masked != 0
	n = 2
	switch l := b[1] & lengthBits; l {
	case length16:
		if n += 2; len(b) < n {
			return h, 0
		}
		h.length = uint64(binary.BigEndian.Uint16(b[2:]))
	case length64:
		if n += 8; len(b) < n {
			return h, 0
		}
		h.length = binary.BigEndian.Uint64(b[2:])
	default:
		h.length = uint64(l)
	}
	if h.masked {
		if n += maskBytes; len(b) < n {
			return h, 0
		}
	}
	return h, n
}

// broken reports whether no frame of a client may begin so (RFC 6455, 5.1, 5.2 and 5.5).
func (h *frameHeader) broken() bool {
	if !h.masked || h.first&reserved != 0 || h.length >= highestBit {
		return true
	}
	switch op := h.first & opcodeBits; op {
	case opContinue, opText, opBinary:
		return false
	case opClose, opPing, opPong:
		return h.first&fin == 0 || h.length > maxShort
	}
	return true
}

// data reports whether the frame is a part of a message.
func (o opcode) data() bool { return o&opcodeBits <= opBinary }
