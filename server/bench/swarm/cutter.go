package swarm

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// maxFrame is the largest frame that is taken: the largest body, many times over.
const maxFrame = 1 << 20

// The opcodes of RFC 6455 that a server sends.
const (
	opText  = 0x1
	opClose = 0x8
	opPing  = 0x9
	opPong  = 0xa
)

// wsFrame is a WebSocket frame of the server. Its payload is a part of the buffer that it was cut from.
type wsFrame struct {
	op      byte
	payload []byte
}

// cutFrame cuts the first WebSocket frame off b and returns how many bytes it took; 0 if b does not hold it whole. A frame
// that a server of ours never sends is an error: one that is masked, in fragments, binary, or of an extension.
func cutFrame(b []byte) (f wsFrame, n int, err error) {
	if len(b) < 2 {
		return f, 0, nil
	}
	f.op = b[0] & 0x0f
	switch {
	case b[0]&0x80 == 0:
		return f, 0, errors.New("the server sent a message in fragments")
	case b[0]&0x70 != 0:
		return f, 0, errors.New("the server sent a frame of an extension")
	case b[1]&0x80 != 0:
		return f, 0, errors.New("the server sent a masked frame")
	case f.op != opText && f.op != opClose && f.op != opPing && f.op != opPong:
		return f, 0, fmt.Errorf("the server sent a frame with opcode %#x", f.op)
	}
	header, length := 2, uint64(b[1])
	switch length {
	case 126:
		header = 4
		if len(b) < header {
			return f, 0, nil
		}
		length = uint64(binary.BigEndian.Uint16(b[2:]))
	case 127:
		header = 10
		if len(b) < header {
			return f, 0, nil
		}
		length = binary.BigEndian.Uint64(b[2:])
	}
	if length > maxFrame { // judged before it is added to anything
		return f, 0, fmt.Errorf("the server sent a frame of %d bytes", length)
	}
	n = header + int(length)
	if len(b) < n {
		return f, 0, nil
	}
	f.payload = b[header:n]
	return f, n, nil
}
