package ws

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"testing"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/wire"
)

// Sections 5.1 to 5.3, 5.6 to 5.8 and 6: what a frame looks like.
func frameRules() []rule {
	return []rule{
		streamRule("5.1", "a frame that is not masked is refused",
			sent{name: "text", bytes: unmasked(fin|opText, ack("a")), code: CodeProtocol},
			sent{name: "ping", bytes: unmasked(fin|opPing, ""), code: CodeProtocol},
			sent{name: "pong", bytes: unmasked(fin|opPong, "!"), code: CodeProtocol},
			sent{name: "close", bytes: unmasked(fin|opClose, "\x03\xe8"), code: CodeProtocol},
			sent{
				name:  "continuation",
				bytes: join(frame(opText, ack("a")[:5]), unmasked(fin|opContinue, ack("a")[5:])),
				code:  CodeProtocol,
			},
			sent{
				name:    "after one that is",
				bytes:   join(frame(fin|opText, ack("a")), unmasked(fin|opText, ack("b"))),
				cursors: "a",
				code:    CodeProtocol,
			},
		),
		{"5.1", "the server's frames are not masked", playServerFrames},

		streamRule("5.2", "reserved bits are refused on data and on control frames", reservedBits()...),
		streamRule("5.2", "each of the sixteen opcodes", opcodes()...),
		streamRule("5.2", "lengths in their three forms", everyLength()...),
		streamRule("5.2", "a length in a longer form than it needs is taken", longForms()...),
		streamRule("5.2", "a length of 2^63 or more is refused", named(
			[]uint64{1 << 63, 1<<63 + 1, math.MaxUint64 - 13, math.MaxUint64},
			func(n uint64) sent { return sent{bytes: longHeader64(fin|opText, n), code: CodeProtocol} },
		)...),
		{"5.2", "the server's lengths take their shortest form", playServerLengths},

		streamRule("5.3", "any masking key will do", named(
			[]uint32{0, 1, 0xff, 0xff000000, 0x00ff00ff, 0x37fa213d, 0x7b227479, math.MaxUint32},
			func(key uint32) sent {
				return sent{bytes: join(
					maskedWith(key, opText, ack("a")[:7]),
					maskedWith(key, fin|opPing, "between"),
					maskedWith(key+1, fin|opContinue, ack("a")[7:]),
					maskedWith(^key, fin|opText, ack("b")),
				), cursors: "a b"}
			},
		)...),
		streamRule("5.3", "each octet is masked by its place in the frame", named(
			[]int{1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 99, 100},
			func(n int) sent {
				cursor := strings.Repeat("c", n)
				return sent{bytes: frame(fin|opText, ack(cursor)), cursors: cursor}
			},
		)...),

		streamRule("5.6", "a text message is received", sent{bytes: frame(fin|opText, ack("a")), cursors: "a"}),
		streamRule("5.6", "messages are received in order", sent{
			bytes:   join(frame(fin|opText, ack("a")), frame(fin|opText, ack("b")), frame(fin|opText, ack("c"))),
			cursors: "a b c",
		}),
		streamRule("5.6", "a binary message is refused",
			sent{name: "whole", bytes: frame(fin|opBinary, ack("a")), code: CodeNotText},
			sent{name: "empty", bytes: frame(fin|opBinary, ""), code: CodeNotText},
			sent{name: "begun", bytes: frame(opBinary, ack("a")), code: CodeNotText},
			sent{
				name:    "after text",
				bytes:   join(frame(fin|opText, ack("a")), frame(fin|opBinary, ack("b")), frame(fin|opText, ack("c"))),
				cursors: "a",
				code:    CodeNotText,
			},
		),

		streamRule("5.7", "the single-frame masked text of the RFC", sent{
			// "Hello" is none of our frames; that it is understood as text shows in what it is refused for.
			bytes: []byte("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"), code: wire.CodeMalformed,
		}),
		{"5.7", "the ping and the pong of the RFC", playPingOfTheRFC},

		streamRule("5.8", "reserved bits and opcodes are refused without an extension",
			sent{
				name:  "data opcode with reserved bits",
				bytes: frame(fin|0x70|0x3, ack("a")),
				code:  CodeProtocol,
			},
			sent{name: "control opcode with reserved bits", bytes: frame(fin|0x70|0xf, ""), code: CodeProtocol},
		),

		{"6.1", "a message leaves in one frame", playServerFrames},
		streamRule("6.2", "what follows a violation is not received", sent{
			bytes: join(
				frame(fin|opText, ack("a")), frame(fin|opText, ack("b")), frame(fin|opText, "{"),
				frame(fin|opText, ack("c")), frame(fin|opPing, "?"), closeFrame(1000, ""),
			),
			cursors: "a b",
			code:    wire.CodeMalformed,
		}),
	}
}

