package memory

import (
	"testing"

	"go.uber.org/goleak"

	"carillon/server/catalog"
	"carillon/server/catalog/catalogtest"
	"carillon/server/clock/clocktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newFixture(t *testing.T) *catalogtest.Fixture {
	c := clocktest.New()
	m := New(Config{Clock: c})
	t.Cleanup(func() { m.Close() })
	return &catalogtest.Fixture{Catalog: m, Shards: 64, Elapse: c.Advance}
}

func TestConformance(t *testing.T) { catalogtest.Run(t, newFixture) }

// TestConformance_ThroughCache holds the cache to the contract too.
func TestConformance_ThroughCache(t *testing.T) {
	catalogtest.Run(t, func(t *testing.T) *catalogtest.Fixture {
		c := clocktest.New()
		cache := catalog.NewCache(New(Config{Clock: c}), catalog.CacheConfig{Clock: c})
		t.Cleanup(func() { cache.Close() })
		return &catalogtest.Fixture{Catalog: cache, Shards: 64, Elapse: c.Advance}
	})
}
