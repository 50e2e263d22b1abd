package pebble

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carillon/server/clock"
	"carillon/server/embedded"
	"carillon/server/push"
	"carillon/server/redistest"
	"carillon/server/saver"
	"carillon/server/saver/savertest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// BenchmarkPublish publishes on a real disk from many producers to one user each, with idempotency keys, 100-byte
// bodies, and a flush before each answer. One iteration is one message. Single messages are bound by how many producers
// share a flush, which is why their number is part of the name.
func BenchmarkPublish(b *testing.B) {
	for _, c := range []struct{ producers, batch int }{{256, 1}, {1024, 1}, {256, 100}} {
		b.Run(fmt.Sprintf("producers=%d/batch=%d", c.producers, c.batch), func(b *testing.B) { benchPublish(b, c.producers, c.batch) })
	}
}

func openBench(b *testing.B) *Store {
	b.Helper()
	db, err := embedded.Open(embedded.Config{Dir: b.TempDir(), FS: vfs.Default})
	if err != nil {
		b.Fatal(err)
	}
	s, err := New(Config{DB: db, Clock: clock.System})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = s.Close()
		_ = db.Close()
	})
	return s
}

func benchPublish(b *testing.B, producers, batch int) {
	s := openBench(b)
	ctx := context.Background()
	var next, done atomic.Int64
	body := make([]byte, 100)
	limits := push.Limits{}.WithDefaults()
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for w := range producers {
		wg.Go(func() {
			user := push.UserID(fmt.Sprintf("user-%05d", w))
			for done.Add(int64(batch)) <= int64(b.N)+int64(batch)-1 {
				ps := make([]*saver.Publication, batch)
				for i := range ps {
					id := next.Add(1)
					p := &saver.Publication{
						Product: "shop", Shards: 64, Limits: limits, TTL: 24 * time.Hour,
						Message: &push.Message{ID: push.MsgID(id), Persistent: true, Body: body},
						Key:     saver.IdempotencyKey(fmt.Sprintf("request-%016x", id)),
						Own:     []saver.Target{{User: user}},
					}
					binary.BigEndian.PutUint64(p.Digest[:], uint64(id))
					ps[i] = p
				}
				for _, r := range s.Publish(ctx, ps) {
					if r.Err != nil {
						b.Error(r.Err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(next.Load())/b.Elapsed().Seconds(), "messages/s")
	b.ReportMetric(float64(next.Load())/float64(max(s.db.Metrics().Syncs, 1)), "messages/sync")
}

// BenchmarkOpenAgain is what the store does when a known device connects, with few and with many users of one product
// that came before.
func BenchmarkOpenAgain(b *testing.B) {
	for _, users := range []int{2_000, 15_000} {
		b.Run(fmt.Sprint("users=", users), func(b *testing.B) {
			store := openBench(b)
			open := func(i int) {
				u := push.UserID(fmt.Sprint("user", i))
				o := saver.Open{UserRef: saver.UserRef{Product: "shop", Shards: 64, User: u}, Facts: push.DeviceFacts{Device: "phone"}}
				if _, err := store.Open(context.Background(), o); err != nil {
					b.Error(err)
				}
			}
			var come sync.WaitGroup
			for part := range 64 { // side by side, so that they share flushes
				come.Go(func() {
					for i := part; i < users; i += 64 {
						open(i)
					}
				})
			}
			come.Wait()
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				open(i * 7919 % users)
			}
		})
	}
}

// BenchmarkBatches writes a task's message to users who are offline, on a real disk. An operation is a user.
func BenchmarkBatches(b *testing.B) {
	for _, known := range []bool{false, true} {
		b.Run(fmt.Sprint("known=", known), func(b *testing.B) {
			savertest.BenchBatches(b, openBench(b), 64, known, func() func() {
				before := redistest.Processor()
				return func() { b.ReportMetric(float64(redistest.Processor()-before)/float64(b.N)/1e3, "µs/op") }
			})
		})
	}
}
