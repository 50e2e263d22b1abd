package client

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"carillon/server/push"
)

func TestStorage_Conformance(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	memory := &Memory{}
	cases := []struct {
		name   string
		reopen func() Storage
	}{
		{"memory", func() Storage { return memory }},
		{"file", func() Storage { return &File{Path: path} }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			ctx := t.Context()
			got, err := c.reopen().Load(ctx)
			if err != nil || got.Cursor != "" || len(got.IDs) != 0 {
				t.Fatalf("an empty storage: got %+v, %v", got, err)
			}
			for _, want := range []State{
				{Cursor: cursorAt(1, 2, 3), IDs: []push.MsgID{1<<62 + 1, 5}},
				{Cursor: cursorAt(1, 4, 3)},
			} {
				s := c.reopen()
				if err := s.Save(ctx, want); err != nil {
					t.Fatal(err)
				}
				if err := s.Flush(ctx); err != nil {
					t.Fatal(err)
				}
				got, err := c.reopen().Load(ctx)
				if err != nil || got.Cursor != want.Cursor || !slices.Equal(got.IDs, want.IDs) {
					t.Errorf("got %+v, %v, want %+v", got, err, want)
				}
			}
		})
	}
}

func TestFile_WriteCutShortLeavesTheOldState(t *testing.T) {
	f := &File{Path: filepath.Join(t.TempDir(), "state.json")}
	want := State{Cursor: cursorAt(1, 2, 3)}
	if err := f.Save(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	// What a crash in the middle of the next save leaves.
	if err := os.WriteFile(f.Path+".next", []byte(`{"version":1,"cur`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Load(t.Context()); err != nil || got.Cursor != want.Cursor {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	want.Cursor = cursorAt(1, 3, 3)
	if err := f.Save(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Load(t.Context()); err != nil || got.Cursor != want.Cursor {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestFile_RefusesWhatItCannotRead(t *testing.T) {
	for _, content := range []string{"", "{", `{"version":2,"ids":[]}`, `[]`} {
		f := &File{Path: filepath.Join(t.TempDir(), "state.json")}
		if err := os.WriteFile(f.Path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if st, err := f.Load(t.Context()); err == nil {
			t.Errorf("%q: got %+v, want an error", content, st)
		}
	}
}

func TestFile_SaysWhenItCannotSave(t *testing.T) {
	f := &File{Path: filepath.Join(t.TempDir(), "nowhere", "state.json")}
	if err := f.Save(t.Context(), State{}); err == nil {
		t.Error("saved into a directory that does not exist")
	}
	if err := f.Flush(t.Context()); err == nil {
		t.Error("flushed a file that does not exist")
	}
}
