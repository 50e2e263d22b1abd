package pebble

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"carillon/server/push"
	"carillon/server/task"
)

// BenchmarkUpdate is a checkpoint of a task whose record has about 10 KB.
func BenchmarkUpdate(b *testing.B) {
	s := newStore(b, opened(b, vfs.Default, b.TempDir(), 1), nil)
	big := task.Task{Product: "shop", ID: 1, State: task.Running}
	big.Message = json.RawMessage(`{"body":"` + strings.Repeat("x", 4000) + `"}`)
	big.Run.Next = make(task.Progress, 1024)
	for i := range big.Run.Next {
		big.Run.Next[i] = 10_000
	}
	if _, _, err := s.Create(b.Context(), big, task.Key{}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Update(b.Context(), "shop", 1, func(t *task.Task, _ push.MilliTime) error {
			t.Run.Next[7]++
			return nil
		}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPutChunks is a part of an upload: 200 chunks of 64 users of 12 bytes.
func BenchmarkPutChunks(b *testing.B) {
	s := newStore(b, opened(b, vfs.Default, b.TempDir(), 1), nil)
	cs := make([]task.Chunk, 200)
	for i := range cs {
		cs[i].Shard = push.Shard(i % 64)
		for k := range task.ChunkMost {
			cs[i].Entries = append(cs[i].Entries, task.Entry{User: push.UserID(fmt.Sprintf("user-%07d", i*100+k))})
		}
	}
	n := 0
	for b.Loop() {
		for i := range cs {
			cs[i].Number = n*4 + i/64
		}
		if err := s.PutChunks(b.Context(), task.ListRef{Product: "shop", ID: 1}, cs); err != nil {
			b.Fatal(err)
		}
		n++
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(n*len(cs)*task.ChunkMost), "µs/user")
}
