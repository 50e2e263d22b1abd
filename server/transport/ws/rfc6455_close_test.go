package ws

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"carillon/server/wire"
)

// Sections 5.5.1 and 7: how a connection ends.
func closeRules() []rule {
	return []rule{
		streamRule("5.5.1", "a close frame is answered with its code",
			sent{name: "empty", bytes: frame(fin|opClose, ""), answer: noPayload},
			sent{name: "code alone", bytes: closeFrame(1000, ""), answer: "\x03\xe8"},
			sent{name: "reason", bytes: closeFrame(1001, "see you"), answer: "\x03\xe9"},
			sent{name: "the longest reason", bytes: closeFrame(4999, strings.Repeat("r", 123)), answer: "\x13\x87"},
			sent{name: "reason in other letters", bytes: closeFrame(3000, "tschüß 再見 🔔"), answer: "\x0b\xb8"},
		),
		streamRule("5.5.1", "a close frame of one octet is refused",
			sent{name: "low", bytes: frame(fin|opClose, "\x03"), code: CodeProtocol},
			sent{name: "zero", bytes: frame(fin|opClose, "\x00"), code: CodeProtocol},
		),
		streamRule("5.5.1", "what follows a close frame is not looked at",
			sent{name: "a message", bytes: join(closeFrame(1000, ""), frame(fin|opText, ack("late"))), answer: "\x03\xe8"},
			sent{name: "a ping", bytes: join(closeFrame(1000, ""), frame(fin|opPing, "late")), answer: "\x03\xe8"},
			sent{name: "another close", bytes: join(closeFrame(1000, ""), closeFrame(1001, "")), answer: "\x03\xe8"},
			sent{name: "rubbish", bytes: join(closeFrame(1000, ""), bytes.Repeat([]byte{0xff}, 1000)), answer: "\x03\xe8"},
			sent{name: "half a frame", bytes: join(closeFrame(1000, ""), []byte{0x81}), answer: "\x03\xe8"},
		),
		streamRule("5.5.1", "a close frame in mid-message ends it", sent{
			bytes:   join(frame(fin|opText, ack("a")), frame(opText, ack("b")[:9]), closeFrame(1001, "")),
			cursors: "a",
			answer:  "\x03\xe9",
		}),
		{"5.5.1", "no frame leaves behind the server's close frame", playNothingBehindClose},

		{"7.1.1", "the server closes the socket first", playServerClosesFirst},
		{"7.1.1", "the end of the stream without a close frame is a loss", playLost},
		{"7.1.2", "the server begins with code and name", playServerBegins},
		{"7.1.2", "both begin at once", playBothClose},
		{"7.1.2", "messages up to the peer's close frame are received", playLateMessages},
		streamRule("7.1.7", "a violation is answered with a close frame, then the socket closes", sent{
			bytes: join(frame(fin|opText, ack("a")), frame(fin|0x3, "")), cursors: "a", code: CodeProtocol,
		}),
		streamRule("7.4.1", "codes that the RFC defines", codes(true, 1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011)...),
		streamRule("7.4.1", "codes that are never sent are refused", codes(false, 1004, 1005, 1006, 1015)...),
		streamRule("7.4.1", "codes of the registry that came later", codes(true, 1012, 1013, 1014)...),
		streamRule("7.4.2", "codes below 1000 are refused", codes(false, 0, 1, 255, 256, 999)...),
		streamRule("7.4.2", "codes without a meaning below 3000 are refused",
			codes(false, 1016, 1017, 1099, 1100, 1999, 2000, 2999)...),
		streamRule("7.4.2", "codes of libraries and of applications", codes(true, 3000, 3001, 3999, 4000, 4202, 4998, 4999)...),
		streamRule("7.4.2", "codes from 5000 on are refused", codes(false, 5000, 9999, 32768, 65535)...),
	}
}

func codes(allowed bool, codes ...uint16) []sent {
	return named(codes, func(code uint16) sent {
		if !allowed {
			return sent{bytes: closeFrame(code, "why"), code: CodeProtocol}
		}
		return sent{bytes: closeFrame(code, "why"), answer: string(binary.BigEndian.AppendUint16(nil, code))}
	})
}

func playNothingBehindClose(t *testing.T, cfg Config) {
	addr, r := start(t, cfg)
	c := dialRaw(t, addr, nil)
	s := r.session(t)
	s.put(text(0))
	c.until(t, fin|opText)
	s.conn.Close(wire.CloseReplaced)
	if before, _ := c.until(t, fin|opClose); before != 0 {
		t.Errorf("frames before the close frame: got %d, want none", before)
	}
	s.put(text(1), text(2))
	s.conn.Close(wire.CloseSlow)
	if rest := c.rest(t, closeFrame(4200, "")); len(rest) > 0 {
		t.Errorf("behind the close frame comes % x", rest)
	}
}

