package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"carillon/server/push"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// run lets several goroutines write until one is refused, each with keys of its own, and returns the keys that were
// acknowledged.
func run(db *DB, writers, most, size int) (acked []string, errs []error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range most {
				key := fmt.Sprintf("x%02d-%06d", w, i)
				b := db.NewBatch()
				b.Set([]byte(key), bytes.Repeat([]byte{byte(i)}, size))
				err := db.Write(context.Background(), b)
				mu.Lock()
				if err == nil {
					acked = append(acked, key)
				} else {
					errs = append(errs, err)
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return acked, errs
}

// wantFailed checks that the database refuses everything from now on, with the documented error.
func wantFailed(t *testing.T, db *DB) {
	t.Helper()
	select {
	case <-db.Failed():
	default:
		t.Fatal("the fault was not noticed")
	}
	for i := range 3 {
		_, cerr := db.Commit(db.NewBatch())
		for _, err := range []error{cerr, db.CommitNoSync(db.NewBatch()), db.Health(), db.Checkpoint("copy")} {
			var e *push.Error
			if !errors.As(err, &e) || e.Kind != push.KindUnavailable || e.Code != "storage_failed" {
				t.Fatalf("round %d: got %v, want storage_failed", i, err)
			}
		}
	}
}

func TestDB_NothingIsAcknowledgedAfterAFailure(t *testing.T) {
	cases := []struct {
		name    string
		op      fileOp
		suffix  string
		after   int
		forGood bool
		err     error
	}{
		{"first log sync", opSync, ".log", 0, false, errInjected},
		{"later log sync", opSync, ".log", 9, false, errInjected},
		{"first log write", opWrite, ".log", 0, false, errInjected},
		{"later log write", opWrite, ".log", 7, false, errInjected},
		{"disk full in the log", opWrite, ".log", 11, true, diskFull},
		{"disk full everywhere", opWrite, "", 200, true, diskFull},
		{"second log cannot be made", opCreate, ".log", 0, false, errInjected},
		{"third log cannot be made", opCreate, ".log", 1, false, errInjected},
		{"directory sync", opSync, "data", 0, false, errInjected},
		{"table cannot be made", opCreate, ".sst", 0, false, errInjected},
		{"table write", opWrite, ".sst", 0, false, errInjected},
		{"table sync", opSync, ".sst", 0, false, errInjected},
		{"second table sync", opSync, ".sst", 1, false, errInjected},
		{"manifest write", opWrite, "MANIFEST", 0, false, errInjected},
		{"manifest sync", opSync, "MANIFEST", 0, false, errInjected},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			mem := vfs.NewCrashableMem()
			ffs := &faultFS{FS: mem}
			db := open(t, ffs)
			write(t, db, "xbefore", "1")
			ffs.arm(c.op, c.suffix, c.after, c.forGood, c.err)

			acked, errs := run(db, 4, 50, 20_000)
			for !ffs.hasFired() && len(errs) == 0 { // failures of tables need tables
				if _, err := db.pdb.AsyncFlush(); err != nil {
					t.Fatal(err)
				}
				more, refused := run(db, 1, 1, 20_000)
				acked, errs = append(acked, more...), append(errs, refused...)
			}
			<-db.Failed()
			wantFailed(t, db)
			for _, err := range errs {
				if push.KindOf(err) != push.KindUnavailable {
					t.Errorf("a writer got %v", err)
				}
			}
			if v, _ := read(t, db, "xbefore"); v != "1" {
				t.Errorf("reading after the failure: got %q, want 1", v)
			}
			if err := db.Close(); !errors.Is(err, c.err) {
				t.Errorf("close: got %v, want the cause", err)
			}
			// What was acknowledged is there after the restart, with everything lost that was not synced.
			after := open(t, mem.CrashClone(vfs.CrashCloneCfg{}))
			for _, key := range append(acked, "xbefore") {
				if _, found := read(t, after, key); !found {
					t.Fatalf("%s was acknowledged and is lost", key)
				}
			}
		})
	}
}

func TestDB_FrozenDiskIsNotChangedAnyMore(t *testing.T) {
	mem := vfs.NewMem()
	ffs := &faultFS{FS: mem}
	db := open(t, ffs)
	write(t, db, "xa", "1")
	ffs.arm(opSync, ".log", 0, false, errInjected)
	run(db, 2, 100, 100)
	wantFailed(t, db)
	before := mem.String()
	b := &Batch{}
	b.Set([]byte("xb"), bytes.Repeat([]byte("v"), 1<<20))
	_, _ = db.Commit(b)
	if _, err := db.pdb.AsyncFlush(); err != nil { // what Pebble does by itself must not reach the disk either
		t.Log(err)
	}
	_ = db.Close()
	if got := mem.String(); got != before {
		t.Errorf("the files changed after the failure:\n%s\nwere\n%s", got, before)
	}
}

func TestOpen_FailureIsAnErrorNotAnExit(t *testing.T) {
	for _, op := range []fileOp{opWrite, opSync, opCreate, opRename} {
		for n := range 12 {
			ffs := &faultFS{FS: vfs.NewMem()}
			ffs.arm(op, "", n, true, errInjected)
			db, err := Open(Config{Dir: "data", FS: ffs})
			switch {
			case err == nil && ffs.hasFired():
				t.Errorf("%s %d failed, and the database opened", op, n)
			case err != nil && !errors.Is(err, errInjected) && !strings.Contains(err.Error(), errInjected.Error()):
				t.Errorf("%s %d: got %v, want the cause", op, n, err)
			}
			if err == nil {
				db.Close()
			}
		}
	}
}

