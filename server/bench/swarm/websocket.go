package swarm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"carillon/server/wire"
)

// websocket is the dialect of RFC 6455, with as little of it as a server of ours needs.
type websocket struct{}

// mask covers what clients send. A browser makes up another for each frame, against proxies that could take a payload for a
// request; nothing lies between this client and its server. It is not zero, so that the server has the work that it has
// with others.
var mask = [4]byte{0x5c, 0xa3, 0x1e, 0xd7}

func (websocket) hello(dst []byte, c *credentials) []byte {
	dst = append(dst, "GET "...)
	dst = append(dst, c.path...)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(dst, c.host...)
	return append(dst, "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: Y2FyaWxsb24gYmVuY2ggLg==\r\nUser-Agent: carillon-bench\r\n\r\n"...)
}

func (w websocket) connect(dst []byte, c *credentials) []byte {
	f := wire.Append(nil, wire.JSON, &wire.Connect{Version: wire.Version, Token: c.token, Client: "carillon-bench"})
	return w.text(dst, f)
}

var headerEnd = []byte("\r\n\r\n")

func (websocket) cut(b []byte, opening bool) (kind, []byte, int, error) {
	if opening {
		return cutAnswer(b)
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

// cutAnswer cuts the answer to the upgrade off b. Its key is not looked at: this is our own server.
func cutAnswer(b []byte) (kind, []byte, int, error) {
	i := bytes.Index(b, headerEnd)
	if i < 0 {
		if len(b) > 16<<10 {
			return partial, nil, 0, errors.New("the answer to the upgrade has no end")
		}
		return partial, nil, 0, nil
	}
	status, _, _ := bytes.Cut(b, []byte("\r\n"))
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 101 ")) {
		return partial, nil, 0, fmt.Errorf("the upgrade was answered with %.40q", status)
	}
	return upgraded, nil, i + len(headerEnd), nil
}

func closeReason(payload []byte) []byte {
	if len(payload) < 2 {
		return []byte("close frame without a code")
	}
	return fmt.Appendf(nil, "close %d %s", binary.BigEndian.Uint16(payload), payload[2:])
}

func (websocket) text(dst, f []byte) []byte { return appendMasked(dst, opText, f) }

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
