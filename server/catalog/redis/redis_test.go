package redis

import (
	"testing"

	"carillon/server/catalog"
	"carillon/server/catalog/catalogtest"
	"carillon/server/clock"
	"carillon/server/clock/clocktest"
	"carillon/server/redisdb"
	"carillon/server/redisdb/redisdbtest"
	"carillon/server/redistest"

	"go.uber.org/goleak"
)

var pool redistest.Pool

func TestMain(m *testing.M) { goleak.VerifyTestMain(pool.Closing(m)) }

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
		c := clocktest.New()
		of := pool.Take(t, form)
		return &catalogtest.Fixture{
			Catalog: wrap(open(t, redisdbtest.Open(t, of, c)), c),
			Shards:  1024,
			Elapse:  c.Advance,
			Reopen:  func() catalog.Catalog { return wrap(open(t, redisdbtest.Open(t, of, c)), c) },
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
