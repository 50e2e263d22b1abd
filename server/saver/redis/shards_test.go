package redis

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/redistest"
	"carillon/server/saver"
)

// TestRoundTrips_DoNotDependOnHowManyShards: a product of 1 024 shards, which is what products have on Redis, waits for Redis as often as one of 64.
func TestRoundTrips_DoNotDependOnHowManyShards(t *testing.T) {
	p := &trips{t, &trouble{}}
	_, _, s := broken(t, p.d)
	ctx := t.Context()
	for i, shards := range []int{64, 1024} {
		product := push.ProductID(fmt.Sprint("of-", shards))
		s.shards = func(push.ProductID) int { return shards }
		one, all := push.MsgID(1000*i+1), push.MsgID(1000*i+2)
		publish := func(pub *saver.Publication) func() error {
			pub.Product, pub.Shards, pub.TTL = product, shards, time.Hour
			return func() error { return s.Publish(ctx, []*saver.Publication{pub})[0].Err }
		}
		found := func(want push.MsgID, everyone bool) func() error {
			return func() error {
				m, err := s.Message(ctx, product, want)
				if err == nil && m.Everyone != everyone {
					err = errors.New("another message was found")
				}
				return err
			}
		}
		recall := func(id push.MsgID) func() error {
			return func() error {
				_, err := s.Recall(ctx, saver.Recall{Product: product, Shards: shards, ID: id})
				return err
			}
		}
		of := func(what string) string { return fmt.Sprintf("%s, %d shards", what, shards) }
		p.want(of("publish to one"), 2, publish(&saver.Publication{
			Message: &push.Message{ID: one, Body: []byte("1"), Persistent: true}, Own: []saver.Target{{User: "alice"}}}))
		p.want(of("publish to everyone"), 7, publish(&saver.Publication{
			Message: &push.Message{ID: all, Body: make([]byte, 3000), Persistent: true}, Everyone: true}))
		p.want(of("message to one"), 2, found(one, false))
		p.want(of("message to everyone"), 2, found(all, true))
		p.want(of("recall from one"), 5, recall(one))
		p.want(of("recall from everyone"), 7, recall(all))
		p.want(of("changes"), 1, func() error {
			_, err := s.Changes(ctx, "north", changesOf(product, shards))
			return err
		})
	}
}

func changesOf(p push.ProductID, shards int) []saver.ChangeQuery {
	qs := make([]saver.ChangeQuery, shards)
	for i := range qs {
		qs[i].ShardRef = saver.ShardRef{Product: p, Shard: push.Shard(i)}
	}
	return qs
}

// BenchmarkChanges reads the change logs of all shards of a product, as a room that has sessions in each of them does every two seconds. An
// operation is all of them.
func BenchmarkChanges(b *testing.B) {
	for _, form := range []struct {
		name  string
		start func(testing.TB, ...redistest.Option) *redistest.Redis
	}{{"standalone", redistest.Standalone}, {"cluster", redistest.Cluster}} {
		for _, shards := range []int{64, 1024} {
			b.Run(fmt.Sprintf("%s/shards=%d", form.name, shards), func(b *testing.B) {
				r := form.start(b)
				access := r.Access()
				db, err := redisdb.Open(b.Context(), redisdb.Config{Mode: redisdb.Mode(access.Mode), Addrs: access.Addrs})
				if err != nil {
					b.Fatal(err)
				}
				s, err := New(Config{DB: db, Shards: func(push.ProductID) int { return shards }})
				if err != nil {
					b.Fatal(err)
				}
				defer func() { _ = s.Close(); _ = db.Close() }()
				id := push.MsgID(time.Now().UnixMilli() << 12)
				if r := s.Publish(context.Background(), []*saver.Publication{{
					Product: "shop", Shards: shards, TTL: time.Hour, Everyone: true, Message: &push.Message{ID: id, Persistent: true},
				}}); r[0].Err != nil {
					b.Fatal(r[0].Err)
				}
				qs := changesOf("shop", shards)
				before := useAll(b, r)
				b.ResetTimer()
				for range b.N {
					for from := 0; from < len(qs); from += 128 { // as a room asks
						if _, err := s.Changes(context.Background(), "north", qs[from:min(from+128, len(qs))]); err != nil {
							b.Fatal(err)
						}
					}
				}
				b.StopTimer()
				now := useAll(b, r)
				b.ReportMetric(float64(now.ours-before.ours)/float64(b.N)/1e3, "µs-ours/op")
				b.ReportMetric(float64(now.redis-before.redis)/float64(b.N)/1e3, "µs-redis/op")
			})
		}
	}
}

// useAll is use for all servers of a Redis together.
func useAll(b *testing.B, r *redistest.Redis) (all used) {
	for _, n := range r.Servers() {
		u := use(b, n)
		all.ours, all.redis = u.ours, all.redis+u.redis
	}
	return all
}
