package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"carillon/server/push"
)

// State is what a client keeps between its lives: how far it came, and the ids of the last messages, oldest first. The
// zero State is that of a new device.
type State struct {
	Cursor string
	IDs    []push.MsgID
}

// Storage keeps a client's state. A client calls it from one goroutine. An error ends [Client.Run]: a client that cannot
// remember would lie to its server or to its application.
type Storage interface {
	// Load returns the last state saved, the zero State if there is none.
	Load(ctx context.Context) (State, error)
	// Save replaces the state, whole or not at all, so that it survives a crash of the process. The state is the
	// storage's to keep.
	Save(ctx context.Context, s State) error
	// Flush makes the last state saved survive a loss of power too. It is called before each acknowledgement.
	Flush(ctx context.Context) error
}

// Memory is a [Storage] that survives as long as it is referenced: several clients, one after the other, can be given
// the same one. Its zero value is empty and ready. It is safe for concurrent use.
type Memory struct {
	mu    sync.Mutex
	state State
}

// Load returns a copy of the state.
func (m *Memory) Load(context.Context) (State, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return State{m.state.Cursor, slices.Clone(m.state.IDs)}, nil
}

// Save keeps the state.
func (m *Memory) Save(_ context.Context, s State) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = s
	return nil
}

// Flush does nothing.
func (m *Memory) Flush(context.Context) error { return nil }

// File is a [Storage] in one file, replaced by rename. Its directory must exist. One client uses it at a time.
type File struct{ Path string }

// stateFile is the form of the file. The version is for later ones.
type stateFile struct {
	Version int          `json:"version"`
	Cursor  string       `json:"cursor,omitempty"`
	IDs     []push.MsgID `json:"ids"`
}

const stateVersion = 1

// Load reads the file. One that is not there is the state of a new device; one that is damaged, or was written by a
// later version, is an error, since beginning anew would repeat or pass over messages.
func (f *File) Load(context.Context) (State, error) {
	b, err := os.ReadFile(f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, nil
	}
	if err != nil {
		return State{}, fmt.Errorf("client: load state: %w", err)
	}
	var s stateFile
	if err := json.Unmarshal(b, &s); err != nil {
		return State{}, fmt.Errorf("client: state file %s is damaged; without it the server's own cursor applies: %w",
			f.Path, err)
	}
	if s.Version != stateVersion {
		return State{}, fmt.Errorf("client: state file %s has version %d, not %d", f.Path, s.Version, stateVersion)
	}
	return State{s.Cursor, s.IDs}, nil
}

// Save writes a new file beside the old one and renames it over that.
func (f *File) Save(_ context.Context, s State) error {
	b, err := json.Marshal(stateFile{stateVersion, s.Cursor, s.IDs})
	if err != nil {
		return fmt.Errorf("client: save state: %w", err)
	}
	next := f.Path + ".next"
	if err := os.WriteFile(next, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("client: save state: %w", err)
	}
	if err := os.Rename(next, f.Path); err != nil {
		return fmt.Errorf("client: save state: %w", err)
	}
	return nil
}

// Flush flushes the file and, where the system can, the name that it was given.
func (f *File) Flush(context.Context) error {
	if err := flushFile(f.Path); err != nil {
		return fmt.Errorf("client: flush state: %w", err)
	}
	// Windows flushes no directories, some file systems refuse it: then the rename is as durable as they make it.
	_ = flushFile(filepath.Dir(f.Path))
	return nil
}

func flushFile(path string) error {
	// Opened for writing, which Windows needs to flush; a directory can only be opened for reading.
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		if file, err = os.Open(path); err != nil {
			return err
		}
	}
	err = file.Sync()
	return errors.Join(err, file.Close())
}
