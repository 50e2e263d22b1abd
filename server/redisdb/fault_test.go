package redisdb

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/redistest"
)

// writers are callers that go on until it is stopped. Each write appends its own number to a list of its own, so that one that was
// executed twice shows, and reads that it must not exist.
type writers struct {
	db   *DB
	next atomic.Int64
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex
	done    []int
	unknown []int
	errs    map[string]int
}

func loadKey(n int) (Tag, string) { t := tagOf(n % 50); return t, t.Key("e", name(n)) }

func startLoad(t *testing.T, db *DB, n int) *writers {
	ctx, cancel := context.WithCancel(t.Context())
	l := &writers{db: db, stop: cancel, errs: map[string]int{}}
	for range n {
		l.wg.Go(func() {
			for ctx.Err() == nil {
				n := int(l.next.Add(1))
				tag, key := loadKey(n)
				w := &Write{Tag: tag, Do: []Command{{Name: "RPUSH", Key: key, Args: []any{n}}, tag.Announce("alice", []byte(key))}}
				db.Write(context.WithoutCancel(ctx), w)
				l.mu.Lock()
				var e *push.Error
				switch {
				case w.Err == nil && w.Done:
					l.done = append(l.done, n)
				case errors.As(w.Err, &e) && e.Kind == push.KindUnavailable:
					l.unknown = append(l.unknown, n)
					l.errs[e.Code]++
				default:
					t.Errorf("write %d: done %v, error %v", n, w.Done, w.Err)
				}
				l.mu.Unlock()
			}
		})
	}
	return l
}

func (l *writers) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.done)
}

// more waits until some more writes are done.
func (l *writers) more(t *testing.T, n int) {
	t.Helper()
	from := l.count()
	until(t, "writes are done", func() bool { return l.count() >= from+n })
}

// judge ends the load and wants everything that was called done to be there, and nothing twice.
func (l *writers) judge(t *testing.T) {
	t.Helper()
	l.stop()
	l.wg.Wait()
	count := func(ns []int, want func(int64) bool, what string) {
		for part := range slices.Chunk(ns, 500) {
			var rs []*Read
			for _, n := range part {
				tag, key := loadKey(n)
				rs = append(rs, &Read{Tag: tag, Do: []Command{{Name: "LLEN", Key: key}}})
			}
			l.db.Read(t.Context(), rs...)
			for i, r := range rs {
				if r.Err != nil {
					t.Fatal(r.Err)
				}
				if got := r.Replies[0].(int64); !want(got) {
					t.Errorf("write %d, %s, is there %d times", part[i], what, got)
				}
			}
		}
	}
	count(l.done, func(n int64) bool { return n == 1 }, "which was done")
	count(l.unknown, func(n int64) bool { return n <= 1 }, "whose outcome was unknown")
	t.Logf("%d done, %d unknown: %v", len(l.done), len(l.unknown), l.errs)
}

func replicated(n int) func(*Config) {
	return func(c *Config) { c.Durability, c.Replicas = push.DurabilityReplicated, n }
}

func quick(c *Config) { c.Timeout, c.Patience = time.Second, 300*time.Millisecond }

// patient is for tests that freeze a server themselves, or ask it for more than a busy machine does in a few seconds.
func patient(c *Config) { c.Timeout, c.Patience = time.Minute, time.Minute }

func TestWrite_WhoseReplyIsLostIsUnknownAndNotRepeated(t *testing.T) {
	r := redistest.Standalone(t, redistest.Proxied())
	db := open(t, r, quick)
	node := r.Servers()[0]
	set(t, db, tagOf(1), "warm", "1")
	node.LoseReplies(true)
	var ws []*Write
	for i := range 20 {
		tag := tagOf(1)
		ws = append(ws, &Write{Tag: tag, Do: []Command{{Name: "RPUSH", Key: tag.Key("e", name(i)), Args: []any{i}}}})
	}
	db.Write(t.Context(), ws...)
	for _, w := range ws {
		wantCode(t, w.Err, push.KindUnavailable, "store_unavailable")
	}
	read := &Read{Tag: tagOf(1), Do: []Command{{Name: "GET", Key: tagOf(1).Key("x", "warm")}}}
	db.Read(t.Context(), read)
	wantCode(t, read.Err, push.KindUnavailable, "store_unavailable")
	node.LoseReplies(false)
	until(t, "it answers again", func() bool {
		db.Read(t.Context(), read)
		return read.Err == nil
	})
	for i := range ws {
		if n := node.Client().LLen(t.Context(), tagOf(1).Key("e", name(i))).Val(); n != 1 {
			t.Errorf("write %d was executed %d times", i, n)
		}
	}
}

