package embedded

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"carillon/server/planted"
	"carillon/server/push"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// fault is the first failure to write or sync, for the life of the database.
type fault struct {
	err atomic.Pointer[push.Error]
	ch  chan struct{} // closed by the first set

	once sync.Once
}

func newFault() *fault { return &fault{ch: make(chan struct{})} }

// set notes the failure, if it is the first. It returns the first one.
func (f *fault) set(op string, err error) {
	f.once.Do(func() {
		f.err.Store(&push.Error{
			Kind:   push.KindUnavailable,
			Code:   "storage_failed",
			Detail: "the disk failed; nothing is stored until the node was restarted",
			Err:    fmt.Errorf("embedded: %s: %w", op, err),
		})
		close(f.ch)
	})
}

// get returns nil, or the fault; the nil is untyped.
func (f *fault) get() error {
	if e := f.err.Load(); e != nil {
		return e
	}
	return nil
}

// failStop is the file system below Pebble. It makes the first failed write, sync or change of a directory the last:
// after a failed fsync the kernel may have dropped the dirty pages and report success the next time, so nothing that is
// tried again proves anything. From the fault on
//
//   - nothing on the disk is changed, which leaves it as a power cut at that moment would have;
//   - log files take writes and syncs into nothing and report success. Pebble panics, with its locks held, when a log
//     file fails, and an unlock in its way out would end the process. It may believe what it likes: the fault is set
//     before it hears anything, and this package acknowledges nothing once it is;
//   - everything else fails. Making a new table waits until Close instead, as Pebble repeats a failed flush at once,
//     for ever.
//
// Only files of the database count: a full disk under a backup does not stop it.
type failStop struct {
	vfs.FS
	dir     string // of the database, cleaned
	fault   *fault
	syncs   atomic.Int64  // calls of Sync and its kin
	serving atomic.Bool   // set when the database is open: from then on new tables wait instead of failing
	closing chan struct{} // closed by release
	once    sync.Once
}

var errFrozen = errors.New("the file system is frozen after a failure")

func newFailStop(fs vfs.FS, dir string, f *fault) *failStop {
	return &failStop{FS: fs, dir: filepath.Clean(dir), fault: f, closing: make(chan struct{})}
}

// release lets those that wait in Create go on to their error; called when the database closes.
func (s *failStop) release() { s.once.Do(func() { close(s.closing) }) }

// ours reports whether a file is one of the database's.
func (s *failStop) ours(name string) bool {
	name = filepath.Clean(name)
	return name == s.dir || strings.HasPrefix(name, s.dir+string(filepath.Separator))
}

func isLog(name string) bool { return strings.HasSuffix(name, ".log") }

// change runs one change of the directory, unless frozen, and makes its failure the fault.
func (s *failStop) change(name, op string, do func() error) error {
	if !s.ours(name) {
		return do()
	}
	if s.fault.get() != nil {
		return errFrozen
	}
	if err := do(); err != nil {
		s.fault.set(op, err)
		return err
	}
	return nil
}

// make opens a file to be written.
func (s *failStop) make(name, op string, do func() (vfs.File, error)) (vfs.File, error) {
	if !s.ours(name) {
		return do()
	}
	var f vfs.File
	err := s.change(name, op, func() (err error) {
		f, err = do()
		return err
	})
	switch {
	case err == nil:
		return &failStopFile{File: f, s: s, log: isLog(name)}, nil
	case isLog(name) && s.serving.Load():
		return nowhere{}, nil
	case s.serving.Load():
		<-s.closing
	}
	return nil, err
}

func (s *failStop) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return s.make(name, "create", func() (vfs.File, error) { return s.FS.Create(name, c) })
}

func (s *failStop) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return s.make(name, "reuse", func() (vfs.File, error) { return s.FS.ReuseForWrite(old, name, c) })
}

func (s *failStop) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return s.make(name, "open", func() (vfs.File, error) { return s.FS.OpenReadWrite(name, c, o...) })
}

func (s *failStop) OpenDir(name string) (vfs.File, error) {
	f, err := s.FS.OpenDir(name)
	if err != nil || !s.ours(name) {
		return f, err
	}
	// The only use of the data directory while the database is open that Pebble cannot be told the truth about is the
	// sync after a new log was made; the others stand behind the failure of the file they are for.
	return &failStopFile{File: f, s: s, log: true}, nil
}

func (s *failStop) Link(old, name string) error {
	return s.change(name, "link", func() error { return s.FS.Link(old, name) })
}

