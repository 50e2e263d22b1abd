package pebble

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"carillon/server/clock"
	"carillon/server/clock/clocktest"
	"carillon/server/embedded"
	"carillon/server/push"
	"carillon/server/task"
	"carillon/server/task/tasktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// opened opens the database in fs, and closes it with the test at the latest.
func opened(t testing.TB, fs vfs.FS, dir string, seed byte) *embedded.DB {
	t.Helper()
	db, err := embedded.Open(embedded.Config{Dir: dir, FS: fs, Rand: rand.NewChaCha8([32]byte{seed})})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func newStore(t testing.TB, db *embedded.DB, c clock.Clock) *Store {
	t.Helper()
	s, err := New(Config{DB: db, Clock: c})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// maker returns a maker of stores in fresh directories.
func maker(fresh func(t *testing.T) (vfs.FS, string)) tasktest.Maker {
	return func(t *testing.T) *tasktest.Fixture {
		fs, dir := fresh(t)
		c := clocktest.New()
		db := opened(t, fs, dir, 1)
		s := newStore(t, db, c)
		audited(t, s)
		return &tasktest.Fixture{
			Store: s, Now: func() push.MilliTime { return push.Milli(c.Now()) }, Elapse: c.Advance,
			Reopen: func() task.Store {
				if err := errors.Join(s.Close(), db.Close()); err != nil {
					t.Fatal(err)
				}
				db = opened(t, fs, dir, 2)
				s = newStore(t, db, c)
				audited(t, s)
				return s
			},
		}
	}
}

func inMemory(*testing.T) (vfs.FS, string) { return vfs.NewMem(), "data" }
func onDisk(t *testing.T) (vfs.FS, string) { return vfs.Default, t.TempDir() }

func TestConformance(t *testing.T)        { tasktest.Run(t, maker(inMemory)) }
func TestConformance_OnDisk(t *testing.T) { tasktest.Run(t, maker(onDisk)) }

func TestNew_NeedsADatabase(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("a store without a database was made")
	}
}

// TestStore_UploadThatIsGivenUpGoes has a list be uploaded that is never created.
func TestStore_UploadThatIsGivenUpGoes(t *testing.T) {
	c := clocktest.New()
	s := newStore(t, opened(t, vfs.NewMem(), "data", 1), c)
	audited(t, s)
	ref := task.ListRef{Product: "shop", ID: 1}
	put := func(n int) push.MilliTime {
		t.Helper()
		if err := s.PutChunks(t.Context(), ref, []task.Chunk{{Number: n, Entries: []task.Entry{{User: "alice"}}}}); err != nil {
			t.Fatal(err)
		}
		until, err := s.kept(ref)
		if err != nil {
			t.Fatal(err)
		}
		return until
	}
	chunks := func() int {
		t.Helper()
		if _, err := s.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		cs, err := s.Chunks(t.Context(), ref, 0, 0, 9)
		if err != nil {
			t.Fatal(err)
		}
		return len(cs)
	}
	first := put(0)
	c.Advance(uploadSlack)
	if again := put(1); again != first {
		t.Errorf("until when it is kept was written again for a difference of %d ms", again-first)
	}
	c.Advance(time.Millisecond)
	last := put(2)
	if last != push.Milli(c.Now()).Add(task.ListKept) {
		t.Errorf("kept until %d at %d", last, push.Milli(c.Now()))
	}
	c.Advance(task.ListKept - time.Millisecond)
	if n := chunks(); n != 3 {
		t.Errorf("%d chunks before the time, want 3", n)
	}
	c.Advance(time.Millisecond)
	if n := chunks(); n != 0 {
		t.Errorf("%d chunks after the time, want none", n)
	}
}

// audited has a store be audited when the test ends, unless its database was closed before.
func audited(t *testing.T, s *Store) {
	t.Cleanup(func() {
		if s.db.Health() == nil {
			s.audit(t)
		}
	})
}

// audit holds the records to each other: each has the places that it should have, and no place is left of what is gone.
func (s *Store) audit(t *testing.T) {
	t.Helper()
	want, got := map[string]bool{}, map[string]bool{}
	space := []byte{byte(embedded.SpaceTasks)}
	err := s.walk(space, embedded.PrefixEnd(space), false, func(key, value []byte) (bool, error) {
		switch key[1] {
		case sortTask:
			one, err := task.Decode(value)
			if err != nil {
				return false, err
			}
			if one.Wake != 0 {
				want[string(wakeKey(&one))] = true
			}
			if until := task.KeptUntil(&one); until != 0 {
				want[string(endKey(until, key))] = true
			}
		case sortKey:
			r, err := task.DecodeKey(value)
			if err != nil {
				return false, err
			}
			want[string(endKey(r.At.Add(task.KeyKept), key))] = true
		case sortUntil:
			until, _, err := embedded.CutKeyUint64(value)
			if err != nil {
				return false, err
			}
			want[string(endKey(push.MilliTime(until), key))] = true
		case sortWake, sortEnd:
			got[string(key)] = true
		case sortList, sortChunk: // which have somebody to say until when
			p, rest, err := embedded.CutKeyString(key[2:])
			if err != nil {
				return false, err
			}
			id, _, err := embedded.CutKeyUint64(rest)
			if err != nil {
				return false, err
			}
			until, err := s.kept(task.ListRef{Product: push.ProductID(p), ID: push.MsgID(id)})
			if err != nil || until == 0 {
				t.Errorf("nothing says until when %q is kept: %v", key, err)
			}
		case sortCount:
			p, rest, err := embedded.CutKeyString(key[2:])
			if err != nil {
				return false, err
			}
			id, _, err := embedded.CutKeyUint64(rest)
			if err != nil {
				return false, err
			}
			if _, _, err := s.task(push.ProductID(p), push.MsgID(id)); err != nil {
				t.Errorf("counts of a task that cannot be read: %q, %v", key, err)
			}
		}
		return true, nil
	})
	if err != nil {
		t.Errorf("audit: %v", err)
	}
	for k := range want {
		if !got[k] {
			t.Errorf("a place is missing: %q", k)
		}
	}
	for k := range got {
		if !want[k] {
			t.Errorf("a place is left over: %q", k)
		}
	}
}