func TestRestart_NothingThatWasDoneIsLost(t *testing.T) {
	for _, c := range []struct {
		durability push.Durability
		flush      string
		kills      int
	}{
		// A server that flushes now and then answers while it holds writes back, so it takes many kills to hit, or many writers.
		{push.DurabilityProcess, "everysec", 8},
		{push.DurabilityDisk, "always", 3},
	} {
		t.Run(c.flush, func(t *testing.T) {
			r := redistest.Standalone(t, redistest.AppendFsync(c.flush))
			db := open(t, r, func(config *Config) { config.Durability = c.durability })
			l := startLoad(t, db, 64)
			for range c.kills {
				l.more(t, 2000)
				r.Servers()[0].Kill()
				if err := r.Servers()[0].Restart(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			l.more(t, 200)
			l.judge(t)
		})
	}
}

func TestFailover_WhatWasReplicatedIsThere(t *testing.T) {
	for _, c := range []struct {
		form     redistest.Form
		start    func(testing.TB, ...redistest.Option) *redistest.Redis
		replicas int
	}{
		{redistest.FormSentinel, redistest.Sentinel, 2},
		{redistest.FormCluster, redistest.Cluster, 1},
	} {
		t.Run(string(c.form), func(t *testing.T) {
			t.Parallel()
			r := c.start(t, redistest.DownAfter(time.Second))
			db := open(t, r, replicated(c.replicas))
			l := startLoad(t, db, 16)
			l.more(t, 300)
			ps, err := r.Primaries(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			old := ps[0]
			if _, err := r.Crash(t.Context(), old); err != nil {
				t.Fatal(err)
			}
			if err := old.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := r.Await(t.Context()); err != nil {
				t.Fatal(err)
			}
			l.more(t, 300)
			ps, err = r.Primaries(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.Failover(t.Context(), ps[0]); err != nil { // in peace, and the other way round
				t.Fatal(err)
			}
			if err := r.Await(t.Context()); err != nil {
				t.Fatal(err)
			}
			l.more(t, 300)
			l.judge(t)
			if err := db.Health(t.Context()); err != nil {
				until(t, "it is healthy", func() bool { return db.Health(t.Context()) == nil })
			}
		})
	}
}

func TestWait_ShortOfReplicasIsUnknown(t *testing.T) {
	r := redistest.Replicated(t)
	db := open(t, r, replicated(2), quick)
	tag := tagOf(1)
	set(t, db, tag, "a", "1")
	frozen := r.Servers()[2]
	if err := frozen.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	w := &Write{Tag: tag, Do: []Command{{Name: "SET", Key: tag.Key("x", "a"), Args: []any{"2"}}}}
	conflict := &Write{Tag: tag, If: []Condition{IfValue(tag.Key("x", "a"), nil)}, Do: w.Do}
	db.Write(t.Context(), w, conflict)
	wantCode(t, w.Err, push.KindUnavailable, "store_short")
	if got := w.Err.Error(); !strings.Contains(got, "1 of the 2 replicas") {
		t.Errorf("the error says %q", got)
	}
	if w.Done {
		t.Error("it is called done")
	}
	if conflict.Done || conflict.Err != nil {
		t.Errorf("what was not done needs no replica: %v", conflict.Err)
	}
	kept := &Read{Tag: tag, Kept: true, Do: []Command{{Name: "GET", Key: tag.Key("x", "a")}}}
	db.Read(t.Context(), kept)
	wantCode(t, kept.Err, push.KindUnavailable, "store_short")
	lax := &Write{Tag: tag, Lax: true, Do: []Command{{Name: "GET", Key: tag.Key("x", "a"), Tell: true}}}
	if db.Write(t.Context(), lax); !lax.Done || lax.Replies[0] != "2" {
		t.Errorf("a lax write: done %v, error %v, replies %v", lax.Done, lax.Err, lax.Replies)
	}
	if got := get(t, db, tag, "a"); got != "2" {
		t.Errorf("a read that nobody is told of gives %v", got)
	}
	if err := frozen.Thaw(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "replicas are in step", func() bool {
		db.Read(t.Context(), kept)
		return kept.Err == nil
	})
	set(t, db, tag, "a", "3")
}

func TestSlot_MovesUnderLoad(t *testing.T) {
	r := redistest.Cluster(t)
	db := open(t, r)
	for i := range 50 {
		signIn(t, db, tagOf(i), "alice", "r1")
	}
	l := startLoad(t, db, 8)
	l.more(t, 500)
	moved := 0
	for i := range 50 {
		slot := tagOf(i).slot()
		from, err := r.MasterOf(t.Context(), slot)
		if err != nil {
			t.Fatal(err)
		}
		masters, err := r.Masters(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		to := masters[(slices.Index(masters, from)+1)%len(masters)]
		if to == from {
			continue
		}
		if err := r.MoveSlot(t.Context(), slot, to); err != nil {
			t.Fatal(err)
		}
		if moved++; moved == 8 {
			break
		}
	}
	l.more(t, 500)
	l.judge(t)
	if len(l.unknown) > 0 {
		t.Errorf("%d writes failed although nothing but slots moved", len(l.unknown))
	}
	for i := range 50 {
		want := 0
		l.mu.Lock()
		for _, d := range l.done {
			if d%50 == i {
				want++
			}
		}
		l.mu.Unlock()
		if got, _, trimmed := sinceOf(t, db, tagOf(i), "r1", 0); len(got) != min(want, ChangesKept) && !trimmed {
			t.Errorf("the log of %d tells %d changes of %d", i, len(got), want)
		}
	}
}

func TestSlot_OnItsWayServesWhatHasArrived(t *testing.T) {
	r := redistest.Cluster(t)
	db := open(t, r)
	tag := tagOf(3)
	for i := range 40 {
		set(t, db, tag, name(i), "1")
	}
	from, err := r.MasterOf(t.Context(), tag.slot())
	if err != nil {
		t.Fatal(err)
	}
	masters, err := r.Masters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	to := masters[(slices.Index(masters, from)+1)%len(masters)]
	move, err := r.BeginMove(t.Context(), tag.slot(), to)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := move.Keys(t.Context(), 20); err != nil || n != 20 {
		t.Fatalf("%d keys moved, error %v", n, err)
	}
	var here, there []string
	for i := range 40 {
		key := tag.Key("x", name(i))
		if get(t, db, tag, name(i)) != "1" {
			t.Errorf("%s is not found while its slot moves", name(i))
		}
		peek := &Read{Tag: tag, Do: []Command{{Name: "GET", Key: key}, {Name: "EXISTS", Key: key}}}
		lists := &Read{Tag: tag, Texts: true, Do: []Command{{Name: "MGET", Key: key}}}
		db.Peek(t.Context(), peek, lists)
		if peek.Err != nil || peek.Replies[0] != "1" {
			t.Errorf("%s is not found by plain commands while its slot moves: %v", name(i), peek.Err)
		}
		if lists.Err != nil || !reflect.DeepEqual(lists.Replies, []any{[]string{"1"}}) {
			t.Errorf("%s is not found in a list while its slot moves: %v, error %v", name(i), lists.Replies, lists.Err)
		}
		n, err := from.Client().Exists(t.Context(), key).Result()
		if err == nil && n == 1 {
			here = append(here, name(i))
		} else {
			there = append(there, name(i))
		}
	}
	if len(here) == 0 || len(there) == 0 {
		t.Fatalf("%d keys have not moved, %d have", len(here), len(there))
	}
	set(t, db, tag, there[0], "2") // has arrived
	// A key that is gone for a moment would be taken for one that has moved, in the middle of the write.
	waiting := &Write{Tag: tag, Do: []Command{
		{Name: "DEL", Key: tag.Key("x", here[0])}, {Name: "SET", Key: tag.Key("x", here[0]), Args: []any{"2"}}}}
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		db.Write(t.Context(), waiting)
	}()
	if err := move.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-finished
	if !waiting.Done || waiting.Err != nil {
		t.Errorf("a write that waited for the move: done %v, error %v", waiting.Done, waiting.Err)
	}
	for _, n := range []string{here[0], there[0]} {
		if got := get(t, db, tag, n); got != "2" {
			t.Errorf("%s is %v after the move", n, got)
		}
	}
}

func TestFull_TakesOnlyWhatFrees(t *testing.T) {
	r := redistest.Standalone(t)
	db := open(t, r)
	tag := tagOf(1)
	set(t, db, tag, "big", strings.Repeat("x", 8<<20))
	grow := func(frees bool) *Write {
		w := &Write{Tag: tag, Frees: frees, Do: []Command{{Name: "SET", Key: tag.Key("x", "small"), Args: []any{"1"}}}}
		db.Write(t.Context(), w)
		return w
	}
	if err := r.Fill(t.Context(), 104); err != nil {
		t.Fatal(err)
	}
	wantCode(t, grow(false).Err, push.KindUnavailable, "store_full")
	if !db.Full() {
		t.Error("it does not say that it is full")
	}
	if w := grow(true); !w.Done || w.Err != nil {
		t.Errorf("what frees: done %v, error %v", w.Done, w.Err)
	}
	if err := db.Health(t.Context()); err != nil {
		t.Errorf("a full store is not healthy: %v", err)
	}
	// Below the limit, and above nine tenths of it, Redis would take it.
	if err := r.Fill(t.Context(), 95); err != nil {
		t.Fatal(err)
	}
	before := db.all()[0].standing.Load()
	until(t, "it was looked at", func() bool { return db.all()[0].standing.Load() != before })
	wantCode(t, grow(false).Err, push.KindUnavailable, "store_full")
	if w := grow(true); !w.Done {
		t.Errorf("what frees: %v", w.Err)
	}
	if get(t, db, tag, "small") != "1" {
		t.Error("a full store is not read")
	}
	if err := r.Unfill(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "it has room again", func() bool { return grow(false).Done })
}

func TestFunctions_AreLoadedAgainWhenTheyAreGone(t *testing.T) {
	everyForm(t, func(t *testing.T, r *redistest.Redis) {
		db := open(t, r)
		l := startLoad(t, db, 8)
		for range 5 {
			l.more(t, 50)
			ps, err := r.Primaries(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range ps {
				if err := p.Client().FunctionFlush(t.Context()).Err(); err != nil {
					t.Fatal(err)
				}
			}
		}
		l.more(t, 50)
		l.judge(t)
		if len(l.unknown) > 0 {
			t.Errorf("%d writes failed", len(l.unknown))
		}
	})
}

func TestFunctions_OfTwoBuildsLiveSideBySide(t *testing.T) {
	r := pool.Standalone(t)
	db := open(t, r)
	other := strings.ReplaceAll(strings.ReplaceAll(source, "VERSION", "other"), "'!'", "'!!'")
	if err := r.Servers()[0].Client().FunctionLoad(t.Context(), other).Err(); err != nil {
		t.Fatal(err)
	}
	set(t, db, tagOf(1), "a", "1")
	libs, err := r.Servers()[0].Client().FunctionList(t.Context(), redisLibraries).Result()
	if err != nil || len(libs) != 2 {
		t.Errorf("%d libraries, error %v", len(libs), err)
	}
}

func TestReplica_IsNeitherReadNorWritten(t *testing.T) {
	r := redistest.Standalone(t)
	db := open(t, r, quick)
	tag := tagOf(1)
	was := set(t, db, tag, "a", "1")
	node := r.Servers()[0]
	before := db.all()[0]
	if err := node.ReadOnly(t.Context()); err != nil {
		t.Fatal(err)
	}
	w := &Write{Tag: tag, Do: []Command{{Name: "SET", Key: tag.Key("x", "a"), Args: []any{"2"}}}}
	read := &Read{Tag: tag, Do: []Command{{Name: "GET", Key: tag.Key("x", "a")}}}
	peek := &Read{Tag: tag, Do: read.Do}
	db.Write(t.Context(), w)
	db.Read(t.Context(), read)
	db.Peek(t.Context(), peek)
	for _, err := range []error{w.Err, read.Err, peek.Err} {
		wantCode(t, err, push.KindUnavailable, "store_unavailable")
	}
	if db.all()[0] == before {
		t.Error("it goes on with the connections that it had, wherever the name leads now")
	}
	until(t, "it is not healthy", func() bool { return db.Health(t.Context()) != nil })
	if err := node.Writable(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "it is healthy", func() bool { return db.Health(t.Context()) == nil })
	old := &Write{Tag: tag, Under: was.Lineage, Do: w.Do}
	if db.Write(t.Context(), old); old.Done || old.Err != nil || old.Lineage == was.Lineage {
		t.Errorf("what was made under the lineage before: done %v, error %v", old.Done, old.Err)
	}
	set(t, db, tag, "a", "2")
}

func TestNobody_AnswersAndIsNotWaitedForTwice(t *testing.T) {
	r := redistest.Standalone(t)
	db := open(t, r, quick)
	l := startLoad(t, db, 4)
	l.more(t, 50)
	r.Servers()[0].Kill()
	until(t, "it is given up", func() bool { return db.all()[0].isDown() })
	w, read := &Write{Tag: tagOf(1)}, &Read{Tag: tagOf(1)}
	db.Write(t.Context(), w)
	db.Read(t.Context(), read)
	wantCode(t, w.Err, push.KindUnavailable, "store_unavailable")
	wantCode(t, read.Err, push.KindUnavailable, "store_unavailable")
	if !errors.Is(w.Err, errDown) {
		t.Errorf("somebody waited for it again: %v", w.Err)
	}
	wantCode(t, db.Health(t.Context()), push.KindUnavailable, "store_unavailable")
	if err := r.Servers()[0].Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.more(t, 50)
	l.stop()
	l.wg.Wait()
	until(t, "it is healthy", func() bool { return db.Health(t.Context()) == nil })
}

func TestContext_EndsTheWaitingAlone(t *testing.T) {
	r := redistest.Standalone(t)
	db := open(t, r, patient)
	tag := tagOf(1)
	set(t, db, tag, "a", "0")
	lane := db.laneOf(&unit{tag: tag, class: classWrite})
	until(t, "nothing is under way any more", func() bool {
		lane.mu.Lock()
		defer lane.mu.Unlock()
		return !lane.running
	})
	node := r.Servers()[0]
	if err := node.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	first := &Write{Tag: tag, Do: []Command{{Name: "SET", Key: tag.Key("x", "a"), Args: []any{"1"}}}}
	var wg sync.WaitGroup
	wg.Go(func() { db.Write(ctx, first) })
	until(t, "the first write is under way", func() bool {
		lane.mu.Lock()
		defer lane.mu.Unlock()
		return lane.running && len(lane.waiting) == 0
	})
	waits := &Write{Tag: tag, Do: []Command{{Name: "RPUSH", Key: tag.Key("e", "a"), Args: []any{"1"}}}}
	wg.Go(func() { db.Write(ctx, waits) })
	stays := &Write{Tag: tag, Do: []Command{{Name: "RPUSH", Key: tag.Key("e", "b"), Args: []any{"1"}}}}
	var stayed sync.WaitGroup
	stayed.Go(func() { db.Write(t.Context(), stays) })
	until(t, "two more wait", func() bool {
		lane.mu.Lock()
		defer lane.mu.Unlock()
		return len(lane.waiting) == 2
	})
	why := errors.New("alice hung up")
	cancel(why)
	wg.Wait()
	for _, w := range []*Write{first, waits} {
		wantCode(t, w.Err, push.KindUnavailable, "store_unavailable")
		if !errors.Is(w.Err, why) {
			t.Errorf("the error does not say why: %v", w.Err)
		}
	}
	*first, *waits = Write{}, Write{} // theirs again
	if err := node.Thaw(t.Context()); err != nil {
		t.Fatal(err)
	}
	stayed.Wait()
	if !stays.Done || stays.Err != nil {
		t.Errorf("who went on waiting: done %v, error %v", stays.Done, stays.Err)
	}
	if got := get(t, db, tag, "a"); got != "1" {
		t.Errorf("what was under way is %v", got)
	}
	if n := node.Client().Exists(t.Context(), tag.Key("e", "a")).Val(); n != 0 {
		t.Error("what nobody waited for any more was sent")
	}
}

func TestLane_SendsWhatWaitsTogether(t *testing.T) {
	r := redistest.Standalone(t)
	reg := newCounts()
	db := open(t, r, patient, func(c *Config) { c.Metrics = NewMetrics(reg) })
	set(t, db, tagOf(1), "warm", "1")
	node := r.Servers()[0]
	if err := node.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	lanes := db.all()[0].lanes[classWrite]
	var wg sync.WaitGroup
	write := func(i int) {
		wg.Go(func() {
			w := &Write{Tag: tagOf(i % 64), Do: []Command{{Name: "SET", Key: tagOf(i%64).Key("x", name(i)), Args: []any{i}}}}
			if db.Write(t.Context(), w); !w.Done {
				t.Errorf("done %v, error %v", w.Done, w.Err)
			}
		})
	}
	waiting := func() (n int, busy bool) {
		busy = true
		for _, l := range lanes {
			l.mu.Lock()
			n += len(l.waiting)
			busy = busy && l.running
			l.mu.Unlock()
		}
		return n, busy
	}
	for i := range 64 {
		write(i)
	}
	until(t, "every lane has a pipeline under way", func() bool {
		_, busy := waiting()
		return busy
	})
	before := reg.count(t, "carillon_redis_pipeline_units", "write")
	const writers = 400
	for i := range writers {
		write(64 + i)
	}
	until(t, "they wait", func() bool {
		n, _ := waiting()
		return n >= writers
	})
	if err := node.Thaw(t.Context()); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if got := reg.count(t, "carillon_redis_pipeline_units", "write") - before; got > writers/4 {
		t.Errorf("%d writes took %d pipelines", writers, got)
	}
}

func TestLane_RefusesMoreThanMayWait(t *testing.T) {
	r := redistest.Standalone(t)
	db := open(t, r, patient)
	tag := tagOf(1)
	set(t, db, tag, "warm", "1")
	if err := r.Servers()[0].Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	const size = 8 << 20
	big := strings.Repeat("x", size)
	write := func(i int) *Write {
		w := &Write{Tag: tag, Do: []Command{{Name: "SET", Key: tag.Key("x", name(i)), Args: []any{big}}}}
		db.Write(t.Context(), w)
		return w
	}
	var wg sync.WaitGroup
	taken := func(i int) {
		wg.Go(func() {
			if w := write(i); !w.Done || w.Err != nil {
				t.Errorf("what may wait: done %v, error %v", w.Done, w.Err)
			}
		})
	}
	lane := db.laneOf(&unit{tag: tag, class: classWrite})
	holds := func(enough func() bool) func() bool {
		return func() bool {
			lane.mu.Lock()
			defer lane.mu.Unlock()
			return enough()
		}
	}
	until(t, "nothing is under way any more", holds(func() bool { return !lane.running }))
	taken(0)
	until(t, "one is under way", holds(func() bool { return lane.running && lane.bytes == 0 }))
	for i := 1; i < laneBytes/size; i++ { // a command is a little more than its value: one more would be too much
		taken(i)
	}
	until(t, "the lane is full", holds(func() bool { return lane.bytes+size > laneBytes }))
	wantCode(t, write(100).Err, push.KindUnavailable, "store_busy")
	if err := r.Servers()[0].Thaw(t.Context()); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if w := write(101); !w.Done {
		t.Errorf("it does not go on: %v", w.Err)
	}
}
