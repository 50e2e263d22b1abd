package pebble

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/saver"
	"carillon/server/saver/savertest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// brokenFS fails the flush of a log once, after a number of good ones, and lets the later ones through.
type brokenFS struct {
	vfs.FS
	left atomic.Int64 // good flushes before the bad one, once armed
	arm  atomic.Bool
}

var errBroken = errors.New("broken disk")

func (f *brokenFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.Create(name, c)
	if err != nil || !strings.HasSuffix(name, ".log") {
		return file, err
	}
	return &brokenFile{file, f}, nil
}

type brokenFile struct {
	vfs.File
	fs *brokenFS
}

func (f *brokenFile) fail() error {
	if f.fs.arm.Load() && f.fs.left.Add(-1) == -1 {
		return errBroken
	}
	return nil
}

func (f *brokenFile) Sync() error {
	if err := f.fail(); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *brokenFile) SyncData() error {
	if err := f.fail(); err != nil {
		return err
	}
	return f.File.SyncData()
}

// to returns a publication to one user with a key of its own.
func to(id int, key string, u push.UserID) *saver.Publication {
	return &saver.Publication{
		Product: "shop", Shards: savertest.Shards, Limits: push.Limits{}.WithDefaults(), TTL: time.Hour,
		Message: &push.Message{ID: push.MsgID(id), Persistent: true, Body: fmt.Appendf(nil, `"%d"`, id)},
		Key:     saver.IdempotencyKey(key), Digest: saver.Digest{1}, Own: []saver.Target{{User: u}},
	}
}

func publish1(s *Store, p *saver.Publication) saver.Published {
	return s.Publish(context.Background(), []*saver.Publication{p})[0]
}

// waitFor polls a condition that others will make true.
func waitFor(t *testing.T, ok func() bool) {
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

func TestStore_NothingIsAnsweredAfterAFailedFlush(t *testing.T) {
	for after := range 12 {
		mem := vfs.NewCrashableMem()
		broken := &brokenFS{FS: mem}
		f := newFixture(t, broken, "data")
		if r := publish1(f.store, to(1, "first", "alice")); r.Err != nil {
			t.Fatal(r.Err)
		}
		broken.left.Store(int64(after))
		broken.arm.Store(true)

		var acked, refused sync.Map
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				for i := range 20 {
					id := 100*(w+1) + i
					if r := publish1(f.store, to(id, fmt.Sprint("key", id), "alice")); r.Err == nil {
						acked.Store(id, true)
					} else if refused.Store(id, true); push.KindOf(r.Err) != push.KindUnavailable {
						t.Errorf("%d: %v", id, r.Err)
					}
				}
			})
		}
		wg.Wait()
		if f.store.Health(context.Background()) == nil {
			t.Fatal("the failure never came, or was not noticed")
		}
		wantAllRefused(t, f.store, &refused)

		// What was answered is there after a power cut; of the rest nothing is known.
		g := newFixture(t, mem.CrashClone(vfs.CrashCloneCfg{}), "data")
		acked.Store(1, true)
		acked.Range(func(id, _ any) bool {
			if _, err := g.store.Message(context.Background(), "shop", push.MsgID(id.(int))); err != nil {
				t.Errorf("%d was answered before the failure and is lost: %v", id, err)
			}
			return true
		})
	}
}

// wantAllRefused checks that a store whose disk failed promises nothing: no new message, no repetition of one whose
// flush failed or of one that succeeded, no recall, no device.
func wantAllRefused(t *testing.T, s *Store, refused *sync.Map) {
	t.Helper()
	ctx := context.Background()
	errs := []error{publish1(s, to(9000, "new", "bob")).Err, publish1(s, to(9001, "first", "alice")).Err}
	refused.Range(func(id, _ any) bool {
		errs = append(errs, publish1(s, to(9002, fmt.Sprint("key", id), "alice")).Err)
		return true
	})
	_, err := s.Recall(ctx, saver.Recall{Product: "shop", Shards: savertest.Shards, ID: 1})
	errs = append(errs, err)
	_, err = s.Open(ctx, saver.Open{UserRef: ref("bob"), Facts: push.DeviceFacts{Device: "phone"}})
	for i, err := range append(errs, err) {
		if err == nil || push.KindOf(err) != push.KindUnavailable {
			t.Errorf("call %d: got %v, want KindUnavailable", i, err)
		}
	}
}

