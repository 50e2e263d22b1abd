package redis

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/redisdb/redisdbtest"
	"carillon/server/redistest"
	"carillon/server/task"
)

// users makes the chunks of a list of users of 12 bytes, in the shards that they are in, and calls put with parts of so many chunks.
func users(n, shards, part int, put func(cs []task.Chunk)) task.List {
	l := task.List{Product: shop, ID: 5, Shards: shards, Users: int64(n), Chunks: make(task.Progress, shards)}
	open := make([][]task.Entry, shards)
	var cs []task.Chunk
	add := func(s int) {
		cs = append(cs, task.Chunk{Shard: push.Shard(s), Number: int(l.Chunks[s]), Entries: open[s]})
		l.Chunks[s]++
		open[s] = nil
		if len(cs) == part {
			put(cs)
			cs = nil
		}
	}
	for i := range n {
		u := push.UserID(fmt.Sprintf("user-%07d", i))
		s := push.ShardOf(u, shards)
		if open[s] = append(open[s], task.Entry{User: u}); len(open[s]) == task.ChunkMost {
			add(int(s))
		}
	}
	for s := range open {
		if len(open[s]) > 0 {
			add(s)
		}
	}
	if len(cs) > 0 {
		put(cs)
	}
	return l
}

// memoryOf returns what a Redis uses, without what it keeps for connections.
func memoryOf(t testing.TB, of *redistest.Redis) int64 {
	t.Helper()
	info, err := of.Servers()[0].Info(t.Context(), "memory")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(info["used_memory_dataset"], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestMemory_OfAListStaysSmall stores a list of users as many in each shard as a million have in 1 024.
func TestMemory_OfAListStaysSmall(t *testing.T) {
	of := pool.Standalone(t)
	s := open(t, redisdbtest.Open(t, of, nil))
	const n, shards = 125_000, 128
	before := memoryOf(t, of)
	l := users(n, shards, 200, func(cs []task.Chunk) {
		if err := s.PutChunks(t.Context(), task.ListRef{Product: shop, ID: 5}, cs); err != nil {
			t.Fatal(err)
		}
	})
	if _, err := s.CreateList(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	got := float64(memoryOf(t, of)-before) / n
	t.Logf("%.1f bytes a user", got)
	if got > 20 {
		t.Errorf("%.1f bytes of Redis for a user whose name has 12, at most 20 are meant", got)
	}
}

// processor returns what a Redis has used of its processors.
func processor(b *testing.B, of *redistest.Redis) (all time.Duration) {
	b.Helper()
	info, err := of.Servers()[0].Info(b.Context(), "cpu")
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range []string{"used_cpu_user", "used_cpu_sys"} {
		f, err := strconv.ParseFloat(info[name], 64)
		if err != nil {
			b.Fatal(err)
		}
		all += time.Duration(f * float64(time.Second))
	}
	return all
}

// BenchmarkList uploads a list of a million users in parts of 200 chunks one after the other, has it made, reads it, and has it deleted. It says what a
// user takes of this process and of Redis.
func BenchmarkList(b *testing.B) {
	const n, shards = 1_000_000, 1024
	of := pool.Standalone(b)
	s := open(b, redisdbtest.Open(b, of, nil))
	ref := task.ListRef{Product: shop, ID: 5}
	var parts [][]task.Chunk
	l := users(n, shards, 200, func(cs []task.Chunk) { parts = append(parts, cs) })
	per := func(name string, do func()) {
		began, ours, theirs := time.Now(), redistest.Processor(), processor(b, of)
		do()
		b.ReportMetric(time.Since(began).Seconds(), name+"-s")
		b.ReportMetric(float64((redistest.Processor()-ours).Nanoseconds())/n, name+"-ns/user")
		b.ReportMetric(float64((processor(b, of)-theirs).Nanoseconds())/n, name+"-redis-ns/user")
	}
	for b.Loop() {
		before := memoryOf(b, of)
		per("put", func() {
			for _, cs := range parts {
				if err := s.PutChunks(b.Context(), ref, cs); err != nil {
					b.Fatal(err)
				}
			}
		})
		per("create", func() {
			if _, err := s.CreateList(b.Context(), l); err != nil {
				b.Fatal(err)
			}
		})
		b.ReportMetric(float64(memoryOf(b, of)-before)/n, "redis-B/user")
		per("keep", func() {
			if err := s.KeepList(b.Context(), ref); err != nil {
				b.Fatal(err)
			}
		})
		per("read", func() {
			for shard := range push.Shard(shards) {
				cs, err := s.Chunks(b.Context(), ref, shard, 0, 16)
				if err != nil || len(cs) != min(16, int(l.Chunks[shard])) {
					b.Fatal(len(cs), err)
				}
			}
		})
		per("delete", func() {
			if there, err := s.DeleteList(b.Context(), ref); !there || err != nil {
				b.Fatal(there, err)
			}
		})
	}
}

// BenchmarkUpdate is a checkpoint of a task whose record has about 10 KB.
func BenchmarkUpdate(b *testing.B) {
	of := pool.Standalone(b)
	s := open(b, redisdbtest.Open(b, of, nil))
	big := task.Task{Product: shop, ID: 1, State: task.Running}
	big.Message = json.RawMessage(`{"body":"` + strings.Repeat("x", 4000) + `"}`)
	big.Run.Next = make(task.Progress, 1024)
	for i := range big.Run.Next {
		big.Run.Next[i] = 10_000
	}
	if _, _, err := s.Create(b.Context(), big, task.Key{}); err != nil {
		b.Fatal(err)
	}
	ours, theirs := redistest.Processor(), processor(b, of)
	n := 0
	for b.Loop() {
		if _, err := s.Update(b.Context(), shop, 1, func(t *task.Task, _ push.MilliTime) error {
			t.Run.Next[7]++
			return nil
		}); err != nil {
			b.Fatal(err)
		}
		n++
	}
	b.ReportMetric(float64((redistest.Processor()-ours).Microseconds())/float64(n), "our-µs/op")
	b.ReportMetric(float64((processor(b, of)-theirs).Microseconds())/float64(n), "redis-µs/op")
}
