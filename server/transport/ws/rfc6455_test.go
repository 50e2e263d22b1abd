package ws

import (
	"fmt"
	"strings"
	"testing"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/wire"
)

func join(frames ...[]byte) []byte {
	var all []byte
	for _, f := range frames {
		all = append(all, f...)
	}
	return all
}

func ack(cursor string) string { return `{"type":"ack","cursor":"` + cursor + `"}` }

// padded returns a ping of n bytes.
func padded(n int) string {
	const head, tail = `{"type":"ping","x":"`, `"}`
	return head + strings.Repeat("x", n-len(head)-len(tail)) + tail
}

func unmasked(first opcode, payload string) []byte {
	return append([]byte{byte(first), byte(len(payload))}, payload...)
}

func header(first opcode, length ...byte) []byte {
	return append(append([]byte{byte(first)}, length...), 0, 0, 0, 0)
}

// streams are what clients send after the handshake, whatever pieces it arrives in, and what comes of it.
var streams = []struct {
	name    string
	stream  []byte
	cursors string // of the acknowledgements that are received, joined by spaces
	code    string // of the refusal; empty: none, and the client says goodbye
}{
	{name: "a message", stream: frame(fin|opText, ack("a")), cursors: "a"},
	{
		name:    "several messages",
		stream:  join(frame(fin|opText, ack("a")), frame(fin|opText, ack("b")), frame(fin|opText, ack("c"))),
		cursors: "a b c",
	},
	{
		name: "fragments",
		stream: join(
			frame(opText, ack("a")[:5]),
			frame(opContinue, ack("a")[5:9]),
			frame(fin|opContinue, ack("a")[9:]),
		),
		cursors: "a",
	},
	{
		name: "empty fragments",
		stream: join(
			frame(opText, ""),
			frame(opContinue, ""),
			frame(opContinue, ack("a")),
			frame(fin|opContinue, ""),
		),
		cursors: "a",
	},
	{
		name: "control frames between fragments",
		stream: join(frame(opText, ack("a")[:5]), frame(fin|opPing, "?"), frame(opContinue, ""), frame(fin|opPong, "!"),
			frame(fin|opContinue, ack("a")[5:]), frame(fin|opText, ack("b"))),
		cursors: "a b",
	},
	{
		name:    "a character split between fragments",
		stream:  join(frame(opText, ack("ä")[:25]), frame(fin|opContinue, ack("ä")[25:])),
		cursors: "ä",
	},
	{name: "medium length", stream: join(frame(fin|opText, padded(126)), frame(fin|opText, ack("a"))), cursors: "a"},
	{
		name: "the shortest and the longest ping",
		stream: join(
			frame(fin|opPing, ""),
			frame(fin|opPing, strings.Repeat("p", 125)),
			frame(fin|opText, ack("a")),
		),
		cursors: "a",
	},
	{
		name: "the largest message in fragments",
		stream: join(
			frame(fin|opText, ack("a")),
			frame(opText, padded(transport.MaxFrame)[:9000]),
			frame(fin|opContinue, padded(transport.MaxFrame)[9000:]),
			frame(fin|opText, ack("b")),
		),
		cursors: "a b",
	},

	{name: "an unmasked frame", stream: unmasked(fin|opText, ack("a")), code: CodeProtocol},
	{name: "an unmasked ping", stream: unmasked(fin|opPing, ""), code: CodeProtocol},
	{name: "reserved bit 1", stream: frame(fin|0x40|opText, ack("a")), code: CodeProtocol},
	{name: "reserved bit 2", stream: frame(fin|0x20|opText, ack("a")), code: CodeProtocol},
	{name: "reserved bit 3", stream: frame(fin|0x10|opPing, ""), code: CodeProtocol},
	{name: "reserved opcode", stream: frame(fin|0x3, ""), code: CodeProtocol},
	{name: "reserved control opcode", stream: frame(fin|0xb, ""), code: CodeProtocol},
	{name: "a binary message", stream: frame(fin|opBinary, ack("a")), code: CodeNotText},
	{name: "a fragmented ping", stream: join(frame(opPing, "a"), frame(fin|opContinue, "b")), code: CodeProtocol},
	{name: "a ping that is too long", stream: frame(fin|opPing, strings.Repeat("p", 126)), code: CodeProtocol},
	{name: "a continuation of nothing", stream: frame(fin|opContinue, ack("a")), code: CodeProtocol},
	{
		name:   "a message inside a message",
		stream: join(frame(opText, ack("a")[:5]), frame(fin|opText, ack("b"))),
		code:   CodeProtocol,
	},
	{name: "not UTF-8", stream: frame(fin|opText, "{\"type\":\"ping\",\"x\":\"\xff\"}"), code: CodeNotUTF8},
	{
		name:   "an overlong character",
		stream: frame(fin|opText, "{\"type\":\"ping\",\"x\":\"\xc0\xaf\"}"),
		code:   CodeNotUTF8,
	},
	{
		name:   "half a pair of surrogates",
		stream: frame(fin|opText, "{\"type\":\"ping\",\"x\":\"\xed\xa0\x80\"}"),
		code:   CodeNotUTF8,
	},
	{name: "a character cut off", stream: frame(fin|opText, "{\"type\":\"ping\"}\xe2\x82"), code: CodeNotUTF8},
	{name: "a close of one byte", stream: frame(fin|opClose, "\x03"), code: CodeProtocol},
	{name: "a close with a code that is never sent", stream: closeFrame(1005, ""), code: CodeProtocol},
	{name: "a close with a code below 1000", stream: closeFrame(999, ""), code: CodeProtocol},
	{name: "a close with a code of 5000", stream: closeFrame(5000, ""), code: CodeProtocol},
	{name: "a close whose reason is not UTF-8", stream: closeFrame(1000, "\xff"), code: CodeNotUTF8},
	{name: "a fragmented close", stream: frame(opClose, "\x03\xe8"), code: CodeProtocol},
	{
		name:   "a first message beyond its limit",
		stream: frame(fin|opText, padded(transport.MaxFirstFrame+1)),
		code:   transport.CodeTooLarge,
	},
	{
		name: "a first message beyond its limit in fragments",
		stream: join(
			frame(opText, padded(transport.MaxFirstFrame + 1)[:9]),
			frame(fin|opContinue, padded(transport.MaxFirstFrame + 1)[9:]),
		),
		code: transport.CodeTooLarge,
	},
	{name: "a length of 2^63", stream: header(fin|opText, masked|127, 0x80, 0, 0, 0, 0, 0, 0, 0), code: CodeProtocol},
	{
		name:   "a length of 2^64-14",
		stream: header(fin|opText, masked|127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xf2),
		code:   CodeProtocol,
	},
	{
		name: "a length of 2^40",
		stream: join(
			header(fin|opText, masked|127, 0, 0, 1, 0, 0, 0, 0, 0),
			make([]byte, transport.MaxFirstFrame+1),
		),
		code: transport.CodeTooLarge,
	},
	{
		name:    "good, then bad",
		stream:  join(frame(fin|opText, ack("a")), frame(fin|opText, ack("b")), frame(fin|opText, "{")),
		cursors: "a b",
		code:    wire.CodeMalformed,
	},
}

