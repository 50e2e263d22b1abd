package ws

import (
	"fmt"
	"testing"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/wire"
)

// A header that announces too much, and not one byte of what it announces.
func TestReader_AnnouncedLengthIsRefusedBeforeItComes(t *testing.T) {
	addr, r := start(t, Config{})
	for _, tc := range []struct {
		name   string
		stream []byte
		frames int
	}{
		{"first message", header(fin|opText, 126, 0x10, 0x01), 0},
		{"later message", join(frame(fin|opText, ack("a")), header(fin|opText, 126, 0x40, 0x01)), 1},
		{"fragment", join(frame(opText, ack("a")), header(opContinue, 127, 0, 0, 0, 1, 0, 0, 0, 0)), 0},
		{"of 63 bits", header(fin|opText, 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), 0},
	} {
		for early := 0; early <= len(tc.stream); early += max(1, len(tc.stream)/2) {
			t.Run(fmt.Sprintf("%s/%d early", tc.name, early), func(t *testing.T) {
				c := dialRaw(t, addr, nil, tc.stream[:early]...)
				s := r.session(t)
				if err := c.write(tc.stream[early:]); err != nil {
					t.Fatal(err)
				}
				c.until(t, fin|opClose)
				c.Kill()
				if got := get(t, s.closed, "Closed"); got != wire.CloseProtocol {
					t.Errorf("Closed: got %v, want %v", got, wire.CloseProtocol)
				}
				if got := len(s.frames); got != tc.frames {
					t.Errorf("frames before: got %d, want %d", got, tc.frames)
				}
				if got := get(t, s.refusals, "a refusal").(*push.Error).Code; got != transport.CodeTooLarge {
					t.Errorf("refusal: got %s, want %s", got, transport.CodeTooLarge)
				}
			})
		}
	}
}