func (s *failStop) Rename(old, name string) error {
	return s.change(name, "rename", func() error { return s.FS.Rename(old, name) })
}

func (s *failStop) MkdirAll(dir string, perm os.FileMode) error {
	return s.change(dir, "make directory", func() error { return s.FS.MkdirAll(dir, perm) })
}

// Remove fails without fault: a file too many harms nothing, and one that is gone already is normal.
func (s *failStop) Remove(name string) error {
	if s.ours(name) && s.fault.get() != nil {
		return errFrozen
	}
	return s.FS.Remove(name)
}

func (s *failStop) RemoveAll(name string) error {
	if s.ours(name) && s.fault.get() != nil {
		return errFrozen
	}
	return s.FS.RemoveAll(name)
}

func (s *failStop) Unwrap() vfs.FS { return s.FS }

// failStopFile is one file of the database that may be written. A log hides the fault from Pebble.
type failStopFile struct {
	vfs.File
	s   *failStop
	log bool
}

func (f *failStopFile) do(op string, do func() error) error {
	err := f.s.fault.get()
	if err == nil {
		if err = do(); err == nil {
			return nil
		}
		if planted.Is(planted.FlushErrorIgnored) && op == "sync" {
			return nil
		}
		f.s.fault.set(op, err)
	}
	if f.log && f.s.serving.Load() {
		return nil
	}
	return err
}

func (f *failStopFile) Write(p []byte) (int, error) {
	n := len(p)
	err := f.do("write", func() error {
		k, err := f.File.Write(p)
		if err == nil && k < n {
			err = io.ErrShortWrite
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

func (f *failStopFile) WriteAt(p []byte, off int64) (int, error) {
	err := f.do("write", func() error {
		_, err := f.File.WriteAt(p, off)
		return err
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (f *failStopFile) Sync() error {
	f.s.syncs.Add(1)
	return f.do("sync", f.File.Sync)
}

func (f *failStopFile) SyncData() error {
	f.s.syncs.Add(1)
	return f.do("sync", f.File.SyncData)
}

func (f *failStopFile) SyncTo(n int64) (full bool, err error) {
	err = f.do("sync", func() (err error) {
		full, err = f.File.SyncTo(n)
		return err
	})
	return full && err == nil && f.s.fault.get() == nil, err
}

// Stat of a log that just failed answers all the same, as [nowhere.Stat].
func (f *failStopFile) Stat() (vfs.FileInfo, error) {
	i, err := f.File.Stat()
	if err != nil && f.log && f.s.serving.Load() {
		f.s.fault.set("stat", err)
		return nowhereInfo{}, nil
	}
	return i, err
}

// Close of a written file may be where a network file system first tells of an error.
func (f *failStopFile) Close() error {
	err := f.File.Close()
	if err == nil {
		return nil
	}
	f.s.fault.set("close", err)
	if f.log && f.s.serving.Load() {
		return nil
	}
	return err
}

// nowhere is the log file that could not be made. It takes everything and holds nothing.
type nowhere struct{}

func (nowhere) Write(p []byte) (int, error)            { return len(p), nil }
func (nowhere) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (nowhere) Sync() error                            { return nil }
func (nowhere) SyncData() error                        { return nil }
func (nowhere) SyncTo(int64) (bool, error)             { return false, nil }
func (nowhere) Preallocate(int64, int64) error         { return nil }
func (nowhere) Prefetch(int64, int64) error            { return nil }
func (nowhere) Fd() uintptr                            { return vfs.InvalidFd }
func (nowhere) Close() error                           { return nil }
func (nowhere) Read([]byte) (int, error)               { return 0, errFrozen }
func (nowhere) ReadAt([]byte, int64) (int, error)      { return 0, errFrozen }

// Stat answers, as Pebble asks a log it reused for its size and would not survive an error.
func (nowhere) Stat() (vfs.FileInfo, error) { return nowhereInfo{}, nil }

type nowhereInfo struct{}

func (nowhereInfo) Name() string           { return "" }
func (nowhereInfo) Size() int64            { return 0 }
func (nowhereInfo) Mode() os.FileMode      { return 0 }
func (nowhereInfo) ModTime() time.Time     { return time.Time{} }
func (nowhereInfo) IsDir() bool            { return false }
func (nowhereInfo) Sys() any               { return nil }
func (nowhereInfo) DeviceID() vfs.DeviceID { return vfs.DeviceID{} }
