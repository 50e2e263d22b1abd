package pebble_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"carillon/server/clock/clocktest"
	"carillon/server/embedded"
	"carillon/server/idgenerator"
	"carillon/server/idgenerator/idgeneratortest"
	"carillon/server/idgenerator/pebble"
	"carillon/server/push"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// disk opens the database on a file system in memory that can lose what was not synced.
type disk struct {
	fs    *vfs.MemFS
	db    *embedded.DB
	clock *clocktest.Clock
}

func (d *disk) open(t *testing.T, fs *vfs.MemFS) idgenerator.Blocks {
	t.Helper()
	db, err := embedded.Open(embedded.Config{Dir: "data", FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	b, err := pebble.New(pebble.Config{DB: db, Clock: d.clock})
	if err != nil {
		t.Fatal(err)
	}
	if d.db != nil {
		_ = d.db.Close() // its file system is no longer looked at
	}
	d.fs, d.db = fs, db
	return b
}

func TestConformance(t *testing.T) {
	idgeneratortest.Run(t, func(t *testing.T) *idgeneratortest.Subject {
		d := &disk{clock: clocktest.New()}
		s := &idgeneratortest.Subject{Clock: d.clock, Blocks: d.open(t, vfs.NewCrashableMem())}
		s.Crash = func(t *testing.T) idgenerator.Blocks {
			return d.open(t, d.fs.CrashClone(vfs.CrashCloneCfg{}))
		}
		s.Mark = func(*testing.T) func(*testing.T) idgenerator.Blocks {
			then := d.fs.CrashClone(vfs.CrashCloneCfg{})
			return func(t *testing.T) idgenerator.Blocks { return d.open(t, then) }
		}
		return s
	})
}

func TestBlocks_DamagedStateIsAnError(t *testing.T) {
	db, err := embedded.Open(embedded.Config{Dir: "data", FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, v := range []string{"", "\x00", "\x80", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\x05\x05"} {
		b := db.NewBatch()
		b.Set([]byte("inext"), []byte(v))
		if err := db.Write(context.Background(), b); err != nil {
			t.Fatal(err)
		}
		if _, err := pebble.New(pebble.Config{DB: db}); err == nil {
			t.Errorf("%q was read", v)
		}
	}
}

func TestBlocks_ClosedDatabase(t *testing.T) {
	d := &disk{clock: clocktest.New()}
	b := d.open(t, vfs.NewCrashableMem())
	if err := d.db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Reserve(context.Background(), 1); push.KindOf(err) != push.KindClosed {
		t.Errorf("got %v, want KindClosed", err)
	}
}

// brokenFS fails the flush of logs once it is told to.
type brokenFS struct {
	vfs.FS
	broken atomic.Bool
}

func (f *brokenFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.Create(name, c)
	return &brokenFile{file, f}, err
}

type brokenFile struct {
	vfs.File
	fs *brokenFS
}

func (f *brokenFile) Sync() error {
	if f.fs.broken.Load() {
		return errors.New("broken disk")
	}
	return f.File.Sync()
}

func (f *brokenFile) SyncData() error { return f.Sync() }

func TestBlocks_NotFlushedIsNotReserved(t *testing.T) {
	fs := &brokenFS{FS: vfs.NewMem()}
	db, err := embedded.Open(embedded.Config{Dir: "data", FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	b, err := pebble.New(pebble.Config{DB: db})
	if err != nil {
		t.Fatal(err)
	}
	fs.broken.Store(true)
	for range 2 {
		if first, err := b.Reserve(context.Background(), 10); push.KindOf(err) != push.KindUnavailable {
			t.Errorf("got %d, %v, want KindUnavailable", first, err)
		}
	}
}
