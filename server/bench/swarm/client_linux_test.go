package swarm

import (
	"testing"
	"unsafe"

	"carillon/server/push"
	"carillon/server/wire"
)

func TestClient_IsSmall(t *testing.T) {
	if n := unsafe.Sizeof(client{}); n > 16 {
		t.Errorf("a client takes %d bytes, want 16 at most", n)
	}
	if n := unsafe.Sizeof(entry{}); n > 8 {
		t.Errorf("a heartbeat that waits takes %d bytes, want 8 at most", n)
	}
}

func TestPlaceOf_ReadsSlotAndPosition(t *testing.T) {
	cases := []struct {
		frame string
		slot  int
		pos   uint64
		ok    bool
	}{
		{`{"type":"message","slot":0,"pos":1853070350745601,"id":"7"}`, 0, 1853070350745601, true},
		{`{"type":"message","slot":1,"pos":5,"id":"7"}`, 1, 5, true},
		{`{"type":"message","id":"7","body":1}`, 0, 0, false},
		{`{"type":"message",`, 0, 0, false},
		{`{"type":"message","slot":7,"pos":5,"id":"7"}`, 0, 0, false},
	}
	for _, c := range cases {
		slot, pos, ok := placeOf(wire.JSON, []byte(c.frame))
		if ok != c.ok || ok && (int(slot) != c.slot || uint64(pos) != c.pos) {
			t.Errorf("%s: got %d, %d, %v", c.frame, slot, pos, ok)
		}
	}
}

// binaryMessage is a message as a server sends it in binary.
func binaryMessage(slot push.SlotKind, pos push.Position, body []byte) []byte {
	m := &push.Message{ID: 7, Created: 1, Body: body, Persistent: slot != push.NoSlot}
	return wire.AppendOut(nil, wire.Binary, &wire.Out{Shared: wire.NewShared(m), Slot: slot, Pos: pos})
}

func TestPlaceOf_ReadsSlotAndPositionInBinary(t *testing.T) {
	for _, pos := range []push.Position{0, 1, 1853070350745601} {
		slot, got, ok := placeOf(wire.Binary, binaryMessage(push.Common, pos, []byte("1")))
		if slot != push.Common || got != pos || !ok {
			t.Errorf("got %d, %d, %v, want %d", slot, got, ok, pos)
		}
	}
	if _, _, ok := placeOf(wire.Binary, binaryMessage(push.NoSlot, 0, []byte("1"))); ok {
		t.Error("a message without a place has one")
	}
	if _, _, ok := placeOf(wire.Binary, binaryMessage(push.Own, 1<<40, nil)[:3]); ok {
		t.Error("a position that is cut off is one")
	}
}

func TestFindMark_InBothEncodings(t *testing.T) {
	want := Mark{Phase: 3, Seq: 1 << 40, Sent: 12345}
	body := AppendBody(nil, want, MinBody+10)
	m := &push.Message{ID: 7, Created: 1, Body: body}
	for _, e := range []wire.Encoding{wire.JSON, wire.Binary} {
		f := wire.AppendOut(nil, e, &wire.Out{Shared: wire.NewShared(m), Slot: push.NoSlot})
		if got, ok := findMark(f); !ok || got != want || typeOf(e, f) != wire.TypeMessage {
			t.Errorf("encoding %v: got %+v, %v, want %+v", e, got, ok, want)
		}
	}
}

func TestCounting_TellsOfAMessageWhenAllHaveIt(t *testing.T) {
	k := counting{phase: 2, how: CountAll, expect: 3}
	arrive := func(m Mark, times int) {
		for range times {
			k.message(append(AppendBody([]byte(`{"type":"message","id":"1","body":`), m, MinBody), '}'), 100)
		}
	}
	arrive(Mark{Phase: 1, Seq: 0}, 3) // of an earlier phase
	arrive(Mark{Phase: 2, Seq: 0}, 2)
	arrive(Mark{Phase: 2, Seq: 1}, 3)
	if len(k.done) != 1 || k.done[0] != 1 {
		t.Errorf("done are %v, want 1 alone", k.done)
	}
	arrive(Mark{Phase: 2, Seq: 0}, 1)
	arrive(Mark{Phase: 2, Seq: MaxUnderWay}, 3) // takes the place of 0
	if len(k.done) != 3 {
		t.Errorf("done are %v, want three", k.done)
	}
	if k.report.Messages != 9 || k.report.Others != 3 || k.report.Latency.N != 9 {
		t.Errorf("counted %+v", k.report)
	}
}
