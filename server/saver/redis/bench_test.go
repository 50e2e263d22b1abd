package redis

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/redistest"
	"carillon/server/saver"
	"carillon/server/saver/savertest"

	goredis "github.com/redis/go-redis/v9"
)

// benchShards is how many shards products have on Redis.
const benchShards = 1024

// benchStore is one store on a Redis of its own, with the server's clock.
func benchStore(b *testing.B) (*Store, *redistest.Node) {
	r := redistest.Standalone(b)
	db, err := redisdb.Open(b.Context(), redisdb.Config{Addrs: r.Access().Addrs})
	if err != nil {
		b.Fatal(err)
	}
	s, err := New(Config{DB: db, Shards: func(push.ProductID) int { return benchShards }})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = s.Close()
		_ = db.Close()
	})
	return s, r.Servers()[0]
}

// used is what a run took: processor time of ours and of Redis, and the memory of Redis.
type used struct {
	ours, redis time.Duration
	memory      int64
}

func use(b *testing.B, n *redistest.Node) (u used) {
	u.ours = redistest.Processor()
	ctx := context.Background()
	for _, section := range []string{"cpu"} {
		info, err := n.Info(ctx, section)
		if err != nil {
			b.Fatal(err)
		}
		for _, k := range []string{"used_cpu_user", "used_cpu_sys"} {
			if v, ok := info[k]; ok {
				s, _ := strconv.ParseFloat(v, 64)
				u.redis += time.Duration(s * float64(time.Second))
			}
		}
	}
	u.memory = memoryOf(b, n.Client())
	return u
}

// memoryOf returns what the data of a Redis takes: values, keys, and the tables that keys and their times to live lie in.
func memoryOf(t testing.TB, c goredis.UniversalClient) (n int64) {
	t.Helper()
	all, err := c.Do(context.Background(), "MEMORY", "STATS").Result()
	if err != nil {
		t.Fatal(err)
	}
	stats := all.(map[any]any)
	n = stats["dataset.bytes"].(int64)
	if tables, ok := stats["db.0"].(map[any]any); ok { // there is none while it is empty
		for _, of := range tables {
			n += of.(int64)
		}
	}
	return n
}

// report reports what one of n pieces of work took since.
func (u used) report(b *testing.B, node *redistest.Node, n int, memory bool) {
	now := use(b, node)
	b.ReportMetric(float64(now.ours-u.ours)/float64(n)/1e3, "µs-ours/op")
	b.ReportMetric(float64(now.redis-u.redis)/float64(n)/1e3, "µs-redis/op")
	if memory {
		b.ReportMetric(float64(now.memory-u.memory)/float64(n), "redis-B/op")
	}
}

