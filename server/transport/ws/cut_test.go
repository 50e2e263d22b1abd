package ws

import (
	"encoding/binary"
	"fmt"
	"net"
	"testing"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/wire"
)

// cutter returns cut as it is before and behind the first message.
func cutter(greeted bool) func(b []byte) (int, error) {
	limit := transport.MaxFirstFrame
	if greeted {
		limit = transport.MaxFrame
	}
	return func(b []byte) (int, error) { return cut(b, limit, transport.MaxFrame) }
}

// held returns a connection whose reader hears nothing, for a test that is its reader.
func held(t *testing.T, tr *Transport) *conn {
	t.Helper()
	c := &conn{t: tr}
	if err := tr.engine.Accept(c, transport.Meta{}, false); err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	if err := tr.engine.Adopt(c, near, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	return c
}

// Whatever has come of a stream, what is cut from it are whole frames, the same ones in the end, and nothing twice.
func TestCut_EveryPrefixGivesWholeFrames(t *testing.T) {
	frames := [][]byte{
		frame(fin|opText, ack("a")), frame(fin|opPing, ""), frame(opText, padded(126)), frame(fin|opPong, "!"),
		frame(opContinue, ""), frame(fin|opContinue, "x"), frame(fin|opText, padded(1<<8)), closeFrame(1000, "bye"),
	}
	ends := []int{0}
	for _, f := range frames {
		ends = append(ends, ends[len(ends)-1]+len(f))
	}
	stream := join(frames...)
	for n := range len(stream) + 1 {
		want := 0
		for _, e := range ends {
			if e <= n {
				want = e
			}
		}
		got, refusal := cutter(true)(stream[:n])
		if got != want || refusal != nil {
			t.Fatalf("cut of the first %d bytes: got %d, %v, want %d", n, got, refusal, want)
		}
	}
}

func TestCut_RefusesAtTheHeader(t *testing.T) {
	long := func(n uint64) []byte {
		return append(binary.BigEndian.AppendUint64([]byte{byte(fin | opText), masked | length64}, n), 0, 0, 0, 0)
	}
	for _, tc := range []struct {
		name    string
		header  []byte
		greeted bool
		want    *push.Error
	}{
		{"the largest first message", header(fin|opText, masked|length16, 0x10, 0), false, nil},
		{"a first message beyond its limit", header(fin|opText, masked|length16, 0x10, 1), false, errTooLarge},
		{"the largest later message", header(fin|opText, masked|length16, 0x40, 0), true, nil},
		{"a later message beyond its limit", header(fin|opText, masked|length16, 0x40, 1), true, errTooLarge},
		{"a length of 2^63-1", long(1<<63 - 1), true, errTooLarge},
		{"a length of 2^63", long(1 << 63), true, errProtocol},
		{"a length of 2^64-14", long(1<<64 - 14), true, errProtocol},
		{"a length of 2^64-1", long(1<<64 - 1), true, errProtocol},
		{"a ping of 126 bytes", header(fin|opPing, masked|length16, 0, 126), true, errProtocol},
		{"a close of 2^16 bytes", header(fin|opClose, masked|length64, 0, 0, 0, 0, 0, 1, 0, 0), true, errProtocol},
		{"a fragmented ping", header(opPing, masked), true, errProtocol},
		{"no mask", []byte{byte(fin | opText), 5}, true, errProtocol},
		{"a reserved bit", header(fin|0x40|opText, masked|1), true, errProtocol},
		{"a reserved opcode", header(fin|0x3, masked|1), true, errProtocol},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := cutter(tc.greeted)
			whole, refusal := c(tc.header)
			if tc.want == nil {
				if whole != 0 || refusal != nil {
					t.Errorf("cut: got %d, %v, want to wait", whole, refusal)
				}
				return
			}
			if whole != 0 || refusal != error(tc.want) {
				t.Errorf("cut: got %d, %v, want %v", whole, refusal, tc.want)
			}
			good := frame(fin|opPing, "ok")
			if whole, refusal = c(join(good, tc.header)); whole != len(good) || refusal != error(tc.want) {
				t.Errorf("behind a good frame: got %d, %v", whole, refusal)
			}
		})
	}
}

