package wire

import (
	"encoding/json"
	"testing"

	"carillon/server/push"
)

// buildFile is the part of cursor.json that says how a client builds its cursor from frames.
type buildFile struct {
	Owners, Valid, Invalid json.RawMessage
	Builds                 []struct {
		Name, Start string
		Steps       []struct{ Frame, Cursor string }
	}
}

// build is what api/README.md asks of a client, in its words and nothing else.
func build(t *testing.T, cursor string, f Frame) string {
	t.Helper()
	owner, c, err := push.ParseCursor(cursor)
	if err != nil {
		t.Fatal(err)
	}
	move := func(slot push.SlotKind, pos push.Position) {
		if slot != push.NoSlot && c[slot].Epoch != 0 {
			c[slot].Pos = max(c[slot].Pos, pos)
		}
	}
	switch f := f.(type) {
	case *Message:
		move(f.Slot, f.Pos)
	case *Recall:
		move(f.Slot, f.Pos)
	case *Gap:
		if f.Reason != GapReset {
			move(f.Slot, f.To)
		}
	case *Welcome:
		return f.Cursor
	case *Cursor:
		return f.Cursor
	}
	return string(push.AppendCursor(nil, owner, c))
}

func TestGolden_ClientsBuildTheirCursorFromFrames(t *testing.T) {
	var file buildFile
	readGolden(t, "cursor.json", &file)
	if len(file.Builds) == 0 {
		t.Fatal("no builds")
	}
	for _, b := range file.Builds {
		at := b.Start
		for i, s := range b.Steps {
			f, err := DecodeServer(JSON, []byte(s.Frame))
			if err != nil {
				t.Fatalf("%s, step %d: %v", b.Name, i+1, err)
			}
			if at = build(t, at, f); at != s.Cursor {
				t.Fatalf("%s, step %d: got %s, want %s", b.Name, i+1, at, s.Cursor)
			}
		}
	}
}
