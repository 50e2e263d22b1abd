package redis

import (
	"context"
	"maps"
	"strings"
	"testing"
	"time"

	"carillon/server/clock"
	"carillon/server/clock/clocktest"
	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/redisdb/redisdbtest"
	"carillon/server/redistest"
	"carillon/server/task"
	"carillon/server/task/tasktest"

	goredis "github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

var pool redistest.Pool

func TestMain(m *testing.M) { goleak.VerifyTestMain(pool.Closing(m)) }

func open(t testing.TB, db *redisdb.DB) *Store {
	t.Helper()
	s, err := New(Config{DB: db})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// maker returns a maker of stores on a form of Redis.
func maker(form redistest.Form, mk func(t *testing.T, of *redistest.Redis, c clock.Clock) task.Store) tasktest.Maker {
	return func(t *testing.T) *tasktest.Fixture {
		c := clocktest.New()
		of := pool.Take(t, form)
		t.Cleanup(func() { audit(t, of) })
		return &tasktest.Fixture{
			Store:  mk(t, of, c),
			Now:    func() push.MilliTime { return push.Milli(c.Now()) },
			Elapse: c.Advance,
			Reopen: func() task.Store { return mk(t, of, c) },
		}
	}
}

func one(t *testing.T, of *redistest.Redis, c clock.Clock) task.Store {
	return open(t, redisdbtest.Open(t, of, c))
}

func TestConformance(t *testing.T)          { tasktest.Run(t, maker(redistest.FormStandalone, one)) }
func TestConformance_Sentinel(t *testing.T) { tasktest.Run(t, maker(redistest.FormSentinel, one)) }
func TestConformance_Cluster(t *testing.T)  { tasktest.Run(t, maker(redistest.FormCluster, one)) }

func TestNew_NeedsADatabase(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("a store without a database was made")
	}
}

// audit holds the records on a Redis to each other: each has the places that it should have, no place is left of what is gone, and what should
// expire does.
func audit(t *testing.T, of *redistest.Redis) {
	t.Helper()
	ctx := context.Background() // that of the test has ended
	primaries, err := of.Primaries(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want, got := map[string]float64{}, map[string]float64{}
	places := func(key string, in map[string]float64, c goredis.UniversalClient) {
		for _, z := range c.ZRangeWithScores(ctx, key, 0, -1).Val() {
			in[key+" "+z.Member.(string)] = z.Score
		}
	}
	for _, n := range primaries {
		c := n.Client()
		for _, key := range c.Keys(ctx, "*").Val() {
			_, rest, _ := strings.Cut(key, "}:")
			kind, product, _ := strings.Cut(rest, ":")
			life := c.PTTL(ctx, key).Val()
			switch kind {
			case "t":
				for field, v := range c.HGetAll(ctx, key).Val() {
					one, err := task.Decode([]byte(v))
					if err != nil || name(one.ID) != field || string(one.Product) != product {
						t.Errorf("%q %s holds %d of %q, %v", key, field, one.ID, one.Product, err)
					}
					where := place(one.Product, one.ID)
					want[taskIDs(one.Product)+" "+field] = 0
					if one.Wake != 0 {
						want[wakeKey+" "+where] = float64(one.Wake)
					}
					if until := task.KeptUntil(&one); until != 0 {
						want[endsKey+" t"+where] = float64(until)
					}
				}
			case "l":
				for field, v := range c.HGetAll(ctx, key).Val() {
					one, until, err := task.DecodeList([]byte(v))
					if err != nil || name(one.ID) != field || string(one.Product) != product {
						t.Errorf("%q %s holds %d of %q, %v", key, field, one.ID, one.Product, err)
					}
					if !one.Made {
						want[listIDs(one.Product)+" "+field] = 0
					}
					want[endsKey+" l"+place(one.Product, one.ID)] = float64(until)
				}
			case "T", "L", "w", "e":
				places(key, got, c)
			case "k", "x", "n":
				most := map[string]time.Duration{"k": task.KeyKept, "x": task.ListKept + chunkSlack, "n": countsKept}[kind]
				if life <= most-time.Hour || life > most {
					t.Errorf("%q expires in %v, want nearly %v", key, life, most)
				}
			case "o":
			default:
				t.Errorf("a key of no kind: %q", key)
			}
			if kind != "k" && kind != "x" && kind != "n" && life >= 0 {
				t.Errorf("%q expires", key)
			}
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("places:\n got %v\nwant %v", got, want)
	}
}