// The limit of the first message ends with it, also inside one read.
func TestCut_FirstLimitEndsWithTheFirstMessage(t *testing.T) {
	first, later := frame(fin|opText, ack("a")), frame(fin|opText, padded(transport.MaxFrame))
	if whole, refusal := cutter(false)(join(first, later)); whole != len(first)+len(later) || refusal != nil {
		t.Errorf("cut: got %d, %v, want both", whole, refusal)
	}
	open := frame(opText, ack("a")[:3])
	if whole, refusal := cutter(false)(join(open, later)); whole != len(open) || refusal != error(errTooLarge) {
		t.Errorf("inside the first message: got %d, %v, want the second refused", whole, refusal)
	}
}

// FuzzCut holds what is cut to what the frames say of themselves, counted by another way.
func FuzzCut(f *testing.F) {
	f.Add(join(frame(fin|opText, ack("a")), frame(opPing, "")))
	f.Add(header(fin|opText, masked|length64, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xf2))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := cutter(false)
		whole, refusal := c(b)
		if whole > len(b) {
			t.Fatalf("cut %d of %d bytes", whole, len(b))
		}
		if again, _ := c(b[:whole]); again != whole {
			t.Fatalf("of %d whole bytes, %d are whole", whole, again)
		}
		if rest, why := c(b[whole:]); refusal != nil && (rest != 0 || why == nil) {
			t.Fatalf("refused with %v behind %d bytes, alone it is %d, %v", refusal, whole, rest, why)
		}
		if refusal == nil && len(b)-whole > transport.MaxFrame+14 {
			t.Fatalf("%d bytes are kept", len(b)-whole)
		}
	})
}

// The library has to go on at each boundary between frames after it met the end of what had come, inside messages and
// between them, with control frames anywhere: its documentation does not say so.
func TestParser_GoesOnAtEveryFrameBoundary(t *testing.T) {
	frames := [][]byte{
		frame(opText, ack("a")[:4]), frame(fin|opPing, "1"), frame(opContinue, ""), frame(opContinue, ack("a")[4:9]),
		frame(fin|opPong, "2"), frame(fin|opContinue, ack("a")[9:]), frame(fin|opPing, ""), frame(fin|opText, ack("b")),
		frame(fin|opText, padded(5000)), frame(opText, ""), frame(fin|opContinue, ack("c")),
	}
	r := newRoom()
	tr, err := New(Config{Acceptor: r})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close(t.Context())
	for cuts := range 1 << (len(frames) - 1) {
		c := held(t, tr)
		s := <-r.began
		var piece []byte
		for i, f := range frames {
			piece = append(piece, f...)
			if last := i == len(frames)-1; last || cuts>>i&1 == 1 {
				if !c.parse(piece) {
					t.Fatalf("cuts %b: the stream ended after frame %d", cuts, i)
				}
				piece = nil
			}
		}
		var got []string
		for len(s.frames) > 0 {
			got = append(got, fmt.Sprintf("%v", (<-s.frames).Type()))
		}
		if want := "[ack ack ping ack]"; fmt.Sprint(got) != want {
			t.Fatalf("cuts %b: got %v, want %s", cuts, got, want)
		}
		if got, want := len(s.alives), 1; got != want {
			t.Fatalf("cuts %b: signs of life: got %d, want %d: two control frames stood inside a message", cuts, got, want)
		}
		if c.inMessage() {
			t.Fatalf("cuts %b: a parser is kept between two messages", cuts)
		}
		c.Cut(wire.CloseInternal)
		get(t, s.closed, "Closed")
	}
	if got := len(tr.parsers.idle); got != 1 {
		t.Errorf("parsers: got %d, want one for all connections", got)
	}
}

// A parser that met a broken stream is not lent again, and one that ends in the middle of a message is not kept.
func TestParser_BrokenOnesAreNotLentAgain(t *testing.T) {
	r := newRoom()
	tr, err := New(Config{Acceptor: r})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close(t.Context())
	for name, stream := range map[string][]byte{
		"a continuation of nothing": frame(fin|opContinue, "a"),
		"a goodbye":                 closeFrame(1000, ""),
		"no JSON":                   frame(fin|opText, "{"),
		"binary":                    frame(fin|opBinary, "a"),
	} {
		c := held(t, tr)
		if c.parse(stream) {
			t.Errorf("%s: the stream goes on", name)
		}
		if len(tr.parsers.idle) != 0 || c.inMessage() {
			t.Errorf("%s: the parser is kept", name)
		}
		c.Cut(wire.CloseInternal)
	}
}
