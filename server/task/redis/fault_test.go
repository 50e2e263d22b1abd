package redis

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"carillon/server/clock/clocktest"
	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/redisdb/redisdbtest"
	"carillon/server/redistest"
	"carillon/server/task"
)

// trouble is a database one of whose calls fails.
type trouble struct {
	database
	at    int  // the number of the call that fails; 0: none
	lost  bool // it is executed, and its reply is lost
	calls int
	units []int // of each call
	kept  bool  // the last read was answered as a write is
	bare  int   // writes that rely on what was read, and not on its lineage
}

func (d *trouble) next(units int) (fails bool) {
	d.calls++
	d.units = append(d.units, units)
	return d.calls == d.at
}

func errLost() error {
	return &push.Error{Kind: push.KindUnavailable, Code: "store_unavailable", Err: context.DeadlineExceeded}
}

func (d *trouble) Read(ctx context.Context, rs ...*redisdb.Read) {
	fails := d.next(len(rs))
	d.kept = rs[0].Kept
	if d.database.Read(ctx, rs...); fails {
		for _, r := range rs {
			r.Replies, r.Answer = nil, redisdb.Answer{Err: errLost()}
		}
	}
}

func (d *trouble) Write(ctx context.Context, ws ...*redisdb.Write) {
	fails := d.next(len(ws))
	for _, w := range ws {
		if len(w.If) > 0 && w.Under == 0 {
			d.bare++
		}
	}
	if !fails || d.lost {
		d.database.Write(ctx, ws...)
	}
	if fails {
		for _, w := range ws {
			w.Done, w.Replies, w.Answer = false, nil, redisdb.Answer{Err: errLost()}
		}
	}
}

const shop push.ProductID = "shop"

// broken returns a store over a database that fails when it is told to.
func broken(t *testing.T) (*Store, *trouble, *redistest.Redis) {
	t.Helper()
	of := pool.Standalone(t)
	t.Cleanup(func() { audit(t, of) })
	s := open(t, redisdbtest.Open(t, of, clocktest.New()))
	d := &trouble{database: s.db}
	s.db = d
	t.Cleanup(func() {
		if d.bare > 0 {
			t.Errorf("%d writes were made under any lineage", d.bare)
		}
	})
	return s, d, of
}

func chunks(shards, each int) (cs []task.Chunk) {
	for s := range shards {
		for n := range each {
			cs = append(cs, task.Chunk{Shard: push.Shard(s), Number: n, Entries: []task.Entry{{User: push.UserID(fmt.Sprint(s, "-", n))}}})
		}
	}
	return cs
}

func whole(id push.MsgID, shards, each int) task.List {
	return task.List{Product: shop, ID: id, Shards: shards, Chunks: slices.Repeat(task.Progress{uint32(each)}, shards)}
}

