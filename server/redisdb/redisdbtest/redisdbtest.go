// Package redisdbtest opens the databases of deployments that package redistest started, for the tests of what lies in them.
package redisdbtest

import (
	"testing"

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
