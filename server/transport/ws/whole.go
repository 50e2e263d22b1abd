package ws

import "encoding/binary"

// readWhole takes from the beginning of frames, which are whole, those of which nothing is left to judge: text messages in one
// frame, which nearly all messages of clients are, pings and pongs. It unmasks them where they lie. The library, which copies
// each through two readers and allocates for it, gets what follows the first other one: fragments depend on what came before
// them, and a close frame has rules of its own. It returns that rest, and why the connection ends, if it does.
func (c *conn) readWhole(frames []byte) (rest []byte, err error) {
	for len(frames) > 0 && !c.inMessage() {
		h, n := readHeader(frames)
		switch h.first {
		case fin | opText, fin | opPing, fin | opPong:
		default:
			return frames, nil
		}
		end := n + int(h.length)
		payload := frames[n:end]
		unmask(payload, frames[n-maskBytes:n])
		frames = frames[end:]
		switch h.first {
		case fin | opPing:
			c.alive()
			c.pong(append([]byte{}, payload...))
		case fin | opPong:
			c.alive()
		default:
			c.NoteFrame()
			if err := c.receive(payload); err != nil {
				return nil, err
			}
		}
	}
	return frames, nil
}

// unmask takes the mask of a client off its payload (RFC 6455, 5.3).
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
