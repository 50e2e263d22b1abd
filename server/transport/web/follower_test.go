package web

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"carillon/server/push"
	"carillon/server/wire"
)

// builds returns the part of cursor.json that says how a cursor follows from frames.
func builds(t testing.TB) (all []struct {
	Name, Start string
	Steps       []struct{ Frame, Cursor string }
}) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "..", "api", "testdata", "cursor.json"))
	if err != nil {
		t.Fatal(err)
	}
	file := map[string]json.RawMessage{}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(file["builds"], &all); err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatal("no builds")
	}
	return all
}

func TestFollower_KnowsTheCursorThatClientsBuild(t *testing.T) {
	for _, b := range builds(t) {
		var f Follower
		if !f.Pass(&wire.Out{Frame: &wire.Welcome{Cursor: b.Start}}) || !f.Is(b.Start) {
			t.Fatalf("%s: the welcome is not taken", b.Name)
		}
		before := b.Start
		for i, s := range b.Steps {
			frame, err := wire.DecodeServer(wire.JSON, []byte(s.Frame))
			if err != nil {
				t.Fatalf("%s, step %d: %v", b.Name, i+1, err)
			}
			moved := f.Pass(outOf(frame))
			if got := string(f.Append(nil)); got != s.Cursor || !f.Is(s.Cursor) {
				t.Fatalf("%s, step %d: got %s, want %s", b.Name, i+1, got, s.Cursor)
			}
			if want := before != s.Cursor || frame.Type() == wire.TypeCursor; moved != want {
				t.Errorf("%s, step %d: moved is %v, want %v", b.Name, i+1, moved, want)
			}
			before = s.Cursor
		}
	}
}

// outOf returns a frame as a session sends it.
func outOf(f wire.Frame) *wire.Out {
	if m, ok := f.(*wire.Message); ok {
		return &wire.Out{Shared: wire.NewShared(&m.Message), Slot: m.Slot, Pos: m.Pos}
	}
	return &wire.Out{Frame: f}
}

func TestFollower_KnowsNothingBeforeItIsTold(t *testing.T) {
	var f Follower
	m := &push.Message{ID: 1, Persistent: true}
	for _, o := range []*wire.Out{
		{Shared: wire.NewShared(m), Slot: push.Own, Pos: 7},
		{Frame: &wire.Recall{Slot: push.Common, Pos: 7}},
		{Frame: &wire.Gap{To: 9}},
		{Frame: &wire.Cursor{Cursor: "no cursor"}},
		{Frame: &wire.Kick{}},
	} {
		if f.Pass(o) {
			t.Errorf("%+v moved a cursor that is not known", o)
		}
	}
	if got := f.Append(nil); got != nil {
		t.Errorf("got %q, want nothing", got)
	}
	if f.Is("") || f.Is(cursor) {
		t.Error("a cursor is known")
	}
}

// What cannot be read leaves no cursor: an old one would claim less, or more, than the client was sent.
func TestFollower_AnUnreadableCursorLeavesNone(t *testing.T) {
	var f Follower
	f.Pass(&wire.Out{Frame: &wire.Welcome{Cursor: cursor}})
	if f.Pass(&wire.Out{Frame: &wire.Cursor{Cursor: "1.x"}}) || len(f.Append(nil)) > 0 {
		t.Errorf("got %q, want nothing", f.Append(nil))
	}
}

func TestFollower_IsSmallAndAllocatesNothing(t *testing.T) {
	if n := unsafe.Sizeof(Follower{}); n > 64 {
		t.Errorf("a follower takes %d bytes, want at most 64", n)
	}
	var f Follower
	outs := []*wire.Out{
		{Frame: &wire.Welcome{Cursor: cursor}},
		{Shared: wire.NewShared(&push.Message{ID: 1, Persistent: true}), Slot: push.Own, Pos: 1 << 52},
		{Frame: &wire.Ping{}},
	}
	buf := make([]byte, 0, push.MaxCursorString)
	if n := testing.AllocsPerRun(100, func() {
		for _, o := range outs {
			f.Pass(o)
			buf = f.Append(buf[:0])
		}
	}); n != 0 {
		t.Errorf("got %v allocations, want none", n)
	}
}

// FuzzFollower lets a session send frames made of the input, and compares with a client that does what api/README.md says.
func FuzzFollower(f *testing.F) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		b := make([]byte, 60)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		f.Add(cursor, b)
	}
	f.Add("", []byte{0, 1, 2, 3})
	f.Add("1.1.1.1.1.0.0.0", []byte{1, 1, 5, 2, 1, 6, 3, 0, 7})
	f.Fuzz(func(t *testing.T, start string, script []byte) {
		var at Follower
		var client struct {
			owner push.CursorOwner
			c     push.Cursor
			known bool
		}
		replace := func(s string) bool {
			owner, c, err := push.ParseCursor(s)
			client.owner, client.c, client.known = owner, c, err == nil
			if err != nil {
				client.owner, client.c = 0, push.Cursor{}
			}
			return err == nil
		}
		move := func(slot push.SlotKind, pos push.Position) bool {
			if slot > push.Common || client.c[slot].Epoch == 0 || client.c[slot].Pos >= pos {
				return false
			}
			client.c[slot].Pos = pos
			return true
		}
		step := func(o *wire.Out, want bool) {
			t.Helper()
			if got := at.Pass(o); got != want {
				t.Fatalf("%+v: moved is %v, want %v", o, got, want)
			}
			know := ""
			if client.known {
				know = string(push.AppendCursor(nil, client.owner, client.c))
			}
			if got := string(at.Append(nil)); got != know {
				t.Fatalf("%+v: got %q, want %q", o, got, know)
			}
		}
		step(&wire.Out{Frame: &wire.Welcome{Cursor: start}}, replace(start))
		for ; len(script) >= 3; script = script[3:] {
			slot, pos := push.SlotKind(script[1]%3), push.Position(script[2])
			if slot == 2 {
				slot = push.NoSlot
			} else if client.known && script[1] >= 128 {
				pos += client.c[slot].Pos - min(client.c[slot].Pos, 128) // near to where it stands
			}
			switch script[0] % 6 {
			case 0, 1:
				persistent := script[0]%6 == 0
				m := &push.Message{ID: 1, Persistent: persistent}
				want := persistent && move(slot, pos)
				step(&wire.Out{Shared: wire.NewShared(m), Slot: slot, Pos: pos}, want)
			case 2:
				step(&wire.Out{Frame: &wire.Recall{Slot: slot, Pos: pos}}, move(slot, pos))
			case 3:
				reason := wire.GapReason(script[0] / 6 % 3)
				step(&wire.Out{Frame: &wire.Gap{Slot: slot, To: pos, Reason: reason}}, reason != wire.GapReset && move(slot, pos))
			case 4:
				c := push.Cursor{{Epoch: push.SlotEpoch(script[1] % 2), Pos: pos}, {Epoch: push.SlotEpoch(script[1] / 2 % 2), Pos: pos}}
				s := string(push.AppendCursor(nil, client.owner, c))
				step(&wire.Out{Frame: &wire.Cursor{Cursor: s}}, replace(s))
			case 5:
				step(&wire.Out{Frame: &wire.Ping{}}, false)
			}
		}
	})
}
