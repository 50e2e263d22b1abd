package pebble

import (
	"context"
	"os"
	"testing"

	"carillon/server/embedded"
	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/saver/savertest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a store on some file system, and what opens it again.
type fixture struct {
	fs      vfs.FS
	dir     string
	clock   *savertest.Clock
	locator *savertest.Locator
	db      *embedded.DB
	store   *Store
}

func newFixture(t testing.TB, fs vfs.FS, dir string) *fixture {
	t.Helper()
	f := &fixture{fs: fs, dir: dir, clock: savertest.NewClock(), locator: savertest.NewLocator()}
	t.Cleanup(f.close)
	f.open(t)
	return f
}

func (f *fixture) open(t testing.TB) {
	t.Helper()
	var err error
	if f.db, err = embedded.Open(embedded.Config{Dir: f.dir, FS: f.fs}); err != nil {
		t.Fatal(err)
	}
	if f.store, err = New(Config{DB: f.db, Clock: f.clock, Locator: f.locator}); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) close() {
	_ = f.store.Close()
	_ = f.db.Close()
}

// subject gives the fixture to the suite.
func (f *fixture) subject() *savertest.Subject {
	s := &savertest.Subject{Store: f.store, Clock: f.clock, Locator: f.locator}
	s.Sweep = func(ctx context.Context) error { return f.store.Sweep(ctx) }
	s.Reopen = func(t *testing.T) saver.Store {
		f.close()
		f.open(t)
		return f.store
	}
	s.LoseBucket = func(t *testing.T, p push.ProductID, id push.MsgID) { f.loseBucket(t, p, id) }
	s.LoseSlot = func(t *testing.T, u saver.UserRef, k push.SlotKind) {
		prefix := slotPrefix(u.Shard(), k, u.User)
		b := f.db.NewBatch()
		b.DeleteRange(sub(nil, prefix, subEntry), sub(nil, prefix, subEntry+1))
		b.Delete(sub(nil, prefix, subState))
		f.write(t, b)
		f.store.dropAllCached()
	}
	return s
}

// markable is subject for a file system in memory, which can fall back.
func (f *fixture) markable() *savertest.Subject {
	s := f.subject()
	s.Mark = func(t *testing.T) func(t *testing.T) saver.Store {
		b := f.db.NewBatch()
		b.Set([]byte("x"), nil)
		f.write(t, b) // whatever was not waited for is flushed with it
		then := f.fs.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{})
		return func(t *testing.T) saver.Store {
			f.close()
			f.fs = then.CrashClone(vfs.CrashCloneCfg{})
			f.open(t)
			return f.store
		}
	}
	return s
}

func (f *fixture) write(t testing.TB, b *embedded.Batch) {
	t.Helper()
	if err := f.db.Write(context.Background(), b); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) loseBucket(t testing.TB, p push.ProductID, id push.MsgID) {
	t.Helper()
	rec, err := f.store.lookupRecord(p, id, f.clock.Milli())
	if err != nil {
		t.Fatal(err)
	}
	b := f.db.NewBatch()
	b.Delete(messageKey(nil, spaceBucket, forgetHour(rec.Message.Expires), p, id))
	f.write(t, b)
}

// dropAllCached makes the store read everything again.
func (s *Store) dropAllCached() {
	for i := range s.stripes {
		st := &s.stripes[i]
		st.mu.Lock()
		st.dropCached()
		st.mu.Unlock()
	}
}

func TestConformance(t *testing.T) {
	savertest.Run(t, func(t *testing.T) *savertest.Subject {
		return newFixture(t, vfs.NewCrashableMem(), "data").markable()
	})
}

// fewSeeds bounds the random part of a further run of the suite, unless somebody asked for more.
func fewSeeds(t *testing.T) {
	if os.Getenv(savertest.SeedsVariable) == "" {
		t.Setenv(savertest.SeedsVariable, "4")
	}
}

func TestConformance_OnDisk(t *testing.T) {
	fewSeeds(t)
	savertest.Run(t, func(t *testing.T) *savertest.Subject {
		return newFixture(t, vfs.Default, t.TempDir()).subject()
	})
}

// TestConformance_WithoutCache reads every state from the database each time.
func TestConformance_WithoutCache(t *testing.T) {
	fewSeeds(t)
	savertest.Run(t, func(t *testing.T) *savertest.Subject {
		f := newFixture(t, vfs.NewMem(), "data")
		f.store.cacheUsers = 0
		return f.subject()
	})
}
