package pebble

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"carillon/server/clock/clocktest"
	"carillon/server/push"
	"carillon/server/task"
)

// TestStore_PowerLossKeepsWhatWasAnswered drops everything that was not flushed after each answer.
func TestStore_PowerLossKeepsWhatWasAnswered(t *testing.T) {
	fs, c := vfs.NewCrashableMem(), clocktest.New()
	s := newStore(t, opened(t, fs, "data", 1), c)
	ctx := t.Context()
	seed := byte(1)
	after := func() *Store {
		t.Helper()
		seed++
		other := newStore(t, opened(t, fs.CrashClone(vfs.CrashCloneCfg{}), "data", seed), c)
		audited(t, other)
		return other
	}
	ref := task.ListRef{Product: "shop", ID: 100}
	chunk := task.Chunk{Shard: 3, Entries: []task.Entry{{User: "alice"}}}
	for i := range push.MsgID(4) {
		id := i + 1
		made, _, err := s.Create(ctx, task.Task{Product: "shop", ID: id, State: task.Running, Wake: 5}, task.Key{Name: fmt.Sprint(id)})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := after().Task(ctx, "shop", id); err != nil || got.Revision != made.Revision {
			t.Fatalf("created: got %+v, %v", got, err)
		}
		stopped, err := s.Update(ctx, "shop", id, func(u *task.Task, now push.MilliTime) error { return u.Do(task.Stop, nil, "", now) })
		if err != nil {
			t.Fatal(err)
		}
		if got, err := after().Task(ctx, "shop", id); err != nil || got.State != task.Stopped || got.Run.Token != stopped.Run.Token {
			t.Fatalf("stopped: got %+v, %v", got, err)
		}
		if err := s.SetSwitch(ctx, "shop", task.Switch{Off: true, Reason: fmt.Sprint(id)}); err != nil {
			t.Fatal(err)
		}
		if got, err := after().Switch(ctx, "shop"); err != nil || got.Reason != fmt.Sprint(id) {
			t.Fatalf("switched off: got %+v, %v", got, err)
		}
		chunk.Number = int(i)
		if err := s.PutChunks(ctx, ref, []task.Chunk{chunk}); err != nil {
			t.Fatal(err)
		}
		if got, err := after().Chunks(ctx, ref, 3, int(i), 1); err != nil || len(got) != 1 {
			t.Fatalf("a chunk: got %+v, %v", got, err)
		}
	}
	if _, err := s.CreateList(ctx, task.List{Product: "shop", ID: 100, Chunks: task.Progress{0, 0, 0, 4}}); err != nil {
		t.Fatal(err)
	}
	if _, err := after().List(ctx, ref); err != nil {
		t.Fatalf("a list: %v", err)
	}
	c.Advance(task.ListKept / 2)
	if err := s.KeepList(ctx, ref); err != nil {
		t.Fatal(err)
	}
	kept := after()
	c.Advance(task.ListKept - time.Millisecond)
	if _, err := kept.List(ctx, ref); err != nil {
		t.Fatalf("a list that is kept on: %v", err)
	}
	if there, err := s.DeleteList(ctx, ref); !there || err != nil {
		t.Fatal(there, err)
	}
	if _, err := after().List(ctx, ref); push.KindOf(err) != push.KindNotFound {
		t.Fatalf("a list that was deleted: %v", err)
	}
	if there, err := s.Delete(ctx, "shop", 1); !there || err != nil {
		t.Fatal(there, err)
	}
	if _, err := after().Task(ctx, "shop", 1); push.KindOf(err) != push.KindNotFound {
		t.Fatalf("a task that was deleted: %v", err)
	}
}

// TestStore_PowerLossKeepsWhatWasSaidToBeSoAlready has others answer from what one wrote whose flush does not come: they wait for it as well.
func TestStore_PowerLossKeepsWhatWasSaidToBeSoAlready(t *testing.T) {
	fs := &stuckSync{FS: vfs.NewMem(), stuck: make(chan struct{})}
	s := newStore(t, opened(t, fs, "data", 1), clocktest.New())
	ctx := t.Context()
	given := task.Task{Product: "shop", ID: 1, State: task.Running}
	if _, _, err := s.Create(ctx, given, task.Key{}); err != nil {
		t.Fatal(err)
	}
	fs.holds.Store(true)
	result := make(chan error, 1)
	go func() {
		_, err := s.Update(ctx, "shop", 1, func(u *task.Task, now push.MilliTime) error { return u.Do(task.Stop, nil, "", now) })
		result <- err
	}()
	for { // until others see it
		if got, err := s.Task(ctx, "shop", 1); err != nil {
			t.Fatal(err)
		} else if got.State == task.Stopped {
			break
		}
		runtime.Gosched()
	}
	for name, call := range map[string]func(ctx context.Context) error{
		"Update": func(ctx context.Context) error {
			_, err := s.Update(ctx, "shop", 1, func(*task.Task, push.MilliTime) error { return task.ErrUnchanged })
			return err
		},
		"Delete": func(ctx context.Context) error {
			_, err := s.Delete(ctx, "shop", 77) // which is not there
			return err
		},
	} {
		if err := call(impatient{ctx}); push.KindOf(err) != push.KindUnavailable || err == nil {
			t.Errorf("%s answered before the flush: %v", name, err)
		}
	}
	close(fs.stuck)
	if err := <-result; err != nil {
		t.Error(err)
	}
	if _, err := s.Delete(ctx, "shop", 77); err != nil {
		t.Errorf("after the flush: %v", err)
	}
}

