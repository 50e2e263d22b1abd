package swarm

import (
	"testing"
	"unsafe"
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
		slot, pos, ok := placeOf([]byte(c.frame))
		if ok != c.ok || ok && (int(slot) != c.slot || uint64(pos) != c.pos) {
			t.Errorf("%s: got %d, %d, %v", c.frame, slot, pos, ok)
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
