package ws

import (
	"bytes"
	"fmt"
	"testing"

	"carillon/server/wire"
)

// What is read without the library is what the library reads, whatever its length and whatever stands behind it.
func TestReadWhole_AgreesWithTheLibrary(t *testing.T) {
	r := newRoom()
	tr, err := New(Config{Acceptor: r})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close(t.Context())
	tails := [][]byte{
		nil, frame(fin|opPing, "p"), frame(fin|opPong, ""), frame(opText, ack("x")), closeFrame(1000, ""),
		closeFrame(1001, "away"), closeFrame(1000, "\xff"), closeFrame(4000, "x"), closeFrame(1005, ""), frame(fin|opClose, ""),
		frame(fin|opClose, "\x03"),
	}
	for length := range 300 {
		first := frame(fin|opText, ack(string(bytes.Repeat([]byte{'c'}, length))))
		for _, tail := range tails {
			var got [2]string
			for i, read := range []func(*conn, []byte) bool{(*conn).read, (*conn).parse} {
				c := held(t, tr)
				s := <-r.began
				on := read(c, join(first, tail))
				bye := "none" // a pong may be on its way already; a goodbye stays due
				if s := c.said.Load(); s != nil && s.bye != nil {
					bye = fmt.Sprintf("%q", s.bye)
				}
				got[i] = fmt.Sprintf("goes on: %v, alive: %d, bye: %s, refused: %v, in a message: %v",
					on, len(s.alives), bye, c.Refused(), c.inMessage())
				for len(s.frames) > 0 {
					got[i] += fmt.Sprintf(", %+v", <-s.frames)
				}
				c.Cut(wire.CloseInternal)
				get(t, s.closed, "Closed")
			}
			if got[0] != got[1] {
				t.Fatalf("%d bytes, then % x:\n%s\nthe library:\n%s", length, tail, got[0], got[1])
			}
		}
	}
}

func TestRead_OfAFrameAllocatesLittle(t *testing.T) {
	tr, err := New(Config{Acceptor: lean{make(chan struct{}, 2)}})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close(t.Context())
	f := frame(fin|opText, `{"type":"ping"}`)
	in := bytes.Clone(f)
	for _, way := range []struct {
		name string
		read func(*conn, []byte) bool
		most float64
	}{
		{"where it lies: the frame alone", (*conn).read, 1},
		{"by the library", (*conn).parse, 4},
	} {
		c := held(t, tr)
		got := testing.AllocsPerRun(200, func() {
			copy(in, f)
			if !way.read(c, in) {
				t.Fatal("the stream ended")
			}
		})
		if got > way.most {
			t.Errorf("%s: got %v allocations of a ping frame, want at most %v", way.name, got, way.most)
		}
		c.Cut(wire.CloseInternal)
	}
}