func ref(u push.UserID) saver.UserRef {
	return saver.UserRef{Product: "shop", Shards: savertest.Shards, User: u}
}

// blocked is a store whose flushes wait at a gate.
func blocked(t *testing.T) (*fixture, *gate) {
	g := &gate{}
	f := newFixture(t, &gatedFS{vfs.NewMem(), g}, "data")
	t.Cleanup(g.open) // before the fixture closes
	return f, g
}

// waitVisible waits until a user's own slot holds so many entries, flushed or not.
func (f *fixture) waitVisible(t *testing.T, u push.UserID, want int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		var tail saver.Tail
		if err := f.store.read(&saver.Read{ShardRef: ref(u).Shard(), User: u, MaxEntries: 100, MaxBytes: 1 << 20}, &tail); err != nil {
			t.Fatal(err)
		}
		if len(tail.Entries) >= want {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%d entries, want %d", len(tail.Entries), want)
		}
		runtime.Gosched()
	}
}

func TestPublish_RepeatIsNotAnsweredBeforeTheFirstIsFlushed(t *testing.T) {
	f, g := blocked(t)
	g.shut()
	first, second := make(chan saver.Published, 1), make(chan saver.Published, 1)
	go func() { first <- publish1(f.store, to(1, "key", "alice")) }()
	f.waitVisible(t, "alice", 1)
	go func() { second <- publish1(f.store, to(2, "key", "alice")) }()
	// Somebody who cannot wait gets no answer either.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if r := f.store.Publish(ctx, []*saver.Publication{to(3, "key", "alice")})[0]; push.KindOf(r.Err) != push.KindUnavailable {
		t.Errorf("a repeat was answered before the flush: %+v", r)
	}
	select {
	case r := <-first:
		t.Errorf("answered before the flush: %+v", r)
	case r := <-second:
		t.Errorf("a repeat was answered before the flush: %+v", r)
	default:
	}
	g.open()
	if r := <-first; r.Err != nil || r.Repeated || r.Message.ID != 1 {
		t.Errorf("first: %+v", r)
	}
	if r := <-second; r.Err != nil || !r.Repeated || r.Message.ID != 1 {
		t.Errorf("second: %+v", r)
	}
}

func TestRead_TellsNothingThatIsNotFlushed(t *testing.T) {
	f, g := blocked(t)
	g.shut()
	answered := make(chan saver.Published, 1)
	go func() { answered <- publish1(f.store, to(1, "key", "alice")) }()
	f.waitVisible(t, "alice", 1)
	rs := []saver.Read{{ShardRef: ref("alice").Shard(), User: "alice", MaxEntries: 100, MaxBytes: 1 << 20}}
	impatient, cancel := context.WithCancel(context.Background())
	cancel()
	if tails, err := f.store.Read(impatient, rs); push.KindOf(err) != push.KindUnavailable {
		t.Errorf("a read told of %+v, %v, before it was flushed", tails, err)
	}
	g.open()
	tails, err := f.store.Read(context.Background(), rs) // waits for the flush
	if err != nil || len(tails[0].Entries) != 1 {
		t.Errorf("after the flush a read told of %+v, %v", tails, err)
	}
	if p := <-answered; p.Err != nil {
		t.Error(p.Err)
	}
}

