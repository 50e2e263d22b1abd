package wire

import (
	"testing"

	"carillon/server/push"
)

func TestAlloc_SharedMessageIntoABufferTakesNone(t *testing.T) {
	o := &Out{Shared: NewShared(sample()), Slot: push.Common, Pos: 1853030828408839}
	buf := make([]byte, 0, 4096)
	for _, enc := range []Encoding{JSON, Binary} {
		AppendOut(buf, enc, o) // the first session pays for the tail
		if n := testing.AllocsPerRun(100, func() { AppendOut(buf, enc, o) }); n != 0 {
			t.Errorf("encoding %d: got %v allocations, want 0", enc, n)
		}
	}
}

func TestAlloc_TailTakesOneBufferAndOnePointer(t *testing.T) {
	m := sample()
	buf := make([]byte, 0, 4096)
	for _, enc := range []Encoding{JSON, Binary} {
		n := testing.AllocsPerRun(100, func() { AppendOut(buf, enc, &Out{Shared: NewShared(m)}) })
		if n > 3 { // Shared, tail, the slice header behind the atomic pointer
			t.Errorf("encoding %d: got %v allocations, want at most 3", enc, n)
		}
	}
}

func TestAlloc_OtherFramesIntoABufferTakeNone(t *testing.T) {
	s := newSource(7)
	buf := make([]byte, 0, 16384)
	for ty := TypeConnect; ty <= TypeTags; ty++ {
		o := &Out{Frame: s.frame(ty)}
		for _, enc := range []Encoding{JSON, Binary} {
			if n := testing.AllocsPerRun(100, func() { AppendOut(buf, enc, o) }); n != 0 {
				t.Errorf("%s, encoding %d: got %v allocations, want 0", ty, enc, n)
			}
		}
	}
}

func TestAlloc_DecodingTakesTheFrameAndItsTexts(t *testing.T) {
	for _, c := range []struct {
		frame Frame
		most  float64
	}{
		{&Ping{}, 0}, {&Pong{}, 0},
		{&Ack{Cursor: "1.366b3e2ade2f1357.4a1b.9c3d55e07f12a6b8.6955b90000000.77.9c3d55e07f12a6b8.6955b90100000"}, 2},
		{&Event{Event: Clicked, ID: 7238556057600001, Time: 1767225660123}, 1},
		{&Connect{Version: 1, Token: "some.device.token", Cursor: "1.2.3", Client: "carillon-js/1.0"}, 4},
	} {
		for _, enc := range []Encoding{JSON, Binary} {
			b := Append(nil, enc, c.frame)
			n := testing.AllocsPerRun(100, func() {
				if _, err := DecodeClient(enc, b); err != nil {
					t.Error(err)
				}
			})
			if n > c.most {
				t.Errorf("%s, encoding %d: got %v allocations, want at most %v", c.frame.Type(), enc, n, c.most)
			}
		}
	}
}
