package push

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// cursorFile is api/testdata/cursor.json without its builds, which are about frames.
type cursorFile struct {
	Owners []struct{ Product, User, Device, Owner, Hex string }
	Valid  []struct {
		Name, Cursor, Owner string
		Own, Common         goldenPlace
	}
	Invalid []struct{ Name, Cursor string }
}

type goldenPlace struct{ Epoch, Lineage, Position string }

func readCursors(t testing.TB) cursorFile {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "api", "testdata", "cursor.json"))
	if err != nil {
		t.Fatal(err)
	}
	var f cursorFile
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	if len(f.Owners) == 0 || len(f.Valid) == 0 || len(f.Invalid) == 0 {
		t.Fatal("cursor.json lacks a part")
	}
	return f
}

func number(t testing.TB, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (g goldenPlace) place(t testing.TB) Place {
	return Place{SlotEpoch(number(t, g.Epoch)), Lineage(number(t, g.Lineage)), Position(number(t, g.Position))}
}

func TestCursor_GoldenStringsBothWays(t *testing.T) {
	for _, g := range readCursors(t).Valid {
		owner, cursor := CursorOwner(number(t, g.Owner)), Cursor{g.Own.place(t), g.Common.place(t)}
		if got := string(AppendCursor(nil, owner, cursor)); got != g.Cursor {
			t.Errorf("%s: got %s, want %s", g.Name, got, g.Cursor)
		}
		o, c, err := ParseCursor(g.Cursor)
		if err != nil || o != owner || c != cursor {
			t.Errorf("%s: got %d, %+v, %v, want %d, %+v", g.Name, o, c, err, owner, cursor)
		}
	}
}

func TestCursor_WhatIsNoneIsRefusedAndNeverQuoted(t *testing.T) {
	for _, g := range readCursors(t).Invalid {
		o, c, err := ParseCursor(g.Cursor)
		if err == nil || o != 0 || c != (Cursor{}) {
			t.Errorf("%s: got %d, %+v, %v, want an error alone", g.Name, o, c, err)
		}
		if err != nil && len(g.Cursor) > 4 && strings.Contains(err.Error(), g.Cursor) {
			t.Errorf("%s: the cursor stands in the error %q", g.Name, err)
		}
	}
}

func TestCursor_OwnerIsBoundToProductUserAndDevice(t *testing.T) {
	seen := map[CursorOwner]string{}
	for _, g := range readCursors(t).Owners {
		got := OwnerOf(ProductID(g.Product), UserID(g.User), DeviceID(g.Device))
		if want := CursorOwner(number(t, g.Owner)); got != want || strconv.FormatUint(uint64(got), 16) != g.Hex {
			t.Errorf("%s/%s/%s: got %d, want %d", g.Product, g.User, g.Device, got, want)
		}
		who := g.Product + "/" + g.User + "/" + g.Device
		if other := seen[got]; other != "" {
			t.Errorf("%s and %s have one owner", who, other)
		}
		seen[got] = who
	}
}

func TestCursor_TheLongestStringFits(t *testing.T) {
	p := Place{math.MaxUint64, math.MaxUint64, math.MaxUint64}
	s := AppendCursor(nil, math.MaxUint64, Cursor{p, p})
	if len(s) > MaxCursorString {
		t.Errorf("a cursor of %d bytes is beyond the limit of %d", len(s), MaxCursorString)
	}
}

func FuzzParseCursor(f *testing.F) {
	file := readCursors(f)
	for _, g := range file.Valid {
		f.Add(g.Cursor)
	}
	for _, g := range file.Invalid {
		f.Add(g.Cursor)
	}
	f.Fuzz(func(t *testing.T, s string) {
		o, c, err := ParseCursor(s)
		if err != nil {
			if o != 0 || c != (Cursor{}) {
				t.Errorf("got %d, %+v beside %v", o, c, err)
			}
			return
		}
		if got := string(AppendCursor(nil, o, c)); got != s {
			t.Errorf("read from %q, written as %q: a cursor has one form", s, got)
		}
	})
}