// TestStore_WhateverCallFailsTheSameAgainSucceeds has each call to Redis of each operation fail, before it is executed and after, and makes the operation
// again, as whoever does not know has to.
func TestStore_WhateverCallFailsTheSameAgainSucceeds(t *testing.T) {
	ref := task.ListRef{Product: shop, ID: 5}
	given := task.Task{Product: shop, ID: 1, State: task.Running, Wake: 7}
	create := func(ctx context.Context, s *Store) error {
		_, _, err := s.Create(ctx, given, task.Key{Name: "k"})
		return err
	}
	stop := func(ctx context.Context, s *Store) error {
		_, err := s.Update(ctx, shop, 1, func(u *task.Task, now push.MilliTime) error {
			if u.State == task.Stopped {
				return task.ErrUnchanged
			}
			return u.Do(task.Stop, nil, "", now)
		})
		return err
	}
	put := func(ctx context.Context, s *Store) error { return s.PutChunks(ctx, ref, chunks(3, 2)) }
	createList := func(ctx context.Context, s *Store) error {
		_, err := s.CreateList(ctx, whole(5, 3, 2))
		return err
	}
	listIs := func(there bool) func(ctx context.Context, s *Store) error {
		return func(ctx context.Context, s *Store) error {
			_, err := s.List(ctx, ref)
			if (err == nil) != there || err != nil && push.KindOf(err) != push.KindNotFound {
				return fmt.Errorf("the list: %w", err)
			}
			cs, err := s.Chunks(ctx, ref, 2, 0, 9)
			if err != nil || (len(cs) == 2) != there {
				return fmt.Errorf("%d chunks: %w", len(cs), err)
			}
			return nil
		}
	}
	type operation = func(ctx context.Context, s *Store) error
	for _, test := range []struct {
		name   string
		before []operation
		do     operation
		calls  int // that it makes
		holds  operation
	}{
		{"Create", nil, create, 2, func(ctx context.Context, s *Store) error {
			page, err := s.Tasks(ctx, task.Query{Product: shop, Limit: 9})
			if err != nil || len(page.Tasks) != 1 || page.Tasks[0].Revision != 1 {
				return fmt.Errorf("tasks: %+v, %w", page, err)
			}
			return nil
		}},
		{"CreateAlready", []operation{create}, create, 2, func(context.Context, *Store) error { return nil }},
		{"Update", []operation{create}, stop, 2, func(ctx context.Context, s *Store) error {
			u, err := s.Task(ctx, shop, 1)
			if err != nil || u.State != task.Stopped || u.Revision != 2 || len(u.Moves) != 1 {
				return fmt.Errorf("the task: %+v, %w", u, err)
			}
			return nil
		}},
		{"UpdateAlready", []operation{create, stop}, stop, 2, func(context.Context, *Store) error { return nil }},
		{"Delete", []operation{create, stop}, func(ctx context.Context, s *Store) error {
			_, err := s.Delete(ctx, shop, 1)
			return err
		}, 2, func(ctx context.Context, s *Store) error {
			if _, err := s.Task(ctx, shop, 1); push.KindOf(err) != push.KindNotFound {
				return fmt.Errorf("the task: %w", err)
			}
			return nil
		}},
		{"SetSwitch", nil, func(ctx context.Context, s *Store) error { return s.SetSwitch(ctx, shop, task.Switch{Off: true}) }, 1,
			func(ctx context.Context, s *Store) error {
				if is, err := s.Switch(ctx, shop); err != nil || !is.Off {
					return fmt.Errorf("the switch: %+v, %w", is, err)
				}
				return nil
			}},
		{"PutChunks", nil, put, 1, func(ctx context.Context, s *Store) error { return createList(ctx, s) }},
		{"CreateList", []operation{put}, createList, 3, listIs(true)},
		{"KeepList", []operation{put, createList}, func(ctx context.Context, s *Store) error { return s.KeepList(ctx, ref) }, 3, listIs(true)},
		{"DeleteList", []operation{put, createList}, func(ctx context.Context, s *Store) error {
			_, err := s.DeleteList(ctx, ref)
			return err
		}, 3, func(ctx context.Context, s *Store) error {
			if _, err := s.List(ctx, ref); push.KindOf(err) != push.KindNotFound {
				return fmt.Errorf("the list: %w", err)
			}
			return nil
		}},
		{"Sweep", []operation{func(ctx context.Context, s *Store) error {
			_, _, err := s.Create(ctx, task.Task{Product: shop, ID: 9, State: task.Completed, Changed: 1}, task.Key{})
			return err
		}}, func(ctx context.Context, s *Store) error {
			_, err := s.Sweep(ctx)
			return err
		}, 3, func(ctx context.Context, s *Store) error {
			if _, err := s.Task(ctx, shop, 9); push.KindOf(err) != push.KindNotFound {
				return fmt.Errorf("the task: %w", err)
			}
			return nil
		}},
	} {
		for at := range test.calls + 1 {
			for _, lost := range []bool{false, true} {
				t.Run(fmt.Sprint(test.name, "/", at, "/", lost), func(t *testing.T) {
					s, d, _ := broken(t)
					ctx := t.Context()
					for _, before := range test.before {
						if err := before(ctx, s); err != nil {
							t.Fatal(err)
						}
					}
					d.calls, d.at, d.lost = 0, at, lost
					err := test.do(ctx, s)
					if at == 0 {
						if err != nil || d.calls != test.calls {
							t.Fatalf("%v after %d calls, want %d", err, d.calls, test.calls)
						}
						if changes := !strings.HasSuffix(test.name, "Already"); d.kept == changes {
							t.Errorf("the last read was kept: %v", d.kept)
						}
					} else if push.KindOf(err) != push.KindUnavailable || err == nil || d.calls != at {
						t.Fatalf("call %d fails: %v after %d calls", at, err, d.calls)
					}
					d.at = 0
					if err := test.do(ctx, s); err != nil {
						t.Errorf("again: %v", err)
					}
					if err := test.holds(ctx, s); err != nil {
						t.Error(err)
					}
				})
			}
		}
	}
}

