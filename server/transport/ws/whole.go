package ws

import (
	"encoding/binary"
	"unicode/utf8"

	"github.com/coder/websocket"
)

// readWhole takes from the beginning of frames, which are whole, those of which nothing is left to judge: text messages in one
// frame, which nearly all messages of clients are, pings, pongs, and the goodbyes that browsers say. It unmasks them where they
// lie. The library, which copies each through two readers and allocates for it, gets what begins with another one: fragments
// depend on what came before them, and the rules for other codes of a close frame are its own. readWhole returns that rest, and
// why the library, or anybody, need not read on, if that is so.
func (c *conn) readWhole(frames []byte) (rest []byte, end verdict) {
	for len(frames) > 0 && !c.inMessage() {
		h, n := readHeader(frames)
		payload, mask := frames[n:n+int(h.length)], frames[n-maskBytes:n]
		switch h.first {
		case fin | opText, fin | opPing, fin | opPong:
		case fin | opClose:
			unmask(payload, mask)
			if plainBye(payload) {
				return nil, verdict{bye: append([]byte{}, payload[:min(2, len(payload))]...)}
			}
			unmask(payload, mask) // as it was
			return frames, verdict{}
		default:
			return frames, verdict{}
		}
		unmask(payload, mask)
		frames = frames[n+len(payload):]
		switch h.first {
		case fin | opPing:
			c.alive()
			c.pong(append([]byte{}, payload...))
		case fin | opPong:
			c.alive()
		default:
			c.NoteFrame()
			if err := c.receive(payload); err != nil {
				return nil, judge(err)
			}
		}
	}
	return frames, verdict{}
}

// plainBye reports whether a close frame says nothing, or that the client is done or going away, with a reason that is UTF-8.
func plainBye(payload []byte) bool {
	if len(payload) < 2 {
		return len(payload) == 0
	}
	switch websocket.StatusCode(binary.BigEndian.Uint16(payload)) {
	case websocket.StatusNormalClosure, websocket.StatusGoingAway:
		return utf8.Valid(payload[2:])
	}
	return false
}

// unmask takes the mask of a client off its payload, or puts it on (RFC 6455, 5.3).
func unmask(payload, mask []byte) {
	key := binary.LittleEndian.Uint32(mask)
	twice := uint64(key)<<32 | uint64(key)
	for len(payload) >= 8 {
		binary.LittleEndian.PutUint64(payload, binary.LittleEndian.Uint64(payload)^twice)
		payload = payload[8:]
	}
	for i := range payload {
		payload[i] ^= mask[i%maskBytes]
	}
}
