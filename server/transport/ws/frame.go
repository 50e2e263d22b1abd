package ws

import (
	"encoding/binary"

	"carillon/server/wire"
)

// opcode says what a WebSocket frame is; with fin it is the frame's first byte.
type opcode byte

const (
	fin        opcode = 0x80
	opContinue opcode = 0x0
	opText     opcode = 0x1
	opBinary   opcode = 0x2
	opClose    opcode = 0x8
	opPing     opcode = 0x9
	opPong     opcode = 0xa
)

// A server's frame is not masked, so its header has two bytes for payloads up to 125 bytes, four up to 64 KiB - 1, else
// ten.
const (
	shortHeader, mediumHeader, longHeader = 2, 4, 10

	maxShort  = 125
	maxMedium = 1<<16 - 1
)

// appendText appends one frame of a session as a text message. The payload is encoded in place behind room for a medium
// header, the commonest by volume, and moved by a few bytes where it turns out shorter or longer.
func appendText(dst []byte, o *wire.Out) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, mediumHeader)...)
	dst = wire.AppendOut(dst, wire.JSON, o)
	n := len(dst) - start - mediumHeader
	switch {
	case n <= maxShort:
		copy(dst[start+shortHeader:], dst[start+mediumHeader:])
		dst = dst[:start+shortHeader+n]
		dst[start+1] = byte(n)
	case n <= maxMedium:
		dst[start+1] = 126
		binary.BigEndian.PutUint16(dst[start+2:], uint16(n))
	default:
		dst = append(dst, make([]byte, longHeader-mediumHeader)...)
		copy(dst[start+longHeader:], dst[start+mediumHeader:start+mediumHeader+n])
		dst[start+1] = 127
		binary.BigEndian.PutUint64(dst[start+2:], uint64(n))
	}
	dst[start] = byte(fin | opText)
	return dst
}

// appendControl appends a control frame; its payload has at most 125 bytes.
func appendControl(dst []byte, op opcode, payload []byte) []byte {
	dst = append(dst, byte(fin|op), byte(len(payload)))
	return append(dst, payload...)
}

// closePayload returns what our close frame says: the code and its name.
func closePayload(code wire.CloseCode) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(code)), code.String()...)
}
