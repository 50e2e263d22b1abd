package ws

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"

	"carillon/server/transport"
	"carillon/server/wire"
)

// Section 10: what an implementation owes to itself.
func limitRules() []rule {
	large := func(c Config) Config { c.FirstFrameBytes, c.FrameBytes = 1<<17, 1<<17; return c }
	return []rule{
		streamRule("10.4", "a first message beyond its limit is refused",
			sent{name: "whole", bytes: frame(fin|opText, padded(transport.MaxFirstFrame+1)), code: transport.CodeTooLarge},
			sent{
				name: "in fragments", bytes: inFragments(padded(transport.MaxFirstFrame+1), 1000), code: transport.CodeTooLarge,
			},
			sent{
				name: "by its last octet",
				bytes: join(
					frame(opText, padded(transport.MaxFirstFrame)), frame(opContinue, ""), frame(fin|opContinue, " "),
				),
				code: transport.CodeTooLarge,
			},
		),
		streamRule("10.4", "a later message beyond its limit is refused",
			sent{
				name:    "whole",
				bytes:   join(frame(fin|opText, ack("a")), frame(fin|opText, padded(transport.MaxFrame+1))),
				cursors: "a",
				code:    transport.CodeTooLarge,
			},
			sent{
				name: "by its last fragment",
				bytes: join(
					frame(fin|opText, ack("a")), frame(opText, padded(transport.MaxFrame-10)), frame(fin|opPing, "?"),
					frame(opContinue, strings.Repeat(" ", 11)),
				),
				cursors: "a",
				code:    transport.CodeTooLarge,
			},
			sent{
				name:    "in fragments",
				bytes:   join(frame(fin|opText, ack("a")), inFragments(padded(transport.MaxFrame+1), 5000)),
				cursors: "a",
				code:    transport.CodeTooLarge,
			},
		),
		streamRule("10.4", "a length beyond the limit is refused before its bytes come", longerThanAllowed()...),
		{"10.4", "no length that is claimed is allocated", playClaims},
		{"10.4", "lengths around the forms of 16 and 64 bits", func(t *testing.T, cfg Config) {
			streamRule("", "", named([]int{32768, 65535, 65536, 65537, 1 << 17}, func(n int) sent {
				return sent{
					bytes:   join(frame(fin|opText, ack("a")), frame(fin|opText, padded(n)), frame(fin|opText, ack("b"))),
					cursors: "a b",
				}
			})...).run(t, large(cfg))
		}},
		{"10.6", "the same over TLS", playTLS},
		streamRule("10.7", "rubbish is refused",
			sent{name: "zeros", bytes: make([]byte, 100), code: CodeProtocol},
			sent{name: "ones", bytes: bytes.Repeat([]byte{0xff}, 100), code: CodeProtocol},
			sent{name: "text", bytes: []byte(ack("a")), code: CodeProtocol},
			sent{name: "a second handshake", bytes: []byte(handshake), code: CodeProtocol},
			sent{name: "TLS", bytes: []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("x", 50)), code: CodeProtocol},
		),
	}
}

// longerThanAllowed are headers and no payload.
func longerThanAllowed() []sent {
	all := named([]uint64{transport.MaxFirstFrame + 1, transport.MaxFrame, 65535, 65536, 1 << 31, 1<<32 - 1, 1 << 32, 1 << 40, 1<<63 - 1},
		func(n uint64) sent {
			h := longHeader64(fin|opText, n)
			if n < 1<<16 {
				h = header(fin|opText, binary.BigEndian.AppendUint16([]byte{126}, uint16(n))...)
			}
			return sent{bytes: h, code: transport.CodeTooLarge}
		})
	return append(all,
		sent{
			name:    "a later message",
			bytes:   join(frame(fin|opText, ack("a")), longHeader64(fin|opText, transport.MaxFrame+1)),
			cursors: "a",
			code:    transport.CodeTooLarge,
		},
		sent{
			name:  "a first message behind a ping",
			bytes: join(frame(fin|opPing, "?"), longHeader64(fin|opText, transport.MaxFirstFrame+1)),
			code:  transport.CodeTooLarge,
		},
		sent{
			name: "fragments whose lengths add up to more than 64 bits hold",
			bytes: join(
				frame(opText, "{"), longHeader64(opContinue, math.MaxInt64),
			),
			code: transport.CodeTooLarge,
		},
	)
}

// playClaims claims lengths in every frame and sends none of what they claim.
func playClaims(t *testing.T, cfg Config) {
	addr, r := start(t, cfg)
	lengths := []uint64{1 << 24, 1 << 31, 1 << 32, 1 << 40, 1<<62 + 1, 1<<63 - 1, 1 << 63, math.MaxUint64 - 13, math.MaxUint64}
	for _, op := range []opcode{opText, fin | opText, fin | opBinary, fin | opPing, fin | opPong, fin | opClose} {
		for _, n := range lengths {
			t.Run(fmt.Sprintf("%#x of %d", byte(op), n), func(t *testing.T) {
				c := dialRaw(t, addr, nil)
				s := r.session(t)
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				if err := c.write(longHeader64(op, n)); err != nil {
					t.Fatal(err)
				}
				get(t, s.refusals, "a refusal")
				runtime.ReadMemStats(&after)
				if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
					t.Errorf("the frame's header made the server allocate %d bytes", got)
				}
				c.until(t, fin|opClose)
				if rest := c.rest(t, nil); len(rest) > 0 {
					t.Errorf("behind the close frame comes % x", rest)
				}
			})
		}
	}
}

// playTLS runs a stream of everything over TLS.
func playTLS(t *testing.T, cfg Config) {
	r := newRoom()
	cfg.Acceptor = r
	addr, _, stop := serve(t, cfg, nil, new(tls.Config))
	defer stop(t.Context())
	for _, piece := range []int{1 << 20, 1, 3} {
		c := dialRaw(t, addr, &tls.Config{InsecureSkipVerify: true})
		s := r.session(t)
		all := join(
			frame(fin|opText, ack("a")), frame(opText, ack("ä")[:25]), frame(fin|opPing, "?"), frame(fin|opContinue, ack("ä")[25:]),
			inForm(126, fin|opText, ack("c")), closeFrame(1001, "bye"),
		)
		for rest := all; len(rest) > 0; rest = rest[min(piece, len(rest)):] {
			if err := c.write(rest[:min(piece, len(rest))]); err != nil {
				t.Fatal(err)
			}
		}
		if _, got := c.until(t, fin|opClose); got != "\x03\xe9" {
			t.Errorf("close frame: got %q, want 1001", got)
		}
		if rest := c.rest(t, nil); len(rest) > 0 {
			t.Errorf("behind the close frame comes % x", rest)
		}
		if got := get(t, s.closed, "Closed"); got != wire.CloseNormal {
			t.Errorf("Closed: got %v, want %v", got, wire.CloseNormal)
		}
		check(t, s, sent{cursors: "a ä c"}, model(all, limitsOf(cfg)))
	}
}
