package simulation

import (
	"errors"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// disk is a file system in memory that forgets what was not flushed when the power goes, whose flushes of logs can be
// held up, and one of whose flushes can fail, after which the file keeps what it had flushed and nothing more.
type disk struct {
	vfs.FS
	mem *vfs.MemFS

	mu sync.Mutex
	// Guarded by mu.
	shut chan struct{} // nil: flushes pass; otherwise closed when they do again
	fail bool          // the next flush of a log fails
}

var errDisk = errors.New("simulation: the disk failed a flush")

func newDisk(mem *vfs.MemFS) *disk { return &disk{FS: mem, mem: mem} }

// stall holds up flushes, or lets them go.
func (d *disk) stall(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case on && d.shut == nil:
		d.shut = make(chan struct{})
	case !on && d.shut != nil:
		close(d.shut)
		d.shut = nil
	}
}

func (d *disk) failNext() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = true
}

// pass waits for the disk and reports whether this flush fails.
func (d *disk) pass() (failed bool) {
	d.mu.Lock()
	shut := d.shut
	d.mu.Unlock()
	if shut != nil {
		<-shut
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	failed, d.fail = d.fail, false
	return failed
}

func (d *disk) wrap(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil || !strings.HasSuffix(name, ".log") {
		return f, err
	}
	return &logFile{File: f, of: d}, nil
}

func (d *disk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.FS.Create(name, c)
	return d.wrap(name, f, err)
}

func (d *disk) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.FS.ReuseForWrite(old, name, c)
	return d.wrap(name, f, err)
}

// logFile is a log. Its flushes come one at a time.
type logFile struct {
	vfs.File
	of     *disk
	broken bool
}

func (f *logFile) flush(do func() error) error {
	if f.of.pass() {
		f.broken = true
		return errDisk
	}
	if f.broken {
		return nil // what Linux does after it told of a failure once: the pages count as clean
	}
	return do()
}

func (f *logFile) Sync() error     { return f.flush(f.File.Sync) }
func (f *logFile) SyncData() error { return f.flush(f.File.SyncData) }
