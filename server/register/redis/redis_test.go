package redis

import (
	"context"
	"strconv"
	"strings"
	"testing"

	"carillon/server/clock"
	"carillon/server/clock/clocktest"
	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/redisdb/redisdbtest"
	"carillon/server/redistest"
	"carillon/server/register"
	"carillon/server/register/registertest"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

var pool redistest.Pool

func TestMain(m *testing.M) { goleak.VerifyTestMain(pool.Closing(m)) }

// testShards is how many shards every product has here.
const testShards = 64

func fixedShards(context.Context, push.ProductID) (int, error) { return testShards, nil }

// open returns a register over a database.
func open(t testing.TB, db *redisdb.DB, c clock.Clock) *Register {
	t.Helper()
	r, err := New(Config{DB: db, Shards: fixedShards, Clock: c})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func newFixture(form redistest.Form) registertest.Maker {
	return func(t *testing.T) *registertest.Fixture {
		c := clocktest.New()
		of := pool.Take(t, form)
		db := redisdbtest.Open(t, of, c)
		t.Cleanup(func() { recount(t, of) })
		return &registertest.Fixture{
			Register: open(t, db, c),
			Elapse:   c.Advance,
			Restart:  func() register.Register { return open(t, redisdbtest.Open(t, of, c), c) },
		}
	}
}

func TestConformance(t *testing.T) { registertest.Run(t, newFixture(redistest.FormStandalone)) }

// recount counts the sessions in every shard and compares them with the numbers that are kept there.
func recount(t *testing.T, of *redistest.Redis) {
	t.Helper()
	kept, counted := map[string]int{}, map[string]int{}
	eachKey(t, of, func(c *client, key string) {
		kind := kindOf(key)
		tag, _, _ := strings.Cut(key, "}:")
		if kind != "s" && kind != "p" {
			return
		}
		all, err := c.HGetAll(context.Background(), key).Result()
		if err != nil {
			t.Fatal(err)
		}
		for field, value := range all {
			if kind == "p" {
				n, err := strconv.Atoi(value)
				if err != nil {
					t.Errorf("a number is %q", value)
				}
				kept[tag+field] += n
				continue
			}
			err := readSessions("", "", 0, value, func(s *stored) { counted[tag+s.at.field()]++ })
			if err != nil {
				t.Errorf("sessions are %q", value)
			}
		}
	})
	for k, n := range counted {
		if kept[k] != n {
			t.Errorf("%q: %d sessions, kept is %d", k, n, kept[k])
		}
		delete(kept, k)
	}
	for k, n := range kept {
		if n != 0 {
			t.Errorf("%q: no session, kept is %d", k, n)
		}
	}
}

type client = redis.Client

// kindOf returns the kind of a key of ours.
func kindOf(key string) string {
	_, rest, _ := strings.Cut(key, "}:")
	kind, _, _ := strings.Cut(rest, ":")
	return kind
}

// eachKey calls f for every key of a deployment, with a client of the node that it lies on.
func eachKey(t testing.TB, of *redistest.Redis, f func(c *client, key string)) {
	t.Helper()
	ctx := context.Background()
	nodes, err := of.Primaries(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		it := n.Client().Scan(ctx, 0, "", 1000).Iterator()
		for it.Next(ctx) {
			f(n.Client(), it.Val())
		}
		if err := it.Err(); err != nil {
			t.Fatal(err)
		}
	}
}
