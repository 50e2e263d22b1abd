package redisdb

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/redistest"
)

// usage is CPU that was spent so far, by us and by Redis, in microseconds.
func usage(b *testing.B, r *redistest.Redis) (ours, theirs float64) {
	b.Helper()
	ours = float64(redistest.Processor().Nanoseconds()) / 1e3
	for _, n := range r.Servers() {
		info, err := n.Info(b.Context(), "cpu")
		if err != nil {
			b.Fatal(err)
		}
		for _, name := range []string{"used_cpu_user", "used_cpu_sys"} {
			d, err := time.ParseDuration(info[name] + "s")
			if err != nil {
				b.Fatal(err)
			}
			theirs += float64(d) / 1e3
		}
	}
	return ours, theirs
}

// appendTo is a write of the shape of a message to one user: state and list of a slot, the message's record, the announcement.
func appendTo(i int) *Write {
	user := "user" + name(i%20000)
	tag := tagOf(i % 20000 % 1024)
	state := strings.Repeat("s", 60)
	return &Write{
		Tag: tag,
		If:  []Condition{IfField(tag.Key("u", user), "o", nil), IfField(tag.Key("r", "1"), name(i), nil)},
		Do: []Command{
			{Name: "HSET", Key: tag.Key("u", user), Args: []any{"n", state}},
			{Name: "RPUSH", Key: tag.Key("e", user), Args: []any{strings.Repeat("b", 128)}},
			{Name: "HSET", Key: tag.Key("r", "1"), Args: []any{name(i), user}},
			tag.Announce(push.UserID(user), []byte(state)),
		},
	}
}

// BenchmarkWrite measures appends of callers that write one at a time, and of some that write a hundred.
func BenchmarkWrite(b *testing.B) {
	for _, c := range []struct {
		name           string
		form           redistest.Form
		callers, batch int
		durability     push.Durability
	}{
		{"single", redistest.FormStandalone, 256, 1, push.DurabilityProcess},
		{"batch", redistest.FormStandalone, 8, 100, push.DurabilityProcess},
		{"single-replicated", redistest.FormSentinel, 256, 1, push.DurabilityReplicated},
		{"batch-replicated", redistest.FormSentinel, 8, 100, push.DurabilityReplicated},
		{"single-cluster", redistest.FormCluster, 256, 1, push.DurabilityProcess},
		{"batch-cluster", redistest.FormCluster, 8, 100, push.DurabilityProcess},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := pool.Take(b, c.form)
			a := r.Access()
			db, err := Open(b.Context(), Config{
				Mode: Mode(a.Mode), Addrs: a.Addrs, Master: a.MasterName, Durability: c.durability, Replicas: 1,
			})
			if err != nil {
				b.Fatal(err)
			}
			defer func() {
				if err := db.Close(); err != nil {
					b.Error(err)
				}
			}()
			var next atomic.Int64
			var wg sync.WaitGroup
			ours, theirs := usage(b, r)
			b.ReportAllocs()
			b.ResetTimer()
			for range c.callers {
				wg.Go(func() {
					for {
						from := int(next.Add(int64(c.batch))) - c.batch
						if from >= b.N {
							return
						}
						ws := make([]*Write, 0, c.batch)
						for i := from; i < min(from+c.batch, b.N); i++ {
							ws = append(ws, appendTo(i))
						}
						db.Write(b.Context(), ws...)
						for _, w := range ws {
							if w.Err != nil || !w.Done {
								b.Errorf("done %v, error %v", w.Done, w.Err)
								return
							}
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			ours2, theirs2 := usage(b, r)
			b.ReportMetric((ours2-ours)/float64(b.N), "our-µs/op")
			b.ReportMetric((theirs2-theirs)/float64(b.N), "redis-µs/op")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "op/s")
		})
	}
}
