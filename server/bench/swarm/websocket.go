package swarm

import (
	"encoding/binary"
	"fmt"

	"carillon/server/wire"
)

// websocket is the dialect of RFC 6455, with as little of it as a server of ours needs.
type websocket struct{}

// mask covers what clients send. A browser makes up another for each frame, against proxies that could take a payload for a
// request; nothing lies between this client and its server. It is not zero, so that the server has the work that it has
// with others.
var mask = [4]byte{0x5c, 0xa3, 0x1e, 0xd7}

func (websocket) manner() manner {
	return manner{encoding: wire.JSON, path: "/connect", upgrades: true, speaks: true}
}

func (w websocket) hello(dst []byte, c *credentials) []byte {
	dst = appendRequest(dst, "GET", w.manner().path, &credentials{host: c.host}) // the token is in the connect frame
	return append(dst, "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: Y2FyaWxsb24gYmVuY2ggLg==\r\n\r\n"...)
}

func (w websocket) connect(dst []byte, c *credentials) []byte {
	f := wire.Append(nil, wire.JSON, &wire.Connect{Version: wire.Version, Token: c.token, Client: clientName})
	return w.say(dst, f)
}

func (websocket) cut(b []byte, opening bool) (kind, []byte, int, error) {
	if opening {
		header, err := cutHeader(b, "101 ") // its key is not looked at: this is our own server
		if header == nil {
			return partial, nil, 0, err
		}
		return upgraded, nil, len(header), nil
	}
	f, n, err := cutFrame(b)
	switch {
	case err != nil || n == 0:
		return partial, nil, 0, err
	case f.op == opText:
		return frame, f.payload, n, nil
	case f.op == opClose:
		return bye, closeReason(f.payload), n, nil
	}
	return ignored, nil, n, nil
}

func closeReason(payload []byte) []byte {
	if len(payload) < 2 {
		return []byte("close frame without a code")
	}
	return fmt.Appendf(nil, "close %d %s", binary.BigEndian.Uint16(payload), payload[2:])
}

func (websocket) say(dst, f []byte) []byte { return appendMasked(dst, opText, f) }

func (websocket) goodbye(dst []byte) []byte {
	return appendMasked(dst, opClose, []byte{1000 >> 8, 1000 & 0xff})
}

// appendMasked appends a frame as a client sends it.
func appendMasked(dst []byte, op byte, payload []byte) []byte {
	dst = append(dst, 0x80|op)
	switch n := len(payload); {
	case n <= 125:
		dst = append(dst, 0x80|byte(n))
	case n < 1<<16:
		dst = append(dst, 0x80|126)
		dst = binary.BigEndian.AppendUint16(dst, uint16(n))
	default:
		dst = append(dst, 0x80|127)
		dst = binary.BigEndian.AppendUint64(dst, uint64(n))
	}
	dst = append(dst, mask[:]...)
	for i, x := range payload {
		dst = append(dst, x^mask[i&3])
	}
	return dst
}
