package redis

import (
	"context"
	"sync"
	"testing"
	"time"

	"carillon/server/catalog"
	"carillon/server/catalog/catalogtest"
	"carillon/server/clock"
	"carillon/server/redisdb"
	"carillon/server/redistest"

	"go.uber.org/goleak"
)

var pool redistest.Pool

func TestMain(m *testing.M) { goleak.VerifyTestMain(pool.Closing(m)) }

// handClock tells the time that a test sets.
type handClock struct {
	clock.Clock
	mu  sync.Mutex
	now time.Time
}

func (c *handClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *handClock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newHandClock() *handClock {
	return &handClock{Clock: clock.System, now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
}

func connect(t *testing.T, of *redistest.Redis, c clock.Clock) *redisdb.DB {
	t.Helper()
	a := of.Access()
	db, err := redisdb.Open(context.Background(), redisdb.Config{Mode: redisdb.Mode(a.Mode), Addrs: a.Addrs, Master: a.MasterName, Clock: c})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func open(t *testing.T, db *redisdb.DB) *Catalog {
	t.Helper()
	c, err := New(Config{DB: db})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// maker returns a maker of catalogs on a form of Redis; wrap is put around each.
func maker(form redistest.Form, wrap func(catalog.Catalog, clock.Clock) catalog.Catalog) catalogtest.Maker {
	return func(t *testing.T) *catalogtest.Fixture {
		c := newHandClock()
		of := pool.Take(t, form)
		return &catalogtest.Fixture{
			Catalog: wrap(open(t, connect(t, of, c)), c),
			Elapse:  c.move,
			Reopen:  func() catalog.Catalog { return wrap(open(t, connect(t, of, c)), c) },
		}
	}
}

func bare(c catalog.Catalog, _ clock.Clock) catalog.Catalog { return c }

func cached(c catalog.Catalog, k clock.Clock) catalog.Catalog {
	return catalog.NewCache(c, catalog.CacheConfig{Clock: k})
}

func TestConformance(t *testing.T) { catalogtest.Run(t, maker(redistest.FormStandalone, bare)) }
func TestConformance_ThroughCache(t *testing.T) {
	catalogtest.Run(t, maker(redistest.FormStandalone, cached))
}
func TestConformance_Sentinel(t *testing.T) { catalogtest.Run(t, maker(redistest.FormSentinel, bare)) }
func TestConformance_Cluster(t *testing.T)  { catalogtest.Run(t, maker(redistest.FormCluster, bare)) }
