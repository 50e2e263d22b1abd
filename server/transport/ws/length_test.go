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

func TestLengths_PassWhateverThePieces(t *testing.T) {
	good := join(
		frame(opText, "12345"), frame(fin|opPing, string(make([]byte, 100))), frame(fin|opContinue, "67890"), // 10 in all
		frame(fin|opText, string(make([]byte, 300))), unmasked(fin|opText, "?"), frame(fin|opClose, ""),
	)
	for _, bad := range [][]byte{
		header(fin|opText, 126, 1, 45),                                    // 301
		header(opBinary, 127, 0, 0, 0, 0, 0, 1, 0, 0),                     // 2^16
		{byte(fin | opText), 127, 127, 255, 255, 255, 255, 255, 255, 255}, // and not masked
	} {
		all := join(good, bad, []byte("what follows"))
		for size := 1; size <= len(all); size++ {
			var l lengths
			passed, ok := 0, true
			for at := 0; ok && at < len(all); at += size {
				var n int
				n, ok = l.pass(all[at:min(at+size, len(all))], 10, 300)
				passed += n
			}
			if ok || passed < len(good) || passed >= len(good)+len(bad) {
				t.Fatalf("in pieces of %d: %d bytes passed, refused: %v, want at least %d and less than %d", size, passed, !ok,
					len(good), len(good)+len(bad))
			}
		}
	}
}
