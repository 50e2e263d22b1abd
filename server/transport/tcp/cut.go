package tcp

import (
	"encoding/binary"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/wire"
)

// prefix is how many bytes the length of a frame takes.
const prefix = 4

var errTooLarge = push.Errorf(push.KindTooLarge, transport.CodeTooLarge, "the frame is larger than it may be")

// cut returns the first frame in b, of at most limit bytes, and how many bytes it takes with its length; 0 if it has not come
// whole. An error says that what follows is none that may be waited for. No length meets an addition before it was compared. A
// frame of no bytes is for package wire to refuse.
func cut(b []byte, limit int) (frame []byte, n int, err error) {
	if len(b) < prefix {
		return nil, 0, nil
	}
	switch length := binary.BigEndian.Uint32(b); {
	case uint64(length) > uint64(limit):
		return nil, 0, errTooLarge
	case len(b)-prefix < int(length):
		return nil, 0, nil
	default:
		n = prefix + int(length)
		return b[prefix:n], n, nil
	}
}

// appendFrame appends one frame of a session behind its length.
func appendFrame(dst []byte, o *wire.Out) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, prefix)...)
	dst = wire.AppendOut(dst, wire.Binary, o)
	binary.BigEndian.PutUint32(dst[start:], uint32(len(dst)-start-prefix))
	return dst
}
