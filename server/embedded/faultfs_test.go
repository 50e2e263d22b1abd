package embedded

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// fileOp is one kind of call that a faultFS can fail.
type fileOp string

const (
	opWrite  fileOp = "write"
	opSync   fileOp = "sync"
	opCreate fileOp = "create"
	opRename fileOp = "rename"
)

// faultFS fails one call, the n-th of a kind on files with some suffix, and lets every other through: the failure must
// not be forgotten because later calls succeed.
type faultFS struct {
	vfs.FS
	mu      sync.Mutex
	op      fileOp
	suffix  string
	after   int // calls still let through
	armed   bool
	forGood bool // every later call fails too, as on a full disk
	err     error
	fired   bool
}

var errInjected = errors.New("injected failure")

func (f *faultFS) arm(op fileOp, suffix string, after int, forGood bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.op, f.suffix, f.after, f.forGood, f.err = op, suffix, after, forGood, err
	f.armed, f.fired = true, false
}

func (f *faultFS) hasFired() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fired
}

func (f *faultFS) check(op fileOp, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.armed || op != f.op || !strings.HasSuffix(name, f.suffix) && !strings.Contains(f.PathBase(name), f.suffix) {
		return nil
	}
	if f.fired && !f.forGood {
		return nil
	}
	if f.after > 0 {
		f.after--
		return nil
	}
	f.fired = true
	return f.err
}

func (f *faultFS) wrap(name string, file vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &faultFile{File: file, fs: f, name: name}, nil
}

func (f *faultFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.check(opCreate, name); err != nil {
		return nil, err
	}
	file, err := f.FS.Create(name, c)
	return f.wrap(name, file, err)
}

func (f *faultFS) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.check(opCreate, name); err != nil {
		return nil, err
	}
	file, err := f.FS.ReuseForWrite(old, name, c)
	return f.wrap(name, file, err)
}

func (f *faultFS) OpenDir(name string) (vfs.File, error) {
	file, err := f.FS.OpenDir(name)
	return f.wrap(name, file, err)
}

func (f *faultFS) Rename(old, name string) error {
	if err := f.check(opRename, name); err != nil {
		return err
	}
	return f.FS.Rename(old, name)
}

func (f *faultFS) Unwrap() vfs.FS { return f.FS }

type faultFile struct {
	vfs.File
	fs   *faultFS
	name string
}

func (f *faultFile) Write(p []byte) (int, error) {
	if err := f.fs.check(opWrite, f.name); err != nil {
		return 0, err
	}
	return f.File.Write(p)
}

func (f *faultFile) Sync() error {
	if err := f.fs.check(opSync, f.name); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *faultFile) SyncData() error {
	if err := f.fs.check(opSync, f.name); err != nil {
		return err
	}
	return f.File.SyncData()
}

// diskFull is what the kernel says.
var diskFull error = syscall.ENOSPC

// heldFS makes the sync of logs wait at a gate, while hold is set.
type heldFS struct {
	vfs.FS
	hold atomic.Bool
	gate chan struct{}
}

func (h *heldFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := h.FS.Create(name, c)
	if err != nil || !strings.HasSuffix(name, ".log") {
		return f, err
	}
	return &heldFile{f, h}, nil
}

type heldFile struct {
	vfs.File
	h *heldFS
}

func (f *heldFile) Sync() error {
	if f.h.hold.Load() {
		<-f.h.gate
	}
	return f.File.Sync()
}

func (f *heldFile) SyncData() error {
	if f.h.hold.Load() {
		<-f.h.gate
	}
	return f.File.SyncData()
}

// slowTables makes the writing of tables wait at a gate.
type slowTables struct {
	vfs.FS
	gate    chan struct{}
	waiting atomic.Int64
}

func (s *slowTables) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if strings.HasSuffix(name, ".sst") {
		s.waiting.Add(1)
		<-s.gate
	}
	return s.FS.Create(name, c)
}