// TestCount_IsNeverRepeated loses what is said of counts: they stand there once, or not at all.
func TestCount_IsNeverRepeated(t *testing.T) {
	s, d, _ := broken(t)
	ctx := t.Context()
	if _, _, err := s.Create(ctx, task.Task{Product: shop, ID: 1}, task.Key{}); err != nil {
		t.Fatal(err)
	}
	life := task.Life{Room: "r", Boot: 1}
	count := func() error {
		return s.Count(ctx, []task.Counted{{Product: shop, Task: 1, Life: life, Counts: task.Counts{1}}})
	}
	for i, test := range []struct {
		lost bool
		want int64
	}{{false, 0}, {true, 1}, {false, 1}, {true, 2}} {
		d.calls, d.at, d.lost = 0, 1, test.lost
		if err := count(); push.KindOf(err) != push.KindUnavailable || task.NotCounted(err) || d.calls != 1 {
			t.Errorf("lost: %v after %d calls", err, d.calls)
		}
		d.at = 0
		all, err := s.Counts(ctx, shop, 1)
		if err != nil || all[life][0] != test.want {
			t.Errorf("%d: counted %v, %v, want %d", i, all, err, test.want)
		}
	}
	if !task.NotCounted(&push.Error{Kind: push.KindUnavailable, Code: "store_full"}) || task.NotCounted(errors.New("x")) {
		t.Error("a full store has counted")
	}
}

