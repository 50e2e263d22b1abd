package swarm

import (
	"bytes"

	"carillon/server/push"
)

// What frames begin with; the server writes the type first.
var (
	isMessage = []byte(`{"type":"message",`)
	isPong    = []byte(`{"type":"pong"`)
	isWelcome = []byte(`{"type":"welcome"`)
	isError   = []byte(`{"type":"error"`)
	isKick    = []byte(`{"type":"kick"`)
	isGoaway  = []byte(`{"type":"goaway"`)
)

// placeOf reads slot and position of a message frame; false if it has none. The server writes both first.
func placeOf(payload []byte) (push.SlotKind, push.Position, bool) {
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