func TestDB_FlippedBytesAreErrorsNotWrongData(t *testing.T) {
	fs := vfs.NewMem()
	db := open(t, fs)
	const keys = 1000
	for i := range keys {
		write(t, db, fmt.Sprintf("x%06d", i), fmt.Sprintf("value %d", i))
	}
	if err := db.pdb.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	var table string
	names, err := fs.List("data")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if strings.HasSuffix(n, ".sst") {
			table = fs.PathJoin("data", n)
		}
	}
	data, err := fs.UnsafeGetFileDataBuffer(table)
	if err != nil {
		t.Fatal(err)
	}
	failed := 0
	for at := 0; at < len(data); at += 211 {
		data[at] ^= 0x40
		failed += readDamaged(t, fs, keys)
		data[at] ^= 0x40
	}
	if failed == 0 {
		t.Error("no flipped byte was noticed")
	}
}

// readDamaged opens the database and reads everything; it returns how many reads failed.
func readDamaged(t *testing.T, fs vfs.FS, keys int) (failed int) {
	t.Helper()
	db, err := Open(Config{Dir: "data", FS: fs})
	if err != nil {
		return 1
	}
	defer db.Close()
	for i := 0; i < keys; i += 50 {
		v, found, err := db.Get(nil, fmt.Appendf(nil, "x%06d", i))
		if err != nil {
			failed++
			continue
		}
		if want := fmt.Sprintf("value %d", i); !found || string(v) != want {
			t.Fatalf("key %d: got %q (%v) without an error, want %q", i, v, found, want)
		}
	}
	return failed
}

func TestDB_FullBackupDiskHarmsOnlyTheBackup(t *testing.T) {
	ffs := &faultFS{FS: vfs.NewMem()}
	db := open(t, ffs)
	write(t, db, "xa", "1")
	ffs.arm(opCreate, "OPTIONS", 0, true, diskFull)
	if err := db.Checkpoint("elsewhere/copy"); !errors.Is(err, diskFull) {
		t.Fatalf("got %v, want the full disk", err)
	}
	if err := db.Health(); err != nil {
		t.Errorf("the database failed with its backup: %v", err)
	}
	write(t, db, "xb", "2")
	if _, err := ffs.Stat("elsewhere/copy"); err == nil {
		t.Error("half a backup was left behind")
	}
}

func TestLogger_ErrorsAreLoggedAndFatalDoesNotExit(t *testing.T) {
	var out bytes.Buffer
	db := open(t, vfs.NewMem())
	db.log = slog.New(slog.NewTextHandler(&out, nil))
	l := logger{db}
	l.Infof("news %d", 1)
	l.Errorf("trouble %d", 2)
	if got := out.String(); strings.Contains(got, "news") || !strings.Contains(got, "trouble 2") {
		t.Errorf("log: %q", got)
	}
	l.Fatalf("the end: %w", errInjected)
	wantFailed(t, db)
	if err := db.Close(); !errors.Is(err, errInjected) {
		t.Errorf("got %v, want the cause", err)
	}
}

func TestDB_WritersWaitForTheBacklogAndAreLetGoOnFailure(t *testing.T) {
	gate := make(chan struct{})
	slow := &slowTables{FS: vfs.NewMem(), gate: gate}
	db := open(t, slow)
	var done atomic.Int64
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			value := bytes.Repeat([]byte{byte(w)}, 1<<20)
			for i := range 100 {
				b := db.NewBatch()
				b.Set(fmt.Appendf(nil, "x%d-%d", w, i), value)
				if _, err := db.Commit(b); err != nil {
					return
				}
				done.Add(1)
			}
		})
	}
	for slow.waiting.Load() == 0 {
		select {
		case <-db.Failed():
			t.Fatal("failed by itself")
		default:
		}
	}
	// The first table waits at the gate, so memory fills up to the stall, far below what the writers want to write.
	waitUntil(t, func() bool { return db.Metrics().MemTableBytes >= stallMemTables*memTableBytes })
	db.fault.set("test", errInjected)
	wg.Wait()
	close(gate)
	if got := done.Load(); got >= 400 {
		t.Errorf("all %d writes went through", got)
	}
}

// TestDB_FlippedBytesInTheLogAreNoticed kills a process and damages its last log: what was flushed to the log and not
// yet to a table is either read back as it was, or the database does not open.
func TestDB_FlippedBytesInTheLogAreNoticed(t *testing.T) {
	fs := vfs.NewCrashableMem()
	db := open(t, fs)
	const keys = 60
	for i := range keys {
		write(t, db, fmt.Sprintf("x%06d", i), fmt.Sprintf("value %d", i))
	}
	names, err := fs.List("data")
	if err != nil {
		t.Fatal(err)
	}
	var log string
	for _, n := range names {
		if strings.HasSuffix(n, ".log") {
			log = n
		}
	}
	data, err := fs.UnsafeGetFileDataBuffer(fs.PathJoin("data", log))
	if err != nil {
		t.Fatal(err)
	}
	noticed := 0
	for at := 0; at < len(data); at += 7 {
		damaged := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: newRNG(at)}) // kill -9: the page cache stays
		buf, err := damaged.UnsafeGetFileDataBuffer(damaged.PathJoin("data", log))
		if err != nil {
			t.Fatal(err)
		}
		buf[at] ^= 0x40
		db, err := Open(Config{Dir: "data", FS: damaged})
		if err != nil {
			noticed++
			continue
		}
		for i := range keys {
			v, found := read(t, db, fmt.Sprintf("x%06d", i))
			if want := fmt.Sprintf("value %d", i); !found || v != want {
				t.Errorf("byte %d of %d flipped: key %d is %q (found %v) without an error", at, len(data), i, v, found)
				break
			}
		}
		db.Close()
	}
	if noticed == 0 {
		t.Error("no flipped byte was noticed")
	}
}