// TestRoundTrips holds calls to how often they ask Redis, however much they are for.
func TestRoundTrips(t *testing.T) {
	s, d, _ := broken(t)
	ctx := t.Context()
	want := func(what string, calls int, do func() error) {
		t.Helper()
		d.calls, d.units = 0, nil
		if err := do(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if d.calls != calls {
			t.Errorf("%s: %d round trips, want %d", what, d.calls, calls)
		}
	}
	ref := task.ListRef{Product: shop, ID: 5}
	want("200 chunks", 1, func() error { return s.PutChunks(ctx, ref, chunks(100, 2)) })
	if !reflect.DeepEqual(d.units, []int{100}) {
		t.Errorf("200 chunks of 100 shards are %d steps", d.units)
	}
	want("a list of 1024 shards", 1, func() error { return s.PutChunks(ctx, ref, chunks(1024, 2)) })
	long := task.Entry{User: "alice", Values: []string{strings.Repeat("x", task.MaxVariableBytes)}}
	var large []task.Chunk
	for n := range 8 { // 2 MB of one shard
		large = append(large, task.Chunk{Shard: 7, Number: n, Entries: slices.Repeat([]task.Entry{long}, task.ChunkMost)})
	}
	want("large chunks", 1, func() error { return s.PutChunks(ctx, task.ListRef{Product: shop, ID: 6}, large) })
	if !reflect.DeepEqual(d.units, []int{3}) {
		t.Errorf("2 MB of one shard are %d steps", d.units)
	}
	want("its creation", 3, func() error { _, err := s.CreateList(ctx, whole(5, 1024, 2)); return err })
	want("its life", 3, func() error { return s.KeepList(ctx, ref) })
	want("a part of it", 1, func() error { _, err := s.Chunks(ctx, ref, 3, 0, 1000); return err })
	want("its end", 3, func() error { _, err := s.DeleteList(ctx, ref); return err })
	for i := range push.MsgID(50) {
		if _, _, err := s.Create(ctx, task.Task{Product: shop, ID: i + 1, State: task.Scheduled, Wake: 1}, task.Key{}); err != nil {
			t.Fatal(err)
		}
	}
	want("a task", 1, func() error { _, err := s.Task(ctx, shop, 1); return err })
	want("a page", 2, func() error { _, err := s.Tasks(ctx, task.Query{Product: shop, Limit: 50}); return err })
	want("a filtered page", 2, func() error {
		_, err := s.Tasks(ctx, task.Query{Product: shop, Limit: 50, States: []task.State{task.Failed}})
		return err
	})
	want("an update", 2, func() error {
		_, err := s.Update(ctx, shop, 1, func(*task.Task, push.MilliTime) error { return nil })
		return err
	})
	want("what is due", 1, func() error { _, _, err := s.Due(ctx, 50); return err })
	var cs []task.Counted
	for i := range push.MsgID(50) {
		cs = append(cs, task.Counted{Product: shop, Task: i + 1, Counts: task.Counts{1, 2, 3, 4, 5, 6}})
	}
	want("counts of 50 tasks", 1, func() error { return s.Count(ctx, cs) })
	if !reflect.DeepEqual(d.units, []int{1}) {
		t.Errorf("counts of 50 tasks are %d steps", d.units)
	}
	want("counts of one", 1, func() error { _, err := s.Counts(ctx, shop, 1); return err })
}

// TestKeepList_SaysThatAListLostChunks takes a shard's chunks away, as a failover may.
func TestKeepList_SaysThatAListLostChunks(t *testing.T) {
	s, _, of := broken(t)
	ctx := t.Context()
	ref := task.ListRef{Product: shop, ID: 5}
	if err := s.PutChunks(ctx, ref, chunks(3, 2)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateList(ctx, whole(5, 3, 2)); err != nil {
		t.Fatal(err)
	}
	_, key := shardKey(ref, 1)
	if err := of.Servers()[0].Client().HDel(ctx, key, "1").Err(); err != nil {
		t.Fatal(err)
	}
	var e *push.Error
	if err := s.KeepList(ctx, ref); !errors.As(err, &e) || e.Code != "list_incomplete" {
		t.Errorf("got %v, want list_incomplete", err)
	}
}

// TestChunks_LiveOnWithTheirList looks at when chunks expire: at an upload, and when their list is made and kept.
func TestChunks_LiveOnWithTheirList(t *testing.T) {
	s, _, of := broken(t)
	ctx, c := t.Context(), of.Servers()[0].Client()
	ref := task.ListRef{Product: shop, ID: 5}
	_, key := shardKey(ref, 0)
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"uploaded", func() error { return s.PutChunks(ctx, ref, chunks(1, 1)) }},
		{"made", func() error { _, err := s.CreateList(ctx, whole(5, 1, 1)); return err }},
		{"kept", func() error { return s.KeepList(ctx, ref) }},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if life := c.PTTL(ctx, key).Val(); life < task.ListKept+chunkSlack-time.Minute {
			t.Errorf("%s: expires in %v", step.name, life)
		}
		c.PExpire(ctx, key, time.Hour) // as if time had passed
	}
	c.PExpire(ctx, key, task.ListKept+chunkSlack)
}

// TestStore_WithoutAClockGoesByTheServers takes the time of Redis itself.
func TestStore_WithoutAClockGoesByTheServers(t *testing.T) {
	of := pool.Standalone(t)
	s := open(t, redisdbtest.Open(t, of, nil))
	before := push.Milli(time.Now())
	made, _, err := s.Create(t.Context(), task.Task{Product: shop, ID: 1, State: task.Scheduled, Wake: before}, task.Key{})
	if err != nil {
		t.Fatal(err)
	}
	due, now, err := s.Due(t.Context(), 9)
	after := push.Milli(time.Now())
	if err != nil || len(due) != 1 || made.Created < before || now < made.Created || now > after {
		t.Errorf("made at %d, due %v at %d (%v); want between %d and %d", made.Created, due, now, err, before, after)
	}
}

