package ws

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"carillon/server/transport"
	"carillon/server/wire"
)

// Sections 5.4 and 5.5: fragments, and the rules of all control frames.
func fragmentRules() []rule {
	return []rule{
		streamRule("5.4", "a message in fragments",
			sent{
				name:    "three",
				bytes:   join(frame(opText, ack("a")[:5]), frame(opContinue, ack("a")[5:9]), frame(fin|opContinue, ack("a")[9:])),
				cursors: "a",
			},
			sent{
				name: "empty ones",
				bytes: join(
					frame(opText, ""), frame(opContinue, ""), frame(opContinue, ack("a")), frame(fin|opContinue, ""),
				),
				cursors: "a",
			},
			sent{name: "an octet each", bytes: inFragments(ack("a"), 1), cursors: "a"},
			sent{name: "nothing but empty ones", bytes: join(frame(opText, ""), frame(opContinue, ""), frame(fin|opContinue, "")), code: wire.CodeMalformed},
			sent{
				name:    "the largest message",
				bytes:   join(frame(fin|opText, ack("a")), inFragments(padded(transport.MaxFrame), 1000), frame(fin|opText, ack("b"))),
				cursors: "a b",
			},
		),
		streamRule("5.4", "ten thousand empty fragments, then the end", sent{
			bytes: join(
				frame(opText, ack("a")[:4]), bytes.Repeat(frame(opContinue, ""), 10_000), frame(fin|opContinue, ack("a")[4:]),
				frame(fin|opText, ack("b")),
			),
			cursors: "a b",
		}),
		{"5.4", "empty fragments without an end are no life", playEndlessMessage},
		streamRule("5.4", "control frames between fragments", sent{
			bytes: join(
				frame(opText, ack("a")[:5]), frame(fin|opPing, "?"), frame(opContinue, ""), frame(fin|opPong, "!"),
				frame(fin|opContinue, ack("a")[5:]), frame(fin|opText, ack("b")),
			),
			cursors: "a b",
		}),
		{"5.4", "a ping between fragments is answered at once", playPingInside},
		streamRule("5.4", "a fragmented control frame is refused", named([]opcode{opPing, opPong, opClose},
			func(op opcode) sent {
				return sent{bytes: join(frame(op, "\x03\xe8"), frame(fin|opContinue, "")), code: CodeProtocol}
			},
		)...),
		streamRule("5.4", "a continuation of nothing is refused",
			sent{name: "at first", bytes: frame(fin|opContinue, ack("a")), code: CodeProtocol},
			sent{
				name:    "after a message",
				bytes:   join(frame(fin|opText, ack("a")), frame(fin|opContinue, "")),
				cursors: "a",
				code:    CodeProtocol,
			},
			sent{
				name:    "after a message in fragments",
				bytes:   join(inFragments(ack("a"), 9), frame(opContinue, "")),
				cursors: "a",
				code:    CodeProtocol,
			},
		),
		streamRule("5.4", "a message inside a message is refused", named(
			[]opcode{opText, fin | opText, opBinary, fin | opBinary},
			func(op opcode) sent {
				return sent{bytes: join(frame(opText, ack("a")[:5]), frame(op, ack("b"))), code: CodeProtocol}
			},
		)...),

		streamRule("5.5", "control frames of up to 125 octets", named([]int{0, 1, 124, 125}, func(n int) sent {
			payload := strings.Repeat("p", n)
			return sent{
				bytes:   join(frame(fin|opPing, payload), frame(fin|opPong, payload), frame(fin|opText, ack("a"))),
				cursors: "a",
			}
		})...),
		streamRule("5.5", "a longer control frame is refused", longControls()...),
	}
}

// inFragments returns a message in fragments of at most size octets.
func inFragments(message string, size int) []byte {
	var all []byte
	for op := opText; message != ""; op = opContinue {
		n := min(size, len(message))
		if n == len(message) {
			op |= fin
		}
		all = append(all, frame(op, message[:n])...)
		message = message[n:]
	}
	return all
}

func longControls() (all []sent) {
	for _, op := range []opcode{opPing, opPong, opClose} {
		for _, n := range []int{126, 127, 65535, 65536} {
			all = append(all, sent{
				name:  fmt.Sprintf("%#x of %d", byte(op), n),
				bytes: frame(fin|op, "\x03\xe8"+strings.Repeat("p", n-2)),
				code:  CodeProtocol,
			})
		}
	}
	return all
}

func playEndlessMessage(t *testing.T, cfg Config) {
	addr, r := start(t, cfg)
	c := dialRaw(t, addr, nil)
	s := r.session(t)
	empty := bytes.Repeat(frame(opContinue, ""), 10_000)
	if err := c.write(join(frame(opText, ""), empty, frame(fin|opPing, "behind them"))); err != nil {
		t.Fatal(err)
	}
	if _, got := c.until(t, fin|opPong); got != "behind them" {
		t.Errorf("pong: got %q", got)
	}
	if got := s.alive.Load(); got != 0 {
		t.Errorf("signs of life: got %d, want none from a message that does not end", got)
	}
	if len(s.closed)+len(s.refusals)+len(s.frames) > 0 {
		t.Error("the session was told more than nothing; its silence is its own to judge")
	}
	s.conn.Cut(wire.CloseSilent)
	if got := get(t, s.closed, "Closed"); got != wire.CloseSilent {
		t.Errorf("Closed: got %v, want %v", got, wire.CloseSilent)
	}
}

func playPingInside(t *testing.T, cfg Config) {
	addr, r := start(t, cfg)
	c := dialRaw(t, addr, nil)
	s := r.session(t)
	for i, part := range []string{`{"type":`, `"pi`, `n`} {
		op := opContinue
		if i == 0 {
			op = opText
		}
		if err := c.write(join(frame(op, part), frame(fin|opPing, part))); err != nil {
			t.Fatal(err)
		}
		if before, got := c.until(t, fin|opPong); before != 0 || got != part {
			t.Errorf("pong: got %q after %d frames, want %q", got, before, part)
		}
	}
	if got := s.alive.Load(); got != 0 {
		t.Errorf("signs of life inside a message: got %d, want none", got)
	}
	if err := c.write(join(frame(fin|opContinue, `g"}`), frame(fin|opPing, "out"))); err != nil {
		t.Fatal(err)
	}
	get(t, s.frames, "the message")
	get(t, s.alives, "Alive")
}