func reservedBits() (all []sent) {
	for i, reserved := range []opcode{0x40, 0x20, 0x10} {
		for _, op := range []opcode{fin | opText, opText, fin | opBinary, fin | opClose, fin | opPing, fin | opPong} {
			all = append(all, sent{
				name:    fmt.Sprintf("bit %d on %#x", i+1, byte(op)),
				bytes:   join(frame(fin|opText, ack("before")), frame(reserved|op, "\x03\xe8")),
				cursors: "before",
				code:    CodeProtocol,
			})
		}
		all = append(all, sent{
			name:  fmt.Sprintf("bit %d on a continuation", i+1),
			bytes: join(frame(opText, ack("a")[:3]), frame(fin|reserved|opContinue, ack("a")[3:])),
			code:  CodeProtocol,
		})
	}
	return all
}

func opcodes() (all []sent) {
	for op := range opcode(16) {
		s := sent{
			name:    fmt.Sprintf("%#x", byte(op)),
			bytes:   join(frame(fin|opText, ack("before")), frame(fin|op, "")),
			cursors: "before",
			code:    CodeProtocol,
		}
		switch op {
		case opText:
			s.code = wire.CodeMalformed // as one of our frames; the message is fine
		case opBinary:
			s.code = CodeNotText
		case opClose:
			s.code, s.answer = "", noPayload
		case opPing, opPong:
			s.code = ""
		}
		all = append(all, s)
	}
	return all
}

func everyLength() []sent {
	all := named([]int{125, 126, 127, 128, 255, 256, 4095, 4096}, func(n int) sent {
		return sent{bytes: join(frame(fin|opText, padded(n)), frame(fin|opText, ack("a"))), cursors: "a"}
	})
	all = append(all, sent{
		name:    "16384, the limit",
		bytes:   join(frame(fin|opText, ack("a")), frame(fin|opText, padded(transport.MaxFrame)), frame(fin|opText, ack("b"))),
		cursors: "a b",
	})
	return append(all, sent{name: "0", bytes: frame(fin|opText, ""), code: wire.CodeMalformed})
}

// longForms are lengths that the sender had to write shorter. Nothing is ambiguous about them, and the library takes them.
func longForms() []sent {
	var all []sent
	for _, n := range []int{50, 125} {
		payload := padded(n)
		all = append(all,
			sent{
				name:    fmt.Sprintf("%d in two bytes", n),
				bytes:   join(inForm(126, fin|opText, payload), frame(fin|opText, ack("a"))),
				cursors: "a",
			},
			sent{
				name:    fmt.Sprintf("%d in eight bytes", n),
				bytes:   join(inForm(127, fin|opText, payload), frame(fin|opText, ack("a"))),
				cursors: "a",
			},
			sent{
				name:    fmt.Sprintf("a ping of %d in two bytes", n),
				bytes:   join(inForm(126, fin|opPing, payload), frame(fin|opText, ack("a"))),
				cursors: "a",
			},
			sent{
				name:    fmt.Sprintf("a ping of %d in eight bytes", n),
				bytes:   join(inForm(127, fin|opPing, payload), frame(fin|opText, ack("a"))),
				cursors: "a",
			},
		)
	}
	return append(all,
		sent{
			name:    "126 in eight bytes",
			bytes:   join(inForm(127, fin|opText, padded(126)), frame(fin|opText, ack("a"))),
			cursors: "a",
		},
		sent{
			name: "0 in two and in eight bytes",
			bytes: join(
				frame(opText, ack("a")), inForm(126, opContinue, ""), inForm(127, opContinue, ""), frame(fin|opContinue, ""),
			),
			cursors: "a",
		},
		sent{
			name:   "a close in two bytes",
			bytes:  inForm(126, fin|opClose, "\x03\xe9gone"),
			answer: "\x03\xe9",
		},
	)
}

