package swarm

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"carillon/server/wire"
)

// served is a frame as a server sends it.
func served(op byte, payload []byte) []byte {
	b := []byte{0x80 | op}
	switch n := len(payload); {
	case n <= 125:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return append(b, payload...)
}

func TestCutFrame_EverySplitOfAStreamGivesTheSameFrames(t *testing.T) {
	payloads := []string{"", "a", strings.Repeat("b", 125), strings.Repeat("c", 126), strings.Repeat("d", 300), strings.Repeat("e", 1<<16)}
	var stream []byte
	for _, p := range payloads {
		stream = append(stream, served(opText, []byte(p))...)
	}
	cuts := make([]int, 0, 2000)
	for i := range 1000 { // each split among the short frames, and some within the long one
		cuts = append(cuts, i)
	}
	for i := len(stream) - 1000; i < len(stream); i += 7 {
		cuts = append(cuts, i)
	}
	for _, split := range cuts {
		var got []string
		var kept []byte
		for _, part := range [][]byte{stream[:split], stream[split:]} {
			b := append(kept, part...)
			for {
				f, n, err := cutFrame(b)
				if err != nil {
					t.Fatalf("split at %d: %v", split, err)
				}
				if n == 0 {
					break
				}
				got = append(got, string(f.payload))
				b = b[n:]
			}
			kept = bytes.Clone(b)
		}
		if len(kept) != 0 || len(got) != len(payloads) {
			t.Fatalf("split at %d: %d frames and %d bytes left, want %d and 0", split, len(got), len(kept), len(payloads))
		}
		for i := range got {
			if got[i] != payloads[i] {
				t.Fatalf("split at %d: frame %d has %d bytes, want %d", split, i, len(got[i]), len(payloads[i]))
			}
		}
	}
}

func TestCutFrame_OneByteAtATime(t *testing.T) {
	b := served(opText, []byte(strings.Repeat("x", 200)))
	for n := range b {
		if _, took, err := cutFrame(b[:n]); took != 0 || err != nil {
			t.Fatalf("of %d bytes it took %d (%v)", n, took, err)
		}
	}
}

func TestCutFrame_RefusesWhatOurServerNeverSends(t *testing.T) {
	cases := []struct {
		name string
		b    []byte
	}{
		{"a fragment", []byte{opText, 0}},
		{"an extension", []byte{0xc0 | opText, 0}},
		{"a mask", []byte{0x80 | opText, 0x80, 1, 2, 3, 4}},
		{"a binary message", []byte{0x82, 0}},
		{"a continuation", []byte{0x80, 0}},
		{"the largest length", []byte{0x80 | opText, 127, 255, 255, 255, 255, 255, 255, 255, 255}},
		{"more than the limit", binary.BigEndian.AppendUint64([]byte{0x80 | opText, 127}, maxFrame+1)},
	}
	for _, c := range cases {
		if _, n, err := cutFrame(c.b); err == nil || n != 0 {
			t.Errorf("%s: took %d, %v, want an error", c.name, n, err)
		}
	}
}

func TestCutFrame_AllocatesNothing(t *testing.T) {
	b := served(opText, AppendBody([]byte(`{"type":"message","id":"1",`), Mark{1, 2, 3}, 128))
	if n := testing.AllocsPerRun(100, func() {
		f, _, _ := cutFrame(b)
		_, _ = findMark(f.payload)
		_, _, _ = placeOf(wire.JSON, f.payload)
	}); n != 0 {
		t.Errorf("%v allocations for a frame, want 0", n)
	}
}

func FuzzCutFrame(f *testing.F) {
	f.Add(served(opText, []byte("hello")))
	f.Add(served(opClose, []byte{3, 232}))
	f.Add([]byte{0x81, 127, 0, 0, 0, 0, 0, 0, 0, 1, 'x'})
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, n, err := cutFrame(b)
		if n < 0 || n > len(b) || len(fr.payload) > n || err != nil && n != 0 {
			t.Errorf("of %d bytes it took %d with a payload of %d (%v)", len(b), n, len(fr.payload), err)
		}
	})
}

func TestMark_ComesBackAndKeepsItsSize(t *testing.T) {
	for _, m := range []Mark{{}, {1, 2, 3}, {1<<32 - 1, 1<<64 - 1, 1<<63 - 1}} {
		for _, size := range []int{MinBody, MinBody + 1, 128, 4096} {
			body := AppendBody(nil, m, size)
			if len(body) != size {
				t.Errorf("a body of %d bytes has %d", size, len(body))
			}
			frame := append(append([]byte(`{"type":"message","slot":0,"pos":7,"id":"1","body":`), body...), '}')
			if got, ok := findMark(frame); !ok || got != m {
				t.Errorf("got %+v, %v, want %+v", got, ok, m)
			}
			if _, ok := findMark(frame[:len(frame)-size+10]); ok {
				t.Error("half a mark was taken for one")
			}
		}
	}
	if _, ok := findMark([]byte(`{"type":"message","id":"1","body":{"text":"hello"}}`)); ok {
		t.Error("a message of somebody else was taken for ours")
	}
}

func TestWebSocket_HandshakeIsCutOffWhatFollows(t *testing.T) {
	answer := []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n")
	b := append(bytes.Clone(answer), served(opText, []byte("{}"))...)
	for n := range answer {
		if k, _, took, err := (websocket{}).cut(b[:n], true); k != partial || took != 0 || err != nil {
			t.Fatalf("of %d bytes it took %d (%v)", n, took, err)
		}
	}
	k, _, n, err := websocket{}.cut(b, true)
	if k != upgraded || n != len(answer) || err != nil {
		t.Errorf("got %v, %d, %v, want the whole answer", k, n, err)
	}
	if _, _, _, err := (websocket{}).cut([]byte("HTTP/1.1 503 Service Unavailable\r\n\r\n"), true); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("a refusal is told as %v", err)
	}
}

func TestWebSocket_WhatIsSentIsMasked(t *testing.T) {
	for _, n := range []int{0, 125, 126, 1<<16 - 1, 1 << 16} {
		payload := bytes.Repeat([]byte{'p'}, n)
		b := websocket{}.say(nil, payload)
		header := len(b) - n - 4
		if b[0] != 0x81 || b[1]&0x80 == 0 || !bytes.Equal(b[header:header+4], mask[:]) {
			t.Fatalf("%d bytes: header % x", n, b[:header+4])
		}
		got := b[header+4:]
		for i := range got {
			got[i] ^= mask[i&3]
		}
		if !bytes.Equal(got, payload) {
			t.Errorf("%d bytes: another payload comes out", n)
		}
	}
}