// TestFull_TasksCanBeStoppedAndNoneAreMade fills Redis.
func TestFull_TasksCanBeStoppedAndNoneAreMade(t *testing.T) {
	of := redistest.Standalone(t, redistest.MaxMemory(1<<30))
	s := open(t, redisdbtest.Open(t, of, nil))
	ctx := t.Context()
	ref := task.ListRef{Product: shop, ID: 5}
	if _, _, err := s.Create(ctx, task.Task{Product: shop, ID: 1, State: task.Running}, task.Key{}); err != nil {
		t.Fatal(err)
	}
	if err := s.PutChunks(ctx, ref, chunks(64, 20)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateList(ctx, whole(5, 64, 20)); err != nil {
		t.Fatal(err)
	}
	if err := of.Fill(ctx, 105); err != nil {
		t.Fatal(err)
	}
	full := func(name string, err error) {
		t.Helper()
		var e *push.Error
		if !errors.As(err, &e) || e.Kind != push.KindUnavailable || e.Code != "store_full" {
			t.Errorf("%s: %v, want store_full", name, err)
		}
	}
	_, _, err := s.Create(ctx, task.Task{Product: shop, ID: 2}, task.Key{})
	full("Create", err)
	full("PutChunks", s.PutChunks(ctx, ref, chunks(1, 1)))
	err = s.Count(ctx, []task.Counted{{Product: shop, Task: 1, Counts: task.Counts{1}}})
	full("Count", err)
	if !task.NotCounted(err) {
		t.Errorf("%v says that something was counted", err)
	}
	if err := s.SetSwitch(ctx, shop, task.Switch{Off: true, Reason: strings.Repeat("x", task.MaxReason)}); err != nil {
		t.Errorf("SetSwitch: %v", err)
	}
	if _, err := s.Update(ctx, shop, 1, func(u *task.Task, now push.MilliTime) error { return u.Do(task.Stop, nil, "", now) }); err != nil {
		t.Errorf("Update: %v", err)
	}
	if err := s.KeepList(ctx, ref); err != nil {
		t.Errorf("KeepList: %v", err)
	}
	if there, err := s.DeleteList(ctx, ref); err != nil || !there {
		t.Errorf("DeleteList: %v, %v", there, err)
	}
	if there, err := s.Delete(ctx, shop, 1); err != nil || !there {
		t.Errorf("Delete: %v, %v", there, err)
	}
}

// TestStore_ServerThatWasKilledKeepsWhatWasAnswered kills Redis right after the answers.
func TestStore_ServerThatWasKilledKeepsWhatWasAnswered(t *testing.T) {
	of := redistest.Standalone(t)
	s := open(t, redisdbtest.Open(t, of, nil))
	ctx := t.Context()
	ref := task.ListRef{Product: shop, ID: 5}
	if err := s.PutChunks(ctx, ref, chunks(3, 2)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateList(ctx, whole(5, 3, 2)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Create(ctx, task.Task{Product: shop, ID: 1, State: task.Running}, task.Key{Name: "k"}); err != nil {
		t.Fatal(err)
	}
	want, err := s.Update(ctx, shop, 1, func(u *task.Task, now push.MilliTime) error { return u.Do(task.Stop, nil, "", now) })
	if err != nil {
		t.Fatal(err)
	}
	of.Servers()[0].Kill()
	if _, err := s.Task(ctx, shop, 1); push.KindOf(err) != push.KindUnavailable {
		t.Errorf("without a server: %v, want KindUnavailable", err)
	}
	if err := of.Servers()[0].Restart(ctx); err != nil {
		t.Fatal(err)
	}
	after := open(t, redisdbtest.Open(t, of, nil))
	if got, err := after.Task(ctx, shop, 1); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("after the kill: %+v, %v, want %+v", got, err, want)
	}
	if cs, err := after.Chunks(ctx, ref, 2, 0, 9); err != nil || len(cs) != 2 {
		t.Errorf("after the kill: %d chunks, %v", len(cs), err)
	}
	if _, err := after.List(ctx, ref); err != nil {
		t.Errorf("after the kill: %v", err)
	}
}
