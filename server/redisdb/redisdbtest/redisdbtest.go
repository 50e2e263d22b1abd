// Package redisdbtest opens the databases of deployments that package redistest started, for the tests of what lies in them.
package redisdbtest

import (
	"sync"
	"testing"
	"time"

	"carillon/server/clock"
	"carillon/server/redisdb"
	"carillon/server/redistest"
)

// Config returns how a deployment is reached.
func Config(of *redistest.Redis) redisdb.Config {
	a := of.Access()
	return redisdb.Config{
		Mode: redisdb.Mode(a.Mode), Addrs: a.Addrs, Master: a.MasterName, Username: a.Username, Password: a.Password, TLS: a.TLS,
	}
}

// Open opens a deployment until the test ends, or it is closed before. Without a clock the server's own counts, as it does outside of tests.
func Open(t testing.TB, of *redistest.Redis, c clock.Clock) *redisdb.DB {
	t.Helper()
	config := Config(of)
	config.Clock = c
	db, err := redisdb.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// Clock is a clock that stands still until it is moved. Only Now is its own.
type Clock struct {
	clock.Clock
	mu  sync.Mutex
	now time.Time // guarded by mu
}

// NewClock returns a clock at a fixed moment.
func NewClock() *Clock {
	return &Clock{Clock: clock.System, now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
}

// Now returns the moment that the clock stands at.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock, back if d is below zero.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}
