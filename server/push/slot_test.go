package push

import "testing"

func TestSlotState_ResolveNeverPassesOverWhatMayHaveChanged(t *testing.T) {
	const epoch = 7
	one := SlotState{Epoch: epoch, Head: 150, Origin: 100, Notes: []Note{{Lineage: 1, Start: 100}}}
	// Lineage 2 began after 140 was kept, 3 after 130 (more was lost than lineage 2 had written), 4 after 160.
	many := SlotState{Epoch: epoch, Head: 180, Origin: 100, Notes: []Note{
		{Lineage: 1, Start: 100}, {Lineage: 2, Start: 140}, {Lineage: 3, Start: 130}, {Lineage: 4, Start: 160},
	}}
	// The store fell back to a lineage that it had before.
	again := SlotState{Epoch: epoch, Head: 180, Origin: 100, Notes: []Note{
		{Lineage: 1, Start: 100}, {Lineage: 2, Start: 140}, {Lineage: 1, Start: 160},
	}}
	for _, c := range []struct {
		name  string
		state SlotState
		place Place
		pos   Position
		known bool
	}{
		{"in the middle", one, Place{epoch, 1, 120}, 120, true},
		{"at the origin", one, Place{epoch, 1, 100}, 100, true},
		{"at the head", one, Place{epoch, 1, 150}, 150, true},
		{"beyond the head", one, Place{epoch, 1, 151}, 150, true},
		{"far beyond the head", one, Place{epoch, 1, 1<<64 - 1}, 150, true},
		{"before the origin", one, Place{epoch, 1, 3}, 3, true},
		{"no place", one, Place{}, 100, false},
		{"another epoch", one, Place{epoch + 1, 1, 120}, 100, false},
		{"an unknown lineage", one, Place{epoch, 9, 120}, 100, false},
		{"no lineage", one, Place{epoch, 0, 120}, 100, false},
		{"the newest lineage", many, Place{epoch, 4, 175}, 175, true},
		{"the newest lineage beyond the head", many, Place{epoch, 4, 200}, 180, true},
		{"one before, below the next start", many, Place{epoch, 3, 155}, 155, true},
		{"one before, above the next start", many, Place{epoch, 3, 170}, 160, true},
		{"two before, lowered by the smaller of two starts", many, Place{epoch, 2, 150}, 130, true},
		{"two before, below both", many, Place{epoch, 2, 120}, 120, true},
		{"the oldest, lowered by the smallest of three", many, Place{epoch, 1, 180}, 130, true},
		{"a lineage that came again counts from its last note", again, Place{epoch, 1, 170}, 170, true},
		{"a slot without notes knows nothing", SlotState{Epoch: epoch, Head: 5, Origin: 2}, Place{epoch, 0, 4}, 2, false},
	} {
		at, known := c.state.Resolve(c.place)
		want := Place{Epoch: c.state.Epoch, Lineage: c.state.Lineage(), Pos: c.pos}
		if at != want || known != c.known {
			t.Errorf("%s: got %+v, %v, want %+v, %v", c.name, at, known, want, c.known)
		}
	}
}

func TestSlotState_ResolveOfItsOwnAnswerChangesNothing(t *testing.T) {
	s := SlotState{Epoch: 7, Head: 180, Origin: 100, Notes: []Note{{Lineage: 1, Start: 100}, {Lineage: 2, Start: 140}}}
	for l := range Lineage(4) {
		for pos := range Position(200) {
			once, _ := s.Resolve(Place{7, l, pos})
			twice, known := s.Resolve(once)
			if twice != once || !known {
				t.Fatalf("lineage %d, position %d: got %+v, then %+v, %v", l, pos, once, twice, known)
			}
			if once.Pos > s.Head || l == 1 && once.Pos > 140 {
				t.Fatalf("lineage %d, position %d: got %+v", l, pos, once)
			}
		}
	}
}

func TestSlotState_LineageIsTheLastNoted(t *testing.T) {
	s := SlotState{}
	if got := s.Lineage(); got != 0 {
		t.Errorf("got %d, want none", got)
	}
	s.Notes = []Note{{Lineage: 3}, {Lineage: 9}}
	if got := s.Lineage(); got != 9 {
		t.Errorf("got %d, want 9", got)
	}
}

func TestFirstPosition_IsAboveAllThatASlotBefore(t *testing.T) {
	if got, want := FirstPosition(1767225600999), Position(1767225600<<20); got != want {
		t.Errorf("got %d, want %d", got, want)
	}
	// A slot would have to take a million messages in each second of its life to reach its successor's origin.
	if FirstPosition(1767225601000)-FirstPosition(1767225600000) != 1<<20 {
		t.Error("a second is not 2^20 positions")
	}
	if year2200 := MilliTime(7258118400000); FirstPosition(year2200) >= 1<<53 {
		t.Error("positions stay below 2^53 for centuries")
	}
}

func TestSlotKind_Names(t *testing.T) {
	for k, want := range map[SlotKind]string{Own: "own", Common: "common", NoSlot: "none", 2: "none"} {
		if got := k.String(); got != want {
			t.Errorf("%d: got %q, want %q", k, got, want)
		}
	}
}

func TestPlace_IsZeroWithoutAnEpoch(t *testing.T) {
	if !(Place{}).IsZero() || !(Place{Lineage: 1, Pos: 2}).IsZero() || (Place{Epoch: 1}).IsZero() {
		t.Error("a place is one when it has an epoch")
	}
}
