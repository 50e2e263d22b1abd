package embedded

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"carillon/server/push"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// waitUntil polls a condition that other goroutines will make true.
func waitUntil(t *testing.T, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for !ok() {
		if ctx.Err() != nil {
			t.Fatal("it did not come to it")
		}
		runtime.Gosched()
	}
}

func TestCheckpoint_IsConsistentAndRestorable(t *testing.T) {
	fs := vfs.NewMem()
	db := open(t, fs)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // two keys that always change together
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			b := db.NewBatch()
			v := fmt.Append(nil, i)
			b.Set([]byte("xleft"), v)
			b.Set([]byte("xright"), v)
			if err := db.Write(context.Background(), b); err != nil {
				t.Error(err)
				return
			}
		}
	})
	write(t, db, "xbefore", "1")
	for i := range 5 {
		if err := db.Checkpoint(fmt.Sprintf("backups/%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
	for i := range 5 {
		copied, err := Open(Config{Dir: fmt.Sprintf("backups/%d", i), FS: fs})
		if err != nil {
			t.Fatal(err)
		}
		if v, _ := read(t, copied, "xbefore"); v != "1" {
			t.Errorf("copy %d lacks what was committed before it", i)
		}
		left, _ := read(t, copied, "xleft")
		right, _ := read(t, copied, "xright")
		if left != right {
			t.Errorf("copy %d: half a batch, %s and %s", i, left, right)
		}
		if copied.Lineage() == db.Lineage() {
			t.Error("the copy has the lineage of the original")
		}
		if err := copied.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestCheckpoint_RefusesBadDirectories(t *testing.T) {
	db := open(t, vfs.NewMem())
	cases := []struct{ dir, code string }{
		{"", "backup_dir"}, {"data", "backup_dir"}, {"data/copy", "backup_dir"}, {"x/../data", "backup_dir"},
		{"copy", ""}, {"copy", "backup_exists"},
	}
	for _, c := range cases {
		err := db.Checkpoint(c.dir)
		var e *push.Error
		if c.code == "" && err != nil || c.code != "" && (!errors.As(err, &e) || e.Code != c.code) {
			t.Errorf("%q: got %v, want %q", c.dir, err, c.code)
		}
	}
}

func TestDB_GroupsShareSyncs(t *testing.T) {
	held := &heldFS{FS: vfs.NewMem(), gate: make(chan struct{})}
	db := open(t, held)
	held.hold.Store(true)
	const writers = 64
	var tickets []Ticket
	for i := range writers { // none waits for the disk: applied and visible while the sync is held
		b := db.NewBatch()
		key := fmt.Appendf(nil, "x%d", i)
		b.Set(key, nil)
		ticket, err := db.Commit(b)
		if err != nil {
			t.Fatal(err)
		}
		if _, found, err := db.Get(nil, key); err != nil || !found {
			t.Fatalf("write %d is not visible: %v", i, err)
		}
		tickets = append(tickets, ticket)
	}
	before := db.fs.syncs.Load()
	close(held.gate)
	for _, ticket := range tickets {
		if err := ticket.Wait(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if got := db.fs.syncs.Load() - before; got > writers/8 {
		t.Errorf("%d writes took %d syncs", writers, got)
	}
}

func TestDB_CrashKeepsAPrefix(t *testing.T) {
	for seed := range 20 {
		fs := vfs.NewCrashableMem()
		db := open(t, fs)
		durable := -1
		for i := range 50 {
			b := db.NewBatch()
			b.Set(fmt.Appendf(nil, "x%03d", i), nil)
			var err error
			if i%7 == seed%7 {
				err = db.Write(context.Background(), b)
				durable = i
			} else {
				err = db.CommitNoSync(b)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		after := open(t, fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: seed * 5, RNG: newRNG(seed)}))
		last := -1
		for i := range 50 {
			if _, found := read(t, after, fmt.Sprintf("x%03d", i)); found {
				if last != i-1 {
					t.Fatalf("seed %d: %d survived without %d", seed, i, i-1)
				}
				last = i
			}
		}
		if last < durable {
			t.Errorf("seed %d: durable up to %d, survived up to %d", seed, durable, last)
		}
	}
}

func newRNG(seed int) *rand.Rand { return rand.New(rand.NewPCG(uint64(seed), 1)) }
