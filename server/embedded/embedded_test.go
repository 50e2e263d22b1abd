package embedded

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"

	"carillon/server/push"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
)

// TestMain allows one leak, which is Pebble's: an Open that fails late leaves the goroutine of its scheduler behind.
// The process ends then; every other test closes what it opened.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("github.com/cockroachdb/pebble/v2.(*ConcurrencyLimitScheduler).periodicGranter"))
}

// open opens a database in memory and closes it at the end of the test.
func open(t testing.TB, fs vfs.FS) *DB {
	t.Helper()
	db, err := Open(Config{Dir: "data", FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func write(t testing.TB, db *DB, key, value string) {
	t.Helper()
	b := db.NewBatch()
	b.Set([]byte(key), []byte(value))
	if err := db.Write(context.Background(), b); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, db *DB, key string) (string, bool) {
	t.Helper()
	v, found, err := db.Get(nil, []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	return string(v), found
}

func TestDB_BatchIsWholeAndVisibleAfterCommit(t *testing.T) {
	db := open(t, vfs.NewMem())
	b := db.NewBatch()
	for i := range 10 {
		b.Set(fmt.Appendf(nil, "x%d", i), []byte("v"))
	}
	b.DeleteRange([]byte("x3"), []byte("x5"))
	b.Delete([]byte("x7"))
	ticket, err := db.Commit(b)
	if err != nil {
		t.Fatal(err)
	}
	it, err := db.ScanPrefix([]byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for ok := it.First(); ok; ok = it.Next() {
		got += string(it.Key()) + " "
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	if want := "x0 x1 x2 x5 x6 x8 x9 "; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := ticket.Wait(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestDB_SurvivesReopenWithNewLineage(t *testing.T) {
	fs := vfs.NewMem()
	db := open(t, fs)
	first := db.Lineage()
	write(t, db, "xa", "1")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, fs)
	if got, _ := read(t, db, "xa"); got != "1" {
		t.Errorf("got %q, want 1", got)
	}
	if db.Lineage() == first || db.Lineage() == 0 || db.Lineage() >= 1<<63 {
		t.Errorf("lineage %d after %d", db.Lineage(), first)
	}
}

func TestOpen_NamesTheDirectoryThatIsInUse(t *testing.T) {
	dir := t.TempDir()
	db, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	_, err = Open(Config{Dir: dir})
	var e *push.Error
	if !errors.As(err, &e) || e.Code != "storage_locked" {
		t.Fatalf("got %v, want storage_locked", err)
	}
	if want := fmt.Sprintf("%q", dir); !strings.Contains(e.Detail, want) {
		t.Errorf("detail %q does not name %s", e.Detail, want)
	}
}

func TestOpen_RefusesNewerAndForeign(t *testing.T) {
	cases := []struct{ name, key, value, code string }{
		{"newer", string(formatKey), "\x02", "storage_newer"},
		{"damaged", string(formatKey), "", "storage_damaged"},
		{"damaged tail", string(formatKey), "\x01\x01", "storage_damaged"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			fs := vfs.NewMem()
			db := open(t, fs)
			write(t, db, c.key, c.value)
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			wantOpenCode(t, fs, c.code)
		})
	}
	t.Run("foreign", func(t *testing.T) {
		fs := vfs.NewMem()
		db := open(t, fs)
		b := db.NewBatch()
		b.Delete(formatKey)
		b.Set([]byte("theirs"), nil)
		if err := db.Write(context.Background(), b); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		wantOpenCode(t, fs, "storage_foreign")
	})
}

func wantOpenCode(t *testing.T, fs vfs.FS, code string) {
	t.Helper()
	db, err := Open(Config{Dir: "data", FS: fs})
	var e *push.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("got %v, want %s", err, code)
	}
	if err == nil {
		db.Close()
	}
}

func TestOpen_NeedsRandomness(t *testing.T) {
	if _, err := Open(Config{Dir: "data", FS: vfs.NewMem(), Rand: emptyReader{}}); err == nil {
		t.Error("opened without randomness")
	}
	if _, err := newLineage(rand.Reader); err != nil {
		t.Error(err)
	}
}

type emptyReader struct{}

func (emptyReader) Read([]byte) (int, error) { return 0, errors.New("no randomness") }

func TestDB_AfterCloseEverythingIsRefused(t *testing.T) {
	db := open(t, vfs.NewMem())
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	_, cerr := db.Commit(db.NewBatch())
	_, _, gerr := db.Get(nil, []byte("x"))
	_, serr := db.Scan(nil, nil)
	for i, err := range []error{cerr, gerr, serr, db.Health(), db.CommitNoSync(db.NewBatch()), db.Checkpoint("copy")} {
		if got := push.KindOf(err); err == nil || got != push.KindClosed {
			t.Errorf("call %d: got %v, want KindClosed", i, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
	if got := db.Metrics(); got != (Metrics{}) {
		t.Errorf("metrics after close: %+v", got)
	}
}

func TestDB_WaitEndsWithItsContext(t *testing.T) {
	held := &heldFS{FS: vfs.NewMem(), gate: make(chan struct{})}
	db := open(t, held)
	held.hold.Store(true)
	b := db.NewBatch()
	b.Set([]byte("xa"), nil)
	ticket, err := db.Commit(b)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err = ticket.Wait(ctx)
	var e *push.Error
	if !errors.As(err, &e) || e.Kind != push.KindUnavailable || e.Code != "storage_slow" {
		t.Errorf("got %v, want storage_slow", err)
	}
	close(held.gate)
	if err := ticket.Wait(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestKeys_RoundTripAndOrder(t *testing.T) {
	names := []string{
		"", "\x00", "\x00\x00", "\x00\x01", "\x00\xff", "\x01",
		"a", "a\x00", "a\x00b", "a\x01", "ab", "b", "\xff", "\xff\xff",
	}
	var prev []byte
	for i, n := range names {
		key := AppendKeyUint64(AppendKeyString(nil, n), 7)
		if i > 0 && string(prev) >= string(key) {
			t.Errorf("%q does not sort after %q", n, names[i-1])
		}
		prev = key
		got, rest, err := CutKeyString(key)
		if err != nil || got != n {
			t.Errorf("got %q, %v, want %q", got, err, n)
		}
		num, rest, err := CutKeyUint64(rest)
		if err != nil || num != 7 || len(rest) != 0 {
			t.Errorf("number after %q: %d, %d left, %v", n, num, len(rest), err)
		}
		for _, m := range names {
			if m != n && bytes.HasPrefix(AppendKeyString(nil, m), AppendKeyString(nil, n)) {
				t.Errorf("the key of %q begins with that of %q", m, n)
			}
		}
	}
	for _, bad := range []string{"", "a", "a\x00", "a\x00b", "\x00"} {
		if _, _, err := CutKeyString([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestPrefixEnd_IsRightAfterThePrefix(t *testing.T) {
	cases := []struct{ in, want string }{{"a", "b"}, {"a\xff", "b"}, {"\x00", "\x01"}, {"\xff\xff", ""}, {"a\xffb", "a\xffc"}}
	for _, c := range cases {
		if got := string(PrefixEnd([]byte(c.in))); got != c.want {
			t.Errorf("%q: got %q, want %q", c.in, got, c.want)
		}
	}
}

func TestDB_LaterWritesWinWithinABatchAndAGroup(t *testing.T) {
	held := &heldFS{FS: vfs.NewMem(), gate: make(chan struct{})}
	db := open(t, held)
	cases := []struct {
		name  string
		build func(b *Batch)
		want  string
	}{
		{"set twice", func(b *Batch) { b.Set([]byte("xa"), []byte("1")); b.Set([]byte("xa"), []byte("2")) }, "xa=2 "},
		{"set and deleted", func(b *Batch) { b.Set([]byte("xa"), []byte("1")); b.Delete([]byte("xa")) }, ""},
		{"deleted and set", func(b *Batch) { b.Delete([]byte("xa")); b.Set([]byte("xa"), []byte("3")) }, "xa=3 "},
		{"range after", func(b *Batch) {
			b.Set([]byte("xa"), nil)
			b.DeleteRange([]byte("x"), []byte("y"))
			b.Set([]byte("xb"), nil)
		}, "xb= "},
		{"range before", func(b *Batch) { b.DeleteRange([]byte("x"), []byte("y")); b.Set([]byte("xa"), []byte("4")) }, "xa=4 "},
		{"out of order", func(b *Batch) { b.Set([]byte("xc"), nil); b.Set([]byte("xa"), nil); b.Set([]byte("xb"), nil) }, "xa= xb= xc= "},
	}
	for _, c := range cases {
		for _, separate := range []bool{false, true} { // one batch, or as many that are submitted one after another
			clear := db.NewBatch()
			clear.DeleteRange([]byte("x"), []byte("y"))
			if err := db.CommitNoSync(clear); err != nil {
				t.Fatal(err)
			}
			whole := db.NewBatch()
			c.build(whole)
			parts := []*Batch{whole}
			if separate {
				parts = nil
				for _, o := range whole.ops {
					b := db.NewBatch()
					b.add(o.kind, whole.buf[o.key:o.end], whole.buf[o.end:o.valueEnd])
					parts = append(parts, b)
				}
			}
			var last Ticket
			for _, b := range parts {
				var err error
				if last, err = db.Submit(b, false); err != nil {
					t.Fatal(err)
				}
			}
			if err := last.Applied(); err != nil {
				t.Fatal(err)
			}
			it, err := db.ScanPrefix([]byte("x"))
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for ok := it.First(); ok; ok = it.Next() {
				v, err := it.Value()
				if err != nil {
					t.Fatal(err)
				}
				got += fmt.Sprintf("%s=%s ", it.Key(), v)
			}
			if err := it.Close(); err != nil {
				t.Fatal(err)
			}
			if got != c.want {
				t.Errorf("%s (separate %v): got %q, want %q", c.name, separate, got, c.want)
			}
		}
	}
	close(held.gate)
}
