package swarm

import (
	"encoding/binary"
	"fmt"

	"carillon/server/wire"
)

// raw is the dialect of plain TCP: each frame, in binary, behind its length.
type raw struct{}

const lengthBytes = 4

func (raw) manner() manner { return manner{encoding: wire.Binary, speaks: true} }

// hello is the connect frame itself: nothing is said before it.
func (r raw) hello(dst []byte, c *credentials) []byte {
	return r.say(dst, wire.Append(nil, wire.Binary, &wire.Connect{Version: wire.Version, Token: c.token, Client: clientName}))
}

func (raw) connect(dst []byte, _ *credentials) []byte { return dst }

func (raw) cut(b []byte, _ bool) (kind, []byte, int, error) {
	if len(b) < lengthBytes {
		return partial, nil, 0, nil
	}
	length := binary.BigEndian.Uint32(b)
	if length == 0 || length > maxFrame { // judged before it is added to anything
		return partial, nil, 0, fmt.Errorf("the server sent a frame of %d bytes", length)
	}
	n := lengthBytes + int(length)
	if len(b) < n {
		return partial, nil, 0, nil
	}
	return frame, b[lengthBytes:n], n, nil
}

func (raw) say(dst, f []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(f)))
	return append(dst, f...)
}

func (raw) goodbye(dst []byte) []byte { return dst }
