package swarm

import (
	"bytes"
	"encoding/binary"

	"carillon/server/push"
	"carillon/server/wire"
)

// What frames in JSON begin with; the server writes the type first.
var (
	isMessage = []byte(`{"type":"message",`)
	isPong    = []byte(`{"type":"pong"`)
	isWelcome = []byte(`{"type":"welcome"`)
	isError   = []byte(`{"type":"error"`)
	isKick    = []byte(`{"type":"kick"`)
	isGoaway  = []byte(`{"type":"goaway"`)
)

// typeOf reads the type of a frame, as far as it matters before the frame is decoded: 0 is any other.
func typeOf(e wire.Encoding, payload []byte) wire.Type {
	if e == wire.Binary {
		return wire.Type(payload[0]) // a dialect cuts no empty frames
	}
	switch {
	case bytes.HasPrefix(payload, isMessage):
		return wire.TypeMessage
	case bytes.HasPrefix(payload, isPong):
		return wire.TypePong
	case bytes.HasPrefix(payload, isWelcome):
		return wire.TypeWelcome
	case bytes.HasPrefix(payload, isError):
		return wire.TypeError
	case bytes.HasPrefix(payload, isKick):
		return wire.TypeKick
	case bytes.HasPrefix(payload, isGoaway):
		return wire.TypeGoaway
	}
	return 0
}

// placeOf reads slot and position of a message frame; false if it has none. The server writes both first.
func placeOf(e wire.Encoding, payload []byte) (push.SlotKind, push.Position, bool) {
	if e == wire.Binary {
		if len(payload) < 3 || payload[1] > 1 {
			return 0, 0, false
		}
		pos, n := binary.Uvarint(payload[2:])
		return push.SlotKind(payload[1]), push.Position(pos), n > 0
	}
	b, ok := bytes.CutPrefix(payload[len(isMessage):], []byte(`"slot":`))
	if !ok || len(b) < 8 || b[0] > '1' {
		return 0, 0, false
	}
	slot := push.SlotKind(b[0] - '0')
	b, ok = bytes.CutPrefix(b[1:], []byte(`,"pos":`))
	pos := push.Position(0)
	for i := 0; ok && i < len(b) && b[i] >= '0' && b[i] <= '9'; i++ {
		pos = pos*10 + push.Position(b[i]-'0')
	}
	return slot, pos, ok
}

// reasonOf is a frame that ends a session, for people.
func reasonOf(e wire.Encoding, payload []byte) string {
	if e == wire.Binary {
		f, err := wire.DecodeServer(e, payload)
		if err != nil {
			return "an end that cannot be read"
		}
		return string(wire.Append(nil, wire.JSON, f))
	}
	return string(payload)
}