// inForm returns a frame whose length is written in the form that the 7 bits name, whether or not it needs it.
func inForm(form byte, first opcode, payload string) []byte {
	length := binary.BigEndian.AppendUint16([]byte{form}, uint16(len(payload)))
	if form == 127 {
		length = binary.BigEndian.AppendUint64([]byte{form}, uint64(len(payload)))
	}
	return append(header(first, length...), payload...) // header masks with zeros
}

func longHeader64(first opcode, length uint64) []byte {
	return header(first, binary.BigEndian.AppendUint64([]byte{127}, length)...)
}

func maskedWith(key uint32, first opcode, payload string) []byte {
	k := binary.BigEndian.AppendUint32(nil, key)
	b := append([]byte{byte(first), masked | byte(len(payload))}, k...)
	for i := range len(payload) {
		b = append(b, payload[i]^k[i%4])
	}
	return b
}

// playServerFrames reads the server's bytes without a decoder in between.
func playServerFrames(t *testing.T, cfg Config) {
	addr, r := start(t, cfg)
	c := dialRaw(t, addr, nil)
	s := r.session(t)
	reads := func(what, want string) {
		t.Helper()
		got := make([]byte, len(want))
		c.full(t, got)
		if string(got) != want {
			t.Errorf("%s: got % x, want % x", what, got, want)
		}
	}
	for n := range 3 {
		out := text(n)
		payload := wire.AppendOut(nil, wire.JSON, &out)
		s.put(out)
		reads("a message", string([]byte{0x81, byte(len(payload))})+string(payload))
	}
	if err := c.write(frame(fin|opPing, "?")); err != nil {
		t.Fatal(err)
	}
	reads("a pong", "\x8a\x01?")
	s.conn.Close(wire.CloseReplaced)
	reads("a close", "\x88\x0a\x10\x68replaced")
}

func playServerLengths(t *testing.T, cfg Config) {
	addr, r := start(t, cfg)
	c := dialRaw(t, addr, nil)
	s := r.session(t)
	m := &push.Message{ID: 1, Body: []byte(`""`), Created: 1}
	bare := wire.Out{Shared: wire.NewShared(m), Slot: push.NoSlot}
	least := len(wire.AppendOut(nil, wire.JSON, &bare))
	for _, n := range []int{least, 125, 126, 127, 255, 256, 65535, 65536, 65537, 1 << 20} {
		m := &push.Message{ID: 1, Body: []byte(`"` + strings.Repeat("x", n-least) + `"`), Created: 1}
		out := wire.Out{Shared: wire.NewShared(m), Slot: push.NoSlot}
		payload := wire.AppendOut(nil, wire.JSON, &out)
		if len(payload) != n {
			t.Fatalf("the test's message has %d bytes, want %d", len(payload), n)
		}
		want := []byte{0x81}
		switch {
		case n < 126:
			want = append(want, byte(n))
		case n < 1<<16:
			want = binary.BigEndian.AppendUint16(append(want, 126), uint16(n))
		default:
			want = binary.BigEndian.AppendUint64(append(want, 127), uint64(n))
		}
		want = append(want, payload...)
		s.put(out)
		got := make([]byte, len(want))
		c.full(t, got)
		if !bytes.Equal(got, want) {
			t.Errorf("a message of %d bytes begins with % x, want % x", n, got[:14], want[:14])
		}
	}
}

func playPingOfTheRFC(t *testing.T, cfg Config) {
	addr, r := start(t, cfg)
	c := dialRaw(t, addr, nil)
	s := r.session(t)
	if err := c.write([]byte("\x89\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 7)
	c.full(t, got)
	if want := "\x8a\x05Hello"; string(got) != want {
		t.Errorf("the pong is % x, want % x", got, want)
	}
	get(t, s.alives, "Alive")
}