// playServerClosesFirst: the client leaves its socket open and still reads the end of the stream.
func playServerClosesFirst(t *testing.T, cfg Config) {
	addr, r := start(t, cfg)
	for _, bye := range [][]byte{frame(fin|opClose, ""), closeFrame(1000, "done")} {
		c := dialRaw(t, addr, nil)
		s := r.session(t)
		if err := c.write(bye); err != nil {
			t.Fatal(err)
		}
		c.until(t, fin|opClose)
		if rest := c.rest(t, nil); len(rest) > 0 {
			t.Errorf("behind the answer comes % x", rest)
		}
		if got := get(t, s.closed, "Closed"); got != wire.CloseNormal {
			t.Errorf("Closed: got %v, want %v", got, wire.CloseNormal)
		}
	}
}

func playLost(t *testing.T, cfg Config) {
	addr, r := start(t, cfg)
	for _, tc := range []struct {
		name   string
		stream []byte
		frames int
	}{
		{"at once", nil, 0},
		{"after a message", frame(fin|opText, ack("a")), 1},
		{"inside a header", join(frame(fin|opText, ack("a")), frame(fin|opText, ack("b"))[:1]), 1},
		{"inside a length", join(frame(fin|opText, ack("a")), frame(fin|opText, padded(126))[:3]), 1},
		{"inside a masking key", join(frame(fin|opText, ack("a")), frame(fin|opText, ack("b"))[:4]), 1},
		{"inside a payload", join(frame(fin|opText, ack("a")), frame(fin|opText, ack("b"))[:9]), 1},
		{"inside a ping", frame(fin|opPing, "?????")[:8], 0},
		{"inside a close", closeFrame(1000, "")[:7], 0},
		{"between fragments", frame(opText, ack("a")), 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := dialRaw(t, addr, nil)
			s := r.session(t)
			if err := c.write(tc.stream); err != nil {
				t.Fatal(err)
			}
			if err := c.HalfClose(); err != nil {
				t.Fatal(err)
			}
			if got := get(t, s.closed, "Closed"); got != wire.CloseLost {
				t.Errorf("Closed: got %v, want %v", got, wire.CloseLost)
			}
			if len(s.frames) != tc.frames || len(s.refusals) > 0 {
				t.Errorf("got %d frames and %d refusals, want %d and none", len(s.frames), len(s.refusals), tc.frames)
			}
			if rest := c.rest(t, nil); len(rest) > 0 {
				t.Errorf("the server still sent % x", rest)
			}
		})
	}
}

func playServerBegins(t *testing.T, cfg Config) {
	addr, r := start(t, cfg)
	for _, answer := range [][]byte{closeFrame(4200, ""), closeFrame(4200, "replaced"), closeFrame(1000, ""), frame(fin|opClose, "")} {
		c := dialRaw(t, addr, nil)
		s := r.session(t)
		s.conn.Close(wire.CloseReplaced)
		if _, got := c.until(t, fin|opClose); got != "\x10\x68replaced" {
			t.Errorf("close frame: got %q, want 4200 replaced", got)
		}
		if len(s.closed) > 0 {
			t.Error("the server did not wait for the answer")
		}
		if rest := c.rest(t, answer); len(rest) > 0 {
			t.Errorf("behind the close frame comes % x", rest)
		}
		if got := get(t, s.closed, "Closed"); got != wire.CloseReplaced {
			t.Errorf("Closed: got %v, want %v", got, wire.CloseReplaced)
		}
	}
}

// playBothClose: neither side has seen the other's close frame when it sends its own.
func playBothClose(t *testing.T, cfg Config) {
	addr, r := start(t, cfg)
	for range 50 {
		c := dialRaw(t, addr, nil)
		s := r.session(t)
		s.conn.Close(wire.CloseReplaced)
		if err := c.write(closeFrame(1001, "me too")); err != nil {
			t.Fatal(err)
		}
		// Which of the two the server meets first is open; it sends one close frame either way.
		if _, got := c.until(t, fin|opClose); got != "\x10\x68replaced" && got != "\x03\xe9" {
			t.Errorf("close frame: got %q, want the server's own or the answer to ours", got)
		}
		if rest := c.rest(t, nil); len(rest) > 0 {
			t.Errorf("behind the close frame comes % x", rest)
		}
		if got := get(t, s.closed, "Closed"); got != wire.CloseReplaced {
			t.Errorf("Closed: got %v, want %v", got, wire.CloseReplaced)
		}
	}
}

func playLateMessages(t *testing.T, cfg Config) {
	addr, r := start(t, cfg)
	c := dialRaw(t, addr, nil)
	s := r.session(t)
	s.conn.Close(wire.CloseGoingAway)
	c.until(t, fin|opClose)
	rest := c.rest(t, join(
		frame(opText, ack("a")[:7]), frame(fin|opPong, ""), frame(fin|opContinue, ack("a")[7:]), frame(fin|opText, ack("b")),
		closeFrame(4000, ""),
	))
	if len(rest) > 0 {
		t.Errorf("behind the close frame comes % x", rest)
	}
	get(t, s.closed, "Closed")
	close(s.frames)
	var frames []wire.Frame
	for f := range s.frames {
		frames = append(frames, f)
	}
	if got, want := cursorsOf(frames), "a b"; got != want {
		t.Errorf("acknowledgements: got %q, want %q", got, want)
	}
}
