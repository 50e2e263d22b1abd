package memory

import (
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"carillon/server/catalog"
	"carillon/server/catalog/catalogtest"
	"carillon/server/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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

func newFixture(t *testing.T) *catalogtest.Fixture {
	c := newHandClock()
	m := New(Config{Clock: c})
	t.Cleanup(func() { m.Close() })
	return &catalogtest.Fixture{Catalog: m, Elapse: c.move}
}

func TestConformance(t *testing.T) { catalogtest.Run(t, newFixture) }

// TestConformance_ThroughCache holds the cache to the contract too.
func TestConformance_ThroughCache(t *testing.T) {
	catalogtest.Run(t, func(t *testing.T) *catalogtest.Fixture {
		c := newHandClock()
		cache := catalog.NewCache(New(Config{Clock: c}), catalog.CacheConfig{Clock: c})
		t.Cleanup(func() { cache.Close() })
		return &catalogtest.Fixture{Catalog: cache, Elapse: c.move}
	})
}