// TestOpen_TellsNoLineageThatIsNotFlushed: a cursor of a lineage that the slot forgot in a loss of power is of an unknown one, and
// everything retained would come again, to a device that had missed nothing.
func TestOpen_TellsNoLineageThatIsNotFlushed(t *testing.T) {
	f, g := blocked(t)
	o := saver.Open{UserRef: ref("alice"), Facts: push.DeviceFacts{Device: "phone"}, Limits: push.Limits{}.WithDefaults()}
	if _, err := f.store.Open(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	g.shut()
	answered := make(chan saver.Published, 1)
	go func() { answered <- publish1(f.store, to(1, "key", "alice")) }()
	f.waitVisible(t, "alice", 1)
	impatient, cancel := context.WithCancel(context.Background())
	cancel()
	if opened, err := f.store.Open(impatient, o); push.KindOf(err) != push.KindUnavailable {
		t.Errorf("a known device was told %+v, %v, before it was flushed", opened, err)
	}
	g.open()
	if _, err := f.store.Open(context.Background(), o); err != nil {
		t.Error(err)
	}
	if p := <-answered; p.Err != nil {
		t.Error(p.Err)
	}
}

// TestPublish_WhoGaveUpWaitingLeavesNoTrap: the outcome is unknown to a publisher whose context ended, but the message
// is there: a repeat must still wait for the flush, and the rooms must learn of it from their logs, since the repeat
// notifies nobody.
func TestPublish_WhoGaveUpWaitingLeavesNoTrap(t *testing.T) {
	f, g := blocked(t)
	f.locator.SetRooms("shop", "alice", "room")
	q := []saver.ChangeQuery{{ShardRef: ref("alice").Shard()}}
	logs, err := f.store.Changes(context.Background(), "room", q)
	if err != nil {
		t.Fatal(err)
	}
	q[0].After = logs[0].Next
	g.shut()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan saver.Published, 1)
	go func() { done <- f.store.Publish(ctx, []*saver.Publication{to(1, "key", "alice")})[0] }()
	f.waitVisible(t, "alice", 1)
	cancel()
	if r := <-done; push.KindOf(r.Err) != push.KindUnavailable || r.Own != nil {
		t.Fatalf("got %+v, want KindUnavailable", r)
	}
	if r := f.store.Publish(ctx, []*saver.Publication{to(2, "key", "alice")})[0]; push.KindOf(r.Err) != push.KindUnavailable {
		t.Errorf("a repeat was answered before the flush: %+v", r)
	}
	g.open()
	if r := publish1(f.store, to(3, "key", "alice")); r.Err != nil || !r.Repeated || r.Message.ID != 1 {
		t.Errorf("the repeat: %+v", r)
	}
	f.waitLogged(t, q, 1)
}

func (f *fixture) waitLogged(t *testing.T, q []saver.ChangeQuery, want int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		logs, err := f.store.Changes(ctx, "room", q)
		if err != nil {
			t.Fatal(err)
		}
		if len(logs[0].Own) == want {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%d changes, want %d", len(logs[0].Own), want)
		}
		runtime.Gosched()
	}
}

func TestRecall_RepeatIsNotAnsweredBeforeTheFirstIsFlushed(t *testing.T) {
	f, g := blocked(t)
	if r := publish1(f.store, to(1, "", "alice")); r.Err != nil {
		t.Fatal(r.Err)
	}
	g.shut()
	recall := saver.Recall{Product: "shop", Shards: savertest.Shards, ID: 1}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		_, err := f.store.Recall(ctx, recall)
		done <- err
	}()
	poll, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	for { // until the recall is visible
		m, err := f.store.Message(poll, "shop", 1)
		if err != nil || poll.Err() != nil {
			t.Fatal(err, poll.Err())
		}
		if m.Recalled != 0 {
			break
		}
		runtime.Gosched()
	}
	cancel()
	if err := <-done; push.KindOf(err) != push.KindUnavailable {
		t.Errorf("got %v, want KindUnavailable", err)
	}
	if _, err := f.store.Recall(ctx, recall); push.KindOf(err) != push.KindUnavailable {
		t.Errorf("a repeat before the flush: %v", err)
	}
	g.open()
	r, err := f.store.Recall(context.Background(), recall)
	if err != nil || r.First {
		t.Errorf("the repeat: first %v, %v", r.First, err)
	}
}

// TestPublish_CrossedKeysDoNotDeadlock: calls that share keys in opposite orders must all come to an end, each key
// stored once.
func TestPublish_CrossedKeysDoNotDeadlock(t *testing.T) {
	f := newFixture(t, vfs.NewMem(), "data")
	const callers, keys = 8, 20
	var wg sync.WaitGroup
	results := make([][]saver.Published, callers)
	for c := range callers {
		wg.Go(func() {
			var ps []*saver.Publication
			for k := range keys {
				if c%2 == 1 {
					k = keys - 1 - k
				}
				// each key twice in the same call, too
				ps = append(ps, to(1+c*1000+2*k, fmt.Sprint("key", k), "alice"), to(2+c*1000+2*k, fmt.Sprint("key", k), "alice"))
			}
			results[c] = f.store.Publish(context.Background(), ps)
		})
	}
	wg.Wait()
	fresh := 0
	for _, rs := range results {
		for _, r := range rs {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
			if !r.Repeated {
				fresh++
			}
		}
	}
	if fresh != keys {
		t.Errorf("%d messages were stored for %d keys", fresh, keys)
	}
	f.waitVisible(t, "alice", keys)
}
