package pebble

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"carillon/server/catalog"
	"carillon/server/catalog/catalogtest"
	"carillon/server/clock"
	"carillon/server/clock/clocktest"
	"carillon/server/embedded"
	"carillon/server/push"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// seeded is a source of randomness for tests.
func seeded(n byte) *rand.ChaCha8 { return rand.NewChaCha8([32]byte{n}) }

// opened opens the database in fs, and closes it with the test at the latest.
func opened(t *testing.T, fs vfs.FS, dir string, seed byte) *embedded.DB {
	t.Helper()
	db, err := embedded.Open(embedded.Config{Dir: dir, FS: fs, Rand: seeded(seed)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func newCatalog(t *testing.T, db *embedded.DB, c clock.Clock) *Catalog {
	t.Helper()
	cat, err := New(Config{DB: db, Clock: c})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cat.Close() })
	return cat
}

// maker returns a maker of catalogs in fresh directories; wrap is put around each.
func maker(fresh func(t *testing.T) (vfs.FS, string), wrap func(catalog.Catalog, clock.Clock) catalog.Catalog) catalogtest.Maker {
	return func(t *testing.T) *catalogtest.Fixture {
		fs, dir := fresh(t)
		c := clocktest.New()
		db := opened(t, fs, dir, 1)
		cat := wrap(newCatalog(t, db, c), c)
		return &catalogtest.Fixture{
			Catalog: cat,
			Shards:  64,
			Elapse:  c.Advance,
			Reopen: func() catalog.Catalog {
				if err := errors.Join(cat.Close(), db.Close()); err != nil {
					t.Fatal(err)
				}
				return wrap(newCatalog(t, opened(t, fs, dir, 2), c), c)
			},
		}
	}
}

func inMemory(*testing.T) (vfs.FS, string) { return vfs.NewMem(), "data" }
func onDisk(t *testing.T) (vfs.FS, string) { return vfs.Default, t.TempDir() }

func bare(c catalog.Catalog, _ clock.Clock) catalog.Catalog { return c }

func cached(c catalog.Catalog, k clock.Clock) catalog.Catalog {
	return catalog.NewCache(c, catalog.CacheConfig{Clock: k})
}

func TestConformance(t *testing.T)              { catalogtest.Run(t, maker(inMemory, bare)) }
func TestConformance_OnDisk(t *testing.T)       { catalogtest.Run(t, maker(onDisk, bare)) }
func TestConformance_ThroughCache(t *testing.T) { catalogtest.Run(t, maker(inMemory, cached)) }

// TestCatalog_PowerLossKeepsWhatWasAnswered drops everything that was not flushed after each write.
func TestCatalog_PowerLossKeepsWhatWasAnswered(t *testing.T) {
	fs := vfs.NewCrashableMem()
	cat := newCatalog(t, opened(t, fs, "data", 1), clocktest.New())
	ctx := t.Context()
	secret := []byte("0123456789abcdef0123456789ABCDEF")
	for i := range 8 {
		p := push.ProductID(fmt.Sprint("p", i))
		if _, err := cat.CreateProduct(ctx, catalog.Product{ID: p}); err != nil {
			t.Fatal(err)
		}
		if _, err := cat.AddDeviceKey(ctx, catalog.DeviceKey{Product: p, ID: "k", Alg: catalog.HS256, Material: secret}); err != nil {
			t.Fatal(err)
		}
		for range 2 { // what a repetition answers has to last as well
			if _, err := cat.RevokeDeviceKey(ctx, p, "k"); err != nil {
				t.Fatal(err)
			}
		}
		revoked, err := cat.Revoke(ctx, catalog.Revocation{Product: p, RevocationTarget: catalog.RevocationTarget{User: "alice"}})
		if err != nil {
			t.Fatal(err)
		}
		version, err := cat.Version(ctx)
		if err != nil {
			t.Fatal(err)
		}

		after := newCatalog(t, opened(t, fs.CrashClone(vfs.CrashCloneCfg{}), "data", byte(i+2)), clocktest.New())
		if l, err := after.Products(ctx, catalog.Page{}); err != nil || len(l.Items) != i+1 {
			t.Fatalf("after power loss: got %d products, %v, want %d", len(l.Items), err, i+1)
		}
		k, err := after.DeviceKey(ctx, p, "k")
		if err != nil || k.Revoked == 0 {
			t.Fatalf("after power loss: got key %+v, %v, want it revoked", k, err)
		}
		if rs, err := after.RevocationChanges(ctx, 0, 0); err != nil || len(rs) != i+1 || rs[i] != revoked {
			t.Fatalf("after power loss: got revocations %+v, %v, want %d and the last %+v", rs, err, i+1, revoked)
		}
		if got, err := after.Version(ctx); err != nil || got != version {
			t.Fatalf("after power loss: got version %d, %v, want %d", got, err, version)
		}
	}
}

// failingSync is a file system whose flushes fail from some moment on.
type failingSync struct {
	vfs.FS
	mu   sync.Mutex
	fail bool
}

func (f *failingSync) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail {
		return errors.New("the disk is gone")
	}
	return nil
}

