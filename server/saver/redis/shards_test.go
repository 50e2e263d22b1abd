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

	goredis "github.com/redis/go-redis/v9"
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
// operation is all of them. Each log has had something to tell; in "moving" each has something new every time, which is not counted.
func BenchmarkChanges(b *testing.B) {
	for _, form := range []struct {
		name  string
		start func(testing.TB, ...redistest.Option) *redistest.Redis
	}{{"standalone", redistest.Standalone}, {"cluster", redistest.Cluster}} {
		for _, shards := range []int{64, 1024} {
			for _, moving := range []bool{false, true} {
				b.Run(fmt.Sprintf("%s/shards=%d/moving=%v", form.name, shards, moving), func(b *testing.B) {
					benchmarkChanges(b, form.start(b), shards, moving)
				})
			}
		}
	}
}

func benchmarkChanges(b *testing.B, r *redistest.Redis, shards int, moving bool) {
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
	raw := goredis.NewUniversalClient(access.Options())
	defer raw.Close()
	users := userOfEach(shards)
	signIn(b, raw, "shop", users)
	id := push.MsgID(time.Now().UnixMilli() << 12)
	publish := func(p *saver.Publication) {
		id++
		p.Product, p.Shards, p.TTL, p.Message = "shop", shards, time.Hour, &push.Message{ID: id, Persistent: true}
		if r := s.Publish(context.Background(), []*saver.Publication{p}); r[0].Err != nil {
			b.Fatal(r[0].Err)
		}
	}
	everyOne := func() {
		p := &saver.Publication{}
		for _, u := range users {
			p.Own = append(p.Own, saver.Target{User: u})
		}
		publish(p)
	}
	publish(&saver.Publication{Everyone: true})
	everyOne()
	qs := changesOf("shop", shards)
	look := func() {
		for from := 0; from < len(qs); from += 128 { // as a room asks
			part := qs[from:min(from+128, len(qs))]
			logs, err := s.Changes(context.Background(), "north", part)
			if err != nil {
				b.Fatal(err)
			}
			for i := range logs {
				part[i].After = logs[i].Next
			}
		}
	}
	look()
	var other used // what is not counted
	before := useAll(b, r)
	for b.Loop() {
		if moving {
			b.StopTimer()
			from := useAll(b, r)
			everyOne()
			now := useAll(b, r)
			other.ours, other.redis = other.ours+now.ours-from.ours, other.redis+now.redis-from.redis
			b.StartTimer()
		}
		look()
	}
	now := useAll(b, r)
	b.ReportMetric(float64(now.ours-before.ours-other.ours)/float64(b.N)/1e3, "µs-ours/op")
	b.ReportMetric(float64(now.redis-before.redis-other.redis)/float64(b.N)/1e3, "µs-redis/op")
}

// userOfEach returns a user of each shard.
func userOfEach(shards int) []push.UserID {
	users := make([]push.UserID, shards)
	for i, left := 0, shards; left > 0; i++ {
		u := push.UserID(fmt.Sprint("user-", i))
		if s := push.ShardOf(u, shards); users[s] == "" {
			users[s] = u
			left--
		}
	}
	return users
}

// signIn gives users, one of each shard, a session in room north.
func signIn(t testing.TB, raw goredis.UniversalClient, p push.ProductID, users []push.UserID) {
	t.Helper()
	const one = "\x05north\x05phoneabcdef"
	pipe := raw.Pipeline()
	for i, u := range users {
		tag := tagOf(saver.ShardRef{Product: p, Shard: push.Shard(i)})
		pipe.HSet(context.Background(), tag.SessionsKey(), string(u), string([]byte{0, byte(len(one))})+one)
		pipe.HIncrBy(context.Background(), tag.Key(kindRooms, ""), "\x05northabcdef", 1)
	}
	if _, err := pipe.Exec(context.Background()); err != nil {
		t.Fatal(err)
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