// impatient is a context that ends as soon as somebody waits for it.
type impatient struct{ context.Context }

func (impatient) Done() <-chan struct{} {
	ended := make(chan struct{})
	close(ended)
	return ended
}

// TestStore_PowerLossNeverTearsCounts takes what survives of counts that nobody flushed.
func TestStore_PowerLossNeverTearsCounts(t *testing.T) {
	fs, c := vfs.NewCrashableMem(), clocktest.New()
	s := newStore(t, opened(t, fs, "data", 1), c)
	ctx := t.Context()
	if _, _, err := s.Create(ctx, task.Task{Product: "shop", ID: 1}, task.Key{}); err != nil {
		t.Fatal(err)
	}
	life := task.Life{Room: "r", Boot: 1}
	count := func() {
		t.Helper()
		if err := s.Count(ctx, []task.Counted{{Product: "shop", Task: 1, Life: life, Counts: task.Counts{1, 1, 1, 1, 1, 1}}}); err != nil {
			t.Fatal(err)
		}
	}
	const n = 20
	for range n {
		count()
	}
	if _, err := s.Update(ctx, "shop", 1, func(*task.Task, push.MilliTime) error { return nil }); err != nil { // which flushes all before it
		t.Fatal(err)
	}
	for i := range n {
		count()
		other := newStore(t, opened(t, fs.CrashClone(vfs.CrashCloneCfg{}), "data", byte(i+2)), c)
		all, err := other.Counts(ctx, "shop", 1)
		got := all[life]
		if err != nil || got[0] < n || got[0] > n+int64(i)+1 || got != (task.Counts{got[0], got[0], got[0], got[0], got[0], got[0]}) {
			t.Fatalf("after %d and power loss: got %v, %v", n+i+1, got, err)
		}
	}
}

// stuckSync is a file system whose flushes wait while it holds them.
type stuckSync struct {
	vfs.FS
	holds atomic.Bool
	stuck chan struct{} // closed by the test
}

func (f *stuckSync) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.Create(name, c)
	return &stuckFile{file, f}, err
}

type stuckFile struct {
	vfs.File
	fs *stuckSync
}

func (f *stuckFile) wait() {
	if f.fs.holds.Load() {
		<-f.fs.stuck
	}
}

func (f *stuckFile) Sync() error {
	f.wait()
	return f.File.Sync()
}

func (f *stuckFile) SyncData() error {
	f.wait()
	return f.File.SyncData()
}

func (f *stuckFile) SyncTo(n int64) (bool, error) {
	f.wait()
	return f.File.SyncTo(n)
}

// TestStore_ReadsWhatANewerNodeWrote has records be as a later version may write them.
func TestStore_ReadsWhatANewerNodeWrote(t *testing.T) {
	db := opened(t, vfs.NewMem(), "data", 1)
	s := newStore(t, db, clocktest.New())
	ctx := t.Context()
	if _, _, err := s.Create(ctx, task.Task{Product: "shop", ID: 1, Spec: task.Spec{To: json.RawMessage(`{}`), Message: json.RawMessage(`{}`)}}, task.Key{}); err != nil {
		t.Fatal(err)
	}
	life := task.Life{Room: "r", Boot: 1}
	rewrite := func(key, value []byte) {
		t.Helper()
		b := db.NewBatch()
		b.Set(key, value)
		if err := db.Write(ctx, b); err != nil {
			t.Fatal(err)
		}
	}
	stored, _, err := db.Get(nil, ofID(sortTask, "shop", 1))
	if err != nil {
		t.Fatal(err)
	}
	rewrite(ofID(sortTask, "shop", 1), append([]byte("\x01{\"added\":[1],"), stored[2:]...))
	rewrite(countKey("shop", 1, life), append([]byte("\x02\x05later"), make([]byte, 8*task.Kinds)...))
	if err := s.Count(ctx, []task.Counted{{Product: "shop", Task: 1, Life: life, Counts: task.Counts{1}}}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Counts(ctx, "shop", 1); err != nil || got[life] != (task.Counts{1}) {
		t.Errorf("counts: got %v, %v", got, err)
	}
	if got, err := s.Update(ctx, "shop", 1, func(u *task.Task, _ push.MilliTime) error { return nil }); err != nil || got.Revision != 2 {
		t.Errorf("a task with more in it: %+v, %v", got, err)
	}
	rewrite(ofID(sortTask, "shop", 1), append([]byte{2}, stored[1:]...))
	if _, err := s.Task(ctx, "shop", 1); push.KindOf(err) != push.KindInternal || err == nil {
		t.Errorf("a task of a newer form: got %v, want KindInternal", err)
	}
	rewrite(countKey("shop", 1, life), []byte("\x01short"))
	if _, err := s.Counts(ctx, "shop", 1); push.KindOf(err) != push.KindInternal || err == nil {
		t.Errorf("damaged counts: got %v, want KindInternal", err)
	}
}
