package client

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"carillon/server/push"
)

// TestProgress_KnowsExactlyTheLastIDs holds the ring against a list, over random ids with repeats and over restarts.
func TestProgress_KnowsExactlyTheLastIDs(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var p progress
	p.restore(State{})
	var model []push.MsgID
	for step := range 4000 {
		id := push.MsgID(1 + rng.IntN(1500))
		if got, want := p.kept.has(id), slices.Contains(model, id); got != want {
			t.Fatalf("step %d: repeat is %v, want %v", step, got, want)
		}
		if !slices.Contains(model, id) {
			model = append(model, id)
		}
		p.kept.note(id)
		if len(model) > RecentIDs {
			model = model[1:]
		}
		if rng.IntN(100) == 0 {
			st := p.state()
			if !slices.Equal(st.IDs, model) {
				t.Fatalf("step %d: the state's ids are not the last ones in order", step)
			}
			p.restore(st)
		}
	}
}

func TestProgress_StateIsACopy(t *testing.T) {
	var p progress
	p.restore(State{IDs: []push.MsgID{1, 2}})
	st := p.state()
	p.kept.note(3)
	if !slices.Equal(st.IDs, []push.MsgID{1, 2}) {
		t.Errorf("the state changed to %v", st.IDs)
	}
}

func TestProgress_ASlotWithoutAPlaceStaysWithout(t *testing.T) {
	only := string(push.AppendCursor(nil, owner, push.Cursor{push.Own: {Epoch: 7, Lineage: 1, Pos: 5}}))
	var p progress
	p.restore(State{Cursor: only})
	p.pass(push.Common, 99)
	p.pass(push.NoSlot, 99)
	if got := p.string(); got != only {
		t.Errorf("cursor %q, want %q", got, only)
	}
}

func TestProgress_OwesAnAcknowledgement(t *testing.T) {
	at := func(pos push.Position) string { return cursorAt(1, pos, 200) }
	cases := []struct {
		name            string
		stored, welcome string
		pass            push.Position
		want            bool
	}{
		{"a new device, nothing handled", "", at(100), 0, false},
		{"a new device, something handled", "", at(100), 101, true},
		{"the server took the stored cursor", at(100), at(100), 0, true},
		{"the server named its own cursor", at(100), at(90), 0, false},
		{"the stored cursor was unreadable", "junk", at(90), 0, false},
	}
	for _, c := range cases {
		var p progress
		p.restore(State{Cursor: c.stored})
		if err := p.welcome(c.welcome); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if c.pass > 0 {
			p.pass(push.Own, c.pass)
		}
		if got := p.owesAck(); got != c.want {
			t.Errorf("%s: owes %v, want %v", c.name, got, c.want)
		}
		p.noteAck()
		if p.owesAck() {
			t.Errorf("%s: owes after the acknowledgement", c.name)
		}
	}
}

func TestBackoff_DelayIsBelowACeilingThatDoubles(t *testing.T) {
	b := Backoff{}.withDefaults()
	cases := []struct {
		failed int
		random float64
		want   time.Duration
	}{
		{1, 0, 0},
		{1, 0.5, 250 * time.Millisecond},
		{2, 0.5, 500 * time.Millisecond},
		{6, 0.5, 8 * time.Second},
		{7, 0.5, 15 * time.Second},
		{1000000, 0.5, 15 * time.Second},
	}
	for _, c := range cases {
		if got := b.delay(c.failed, c.random); got != c.want {
			t.Errorf("after %d failures, random %v: %v, want %v", c.failed, c.random, got, c.want)
		}
	}
}