func (f *failingSync) set() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = true
}

func (f *failingSync) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.Create(name, c)
	return &syncedFile{file, f}, err
}

type syncedFile struct {
	vfs.File
	fs *failingSync
}

func (f *syncedFile) Sync() error {
	if err := f.fs.err(); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *syncedFile) SyncData() error {
	if err := f.fs.err(); err != nil {
		return err
	}
	return f.File.SyncData()
}

func (f *syncedFile) SyncTo(n int64) (bool, error) {
	if err := f.fs.err(); err != nil {
		return false, err
	}
	return f.File.SyncTo(n)
}

func TestCatalog_NothingIsAnsweredAfterAFailedFlush(t *testing.T) {
	fs := &failingSync{FS: vfs.NewMem()}
	cat := newCatalog(t, opened(t, fs, "data", 1), clocktest.New())
	ctx := t.Context()
	if _, err := cat.CreateProduct(ctx, catalog.Product{ID: "shop"}); err != nil {
		t.Fatal(err)
	}
	fs.set()
	for i := range 3 {
		_, err := cat.CreateProduct(ctx, catalog.Product{ID: push.ProductID(fmt.Sprint("p", i))})
		if push.KindOf(err) != push.KindUnavailable {
			t.Fatalf("write %d after the disk was gone: got %v, want KindUnavailable", i, err)
		}
	}
}

// TestCatalog_KeepsWhatANewerNodeWrote changes a product that holds a field nobody here knows.
func TestCatalog_KeepsWhatANewerNodeWrote(t *testing.T) {
	db := opened(t, vfs.NewMem(), "data", 1)
	cat := newCatalog(t, db, clocktest.New())
	ctx := t.Context()
	p, err := cat.CreateProduct(ctx, catalog.Product{ID: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	rewrite := func(from func([]byte) []byte) {
		t.Helper()
		stored, _, err := db.Get(nil, productKey("shop"))
		if err != nil {
			t.Fatal(err)
		}
		b := db.NewBatch()
		b.Set(productKey("shop"), from(stored))
		if err := db.Write(ctx, b); err != nil {
			t.Fatal(err)
		}
	}
	rewrite(func(b []byte) []byte { return append([]byte(`{"session_rules":[{"max":1}],`), b[1:]...) })
	p.Name = "changed"
	if _, err := cat.UpdateProduct(ctx, p); err != nil {
		t.Fatal(err)
	}
	rewrite(func(b []byte) []byte {
		var got struct {
			Name  string              `json:"name"`
			Rules []struct{ Max int } `json:"session_rules"`
		}
		if err := json.Unmarshal(b, &got); err != nil || got.Name != "changed" || len(got.Rules) != 1 || got.Rules[0].Max != 1 {
			t.Errorf("stored: %s (%v)", b, err)
		}
		return bytes.Replace(b, []byte(`"v":1`), []byte(`"v":2`), 1)
	})
	if _, err := cat.Product(ctx, "shop"); push.KindOf(err) != push.KindInternal {
		t.Errorf("a product of a newer form: got %v, want KindInternal", err)
	}
}

func TestNew_NeedsADatabase(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("a catalog without a database was made")
	}
}
