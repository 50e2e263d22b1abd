package redis

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/redisdb/redisdbtest"
	"carillon/server/redistest"
	"carillon/server/register"
)

// filled is a register in which so many users have a session, each of one device.
func filled(b *testing.B, n int) (*Register, *redistest.Redis, []push.UserID) {
	of := pool.Standalone(b)
	r := open(b, redisdbtest.Open(b, of, nil), nil)
	if err := r.Join(b.Context(), register.Room{ID: "north", Boot: 7}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(renewing(b, r, "north", 7))
	users := make([]push.UserID, n)
	var all sync.WaitGroup
	for w := range 64 {
		all.Go(func() {
			for i := w; i < n; i += 64 {
				users[i] = push.UserID(fmt.Sprintf("user-%07d", i))
				if _, err := r.Insert(b.Context(), sessionOf(users[i], "3f1c9ab2-77d0-4c1a"), nil); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	if b.Failed() {
		b.FailNow()
	}
	return r, of, users
}

// renewing renews a lease until it is told to stop.
func renewing(t testing.TB, r *Register, room push.RoomID, boot push.BootID) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(register.RenewEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			if _, err := r.Renew(context.Background(), room, boot); err != nil {
				t.Error(err)
			}
		}
	})
	return func() { cancel(); done.Wait() }
}

func sessionOf(u push.UserID, d push.DeviceID) register.Session {
	return register.Session{
		Key: register.Key{Product: "shop", User: u, Device: d}, Shard: push.ShardOf(u, testShards),
		Platform: push.PlatformWeb, Class: "default", Transport: "ws", Room: "north", Boot: 7, Since: push.Milli(time.Now()),
	}
}

// BenchmarkLookup looks up 100 000 users at once, all of them online or none, and says what the server took of that.
func BenchmarkLookup(b *testing.B) {
	const n = 100_000
	r, of, users := filled(b, n)
	nobody := make([]push.UserID, n)
	for i := range nobody {
		nobody[i] = push.UserID(fmt.Sprintf("none-%07d", i))
	}
	for name, users := range map[string][]push.UserID{"online": users, "offline": nobody} {
		b.Run(name, func(b *testing.B) {
			before, ours := processor(b, of), redistest.Processor()
			for b.Loop() {
				found, err := r.Lookup(b.Context(), "shop", users)
				if err != nil {
					b.Fatal(err)
				}
				if got := len(found[n-1]); (got == 1) != (name == "online") {
					b.Fatalf("%d sessions", got)
				}
			}
			b.ReportMetric(float64((processor(b, of)-before).Milliseconds())/float64(b.N), "redis-ms/op")
			b.ReportMetric(float64((redistest.Processor()-ours).Milliseconds())/float64(b.N), "own-ms/op")
		})
	}
}

// processor is the time that the servers have computed.
func processor(b *testing.B, of *redistest.Redis) (all time.Duration) {
	for _, s := range of.Servers() {
		info, err := s.Info(b.Context(), "cpu")
		if err != nil {
			b.Fatal(err)
		}
		for _, k := range []string{"used_cpu_user", "used_cpu_sys"} {
			f, err := strconv.ParseFloat(info[k], 64)
			if err != nil {
				b.Fatal(err)
			}
			all += time.Duration(f * float64(time.Second))
		}
	}
	return all
}

// BenchmarkMemory says what a session takes in Redis, of 100 000 users with one each.
func BenchmarkMemory(b *testing.B) {
	const n = 100_000
	_, of, _ := filled(b, n)
	used := func() int {
		info, err := of.Servers()[0].Info(b.Context(), "memory")
		if err != nil {
			b.Fatal(err)
		}
		bytes, err := strconv.Atoi(info["used_memory_dataset"])
		if err != nil {
			b.Fatal(err)
		}
		return bytes
	}
	full := used()
	if err := of.Servers()[0].Client().FlushDB(b.Context()).Err(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(full-used())/n, "redis-B/session")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkInsert has many devices come and go at once, and says what one coming and going takes of the server and of us.
func BenchmarkInsert(b *testing.B) {
	r, of, users := filled(b, 10_000)
	before, ours := processor(b, of), redistest.Processor()
	b.SetParallelism(64)
	var next atomic.Uint64
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			u := users[next.Add(1)%uint64(len(users))]
			in, err := r.Insert(context.Background(), sessionOf(u, "another"), nil)
			if err != nil {
				b.Error(err)
				return
			}
			if _, err := r.Remove(context.Background(), in.Session.Key, in.Session.Epoch, 7); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64((processor(b, of)-before).Microseconds())/float64(b.N), "redis-us/op")
	b.ReportMetric(float64((redistest.Processor()-ours).Microseconds())/float64(b.N), "own-us/op")
}