// BenchmarkPublishOffline publishes batches of a hundred messages of 100 bytes, ten to each user, from several callers. An operation is a message.
func BenchmarkPublishOffline(b *testing.B) {
	for _, keyed := range []bool{false, true} {
		for _, callers := range []int{1, 8, 16} {
			b.Run(fmt.Sprintf("keyed=%v/callers=%d", keyed, callers), func(b *testing.B) {
				s, node := benchStore(b)
				const batch = 100
				var id, seq atomic.Int64
				id.Store(time.Now().UnixMilli() << 12)
				users := max(b.N/10, 1)
				body := []byte(`"` + strings.Repeat("x", 98) + `"`)
				before := use(b, node)
				b.ResetTimer()
				var wg sync.WaitGroup
				for range callers {
					wg.Go(func() {
						for {
							from := int(seq.Add(batch)) - batch
							if from >= b.N {
								return
							}
							ps := make([]*saver.Publication, min(batch, b.N-from))
							for i := range ps {
								n := from + i
								ps[i] = &saver.Publication{
									Product: "shop", Shards: benchShards, TTL: 7 * 24 * time.Hour,
									Message: &push.Message{ID: push.MsgID(id.Add(1)), Body: body, Persistent: true},
									Own:     []saver.Target{{User: push.UserID("user-" + strconv.Itoa(n%users))}},
								}
								if keyed {
									ps[i].Key, ps[i].Digest = saver.IdempotencyKey("request-"+strconv.Itoa(n)), saver.Digest{1}
								}
							}
							for _, r := range s.Publish(context.Background(), ps) {
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
				before.report(b, node, b.N, true)
			})
		}
	}
}

// BenchmarkPublishSingle publishes one message a call, from 256 callers.
func BenchmarkPublishSingle(b *testing.B) {
	s, node := benchStore(b)
	var seq atomic.Int64
	id := time.Now().UnixMilli() << 12
	body := bytes.Repeat([]byte("7"), 100)
	before := use(b, node)
	b.ResetTimer()
	var wg sync.WaitGroup
	for range 256 {
		wg.Go(func() {
			for n := seq.Add(1); n <= int64(b.N); n = seq.Add(1) {
				r := s.Publish(context.Background(), []*saver.Publication{{
					Product: "shop", Shards: benchShards, TTL: time.Hour,
					Message: &push.Message{ID: push.MsgID(id + n), Body: body, Persistent: true},
					Own:     []saver.Target{{User: push.UserID("user-" + strconv.FormatInt(n%100_000, 10))}},
				}})
				if r[0].Err != nil {
					b.Error(r[0].Err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	before.report(b, node, b.N, false)
}

// BenchmarkPublishEveryone stores broadcasts to all shards. Nobody's number counts: how many users there are is nowhere in it.
func BenchmarkPublishEveryone(b *testing.B) {
	for _, shards := range []int{64, benchShards} {
		b.Run(fmt.Sprintf("shards=%d", shards), func(b *testing.B) {
			s, node := benchStore(b)
			id := time.Now().UnixMilli() << 12
			body := bytes.Repeat([]byte("7"), 1000)
			before := use(b, node)
			b.ResetTimer()
			for n := range b.N {
				r := s.Publish(context.Background(), []*saver.Publication{{
					Product: "shop", Shards: shards, TTL: time.Hour, Everyone: true,
					Message: &push.Message{ID: push.MsgID(id + int64(n) + 1), Body: body, Persistent: true},
				}})
				if r[0].Err != nil {
					b.Fatal(r[0].Err)
				}
			}
			b.StopTimer()
			before.report(b, node, b.N, true)
		})
	}
}

// BenchmarkOpenKnown opens devices that are known, from 64 callers.
func BenchmarkOpenKnown(b *testing.B) {
	s, node := benchStore(b)
	const users = 1000
	open := func(n int) {
		_, err := s.Open(context.Background(), saver.Open{
			UserRef: saver.UserRef{Product: "shop", Shards: benchShards, User: push.UserID("user-" + strconv.Itoa(n%users))},
			Facts:   push.DeviceFacts{Device: "phone", Platform: push.PlatformAndroid, Class: "phone"},
		})
		if err != nil {
			b.Error(err)
		}
	}
	for n := range users {
		open(n)
	}
	before := use(b, node)
	var seq atomic.Int64
	b.ResetTimer()
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for n := int(seq.Add(1)); n <= b.N; n = int(seq.Add(1)) {
				open(n)
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	before.report(b, node, b.N, false)
}

// BenchmarkTags looks up what is kept of 100 000 users at once; an operation is all of them.
func BenchmarkTags(b *testing.B) {
	s, node := benchStore(b)
	us := make([]saver.UserRef, 100_000)
	for i := range us {
		us[i] = saver.UserRef{Product: "shop", Shards: benchShards, User: push.UserID("user-" + strconv.Itoa(i))}
	}
	before := use(b, node)
	b.ResetTimer()
	for range b.N {
		if _, err := s.Tags(context.Background(), us); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	before.report(b, node, b.N, false)
}

// BenchmarkMessage looks up the record of a message to one user, of whom only the message's id is known: every shard is asked.
func BenchmarkMessage(b *testing.B) {
	s, node := benchStore(b)
	r := s.Publish(context.Background(), []*saver.Publication{{
		Product: "shop", Shards: benchShards, TTL: time.Hour,
		Message: &push.Message{ID: 1 << 50, Persistent: true}, Own: []saver.Target{{User: "alice"}},
	}})
	if r[0].Err != nil {
		b.Fatal(r[0].Err)
	}
	before := use(b, node)
	b.ResetTimer()
	for range b.N {
		if _, err := s.Message(context.Background(), "shop", 1<<50); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	before.report(b, node, b.N, false)
}

// BenchmarkBatches writes a task's message to users who are offline. An operation is a user.
func BenchmarkBatches(b *testing.B) {
	for _, known := range []bool{false, true} {
		b.Run(fmt.Sprint("known=", known), func(b *testing.B) {
			s, node := benchStore(b)
			savertest.BenchBatches(b, s, benchShards, known, func() func() {
				before := use(b, node)
				return func() { before.report(b, node, b.N, true) }
			})
		})
	}
}