func TestReader_StreamsInPieces(t *testing.T) {
	addr, r := start(t, Config{})
	for _, tc := range streams {
		for _, how := range []struct {
			name  string
			early int // bytes that travel with the handshake
			piece int // bytes of each later write
		}{
			{"at once", 0, 1 << 20},
			{"in bytes", 0, 1},
			{"in threes", 1, 3},
			{"with the handshake", 1 << 20, 1},
		} {
			if how.piece < 4 && len(tc.stream) > 2000 {
				how.piece *= 997
			}
			t.Run(tc.name+"/"+how.name, func(t *testing.T) {
				stream := tc.stream
				if tc.code == "" {
					stream = join(stream, closeFrame(1000, "bye"))
				}
				early := stream[:min(how.early, len(stream))]
				c := dialRaw(t, addr, nil, early...)
				s := r.session(t)
				for rest := stream[len(early):]; len(rest) > 0; rest = rest[min(how.piece, len(rest)):] {
					if err := c.write(rest[:min(how.piece, len(rest))]); err != nil {
						break // the server has seen enough, and the session tells what
					}
				}
				_, payload := c.until(t, fin|opClose)
				want := wire.CloseNormal
				if tc.code != "" {
					want = wire.CloseProtocol
					if got := payload[2:]; got != "protocol" {
						t.Errorf("reason: got %q, want protocol", got)
					}
				}
				c.ends(t)
				c.Kill()
				if got := get(t, s.closed, "Closed"); got != want {
					t.Errorf("Closed: got %v, want %v", got, want)
				}
				check(t, s, tc.cursors, tc.code)
			})
		}
	}
}

// check compares what a closed session was told.
func check(t *testing.T, s *session, wantCursors, wantCode string) {
	t.Helper()
	var cursors []string
	for len(s.frames) > 0 {
		if a, ok := (<-s.frames).(*wire.Ack); ok {
			cursors = append(cursors, a.Cursor)
		}
	}
	if got := strings.Join(cursors, " "); got != wantCursors {
		t.Errorf("acknowledgements: got %q, want %q", got, wantCursors)
	}
	var codes []string
	for len(s.refusals) > 0 {
		codes = append(codes, (<-s.refusals).(*push.Error).Code)
	}
	if got := strings.Join(codes, " "); got != wantCode {
		t.Errorf("refusals: got %q, want %q", got, wantCode)
	}
}

func TestGoodbye_IsAnsweredWithItsCode(t *testing.T) {
	addr, r := start(t, Config{})
	for _, code := range []uint16{0, 1000, 1001, 1002, 1003, 1007, 1008, 1011, 3000, 3999, 4000, 4999} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			bye, want := frame(fin|opClose, ""), ""
			if code != 0 {
				bye, want = closeFrame(code, "see you"), string([]byte{byte(code >> 8), byte(code)})
			}
			c := dialRaw(t, addr, nil)
			s := r.session(t)
			if err := c.write(bye); err != nil {
				t.Fatal(err)
			}
			if _, got := c.until(t, fin|opClose); got != want {
				t.Errorf("answer: got %x, want %x", got, want)
			}
			c.ends(t)
			if got := get(t, s.closed, "Closed"); got != wire.CloseNormal {
				t.Errorf("Closed: got %v, want %v", got, wire.CloseNormal)
			}
		})
	}
}

func TestClose_SendsCodeAndName(t *testing.T) {
	addr, r := start(t, Config{})
	c := dialRaw(t, addr, nil)
	s := r.session(t)
	s.conn.Close(wire.CloseReplaced)
	if _, got := c.until(t, fin|opClose); got != "\x10\x68replaced" {
		t.Errorf("close frame: got %q, want 4200 replaced", got)
	}
	if err := c.write(closeFrame(4200, "")); err != nil {
		t.Fatal(err)
	}
	c.ends(t) // the server closes the socket
	if got := get(t, s.closed, "Closed"); got != wire.CloseReplaced {
		t.Errorf("Closed: got %v, want %v", got, wire.CloseReplaced)
	}
}
