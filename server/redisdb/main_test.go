package redisdb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/redistest"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

var pool redistest.Pool

func TestMain(m *testing.M) { goleak.VerifyTestMain(pool.Closing(m)) }

// configOf returns the configuration by which a deployment is reached.
func configOf(r *redistest.Redis) Config {
	a := r.Access()
	return Config{
		Mode: Mode(a.Mode), Addrs: a.Addrs, Master: a.MasterName, Username: a.Username, Password: a.Password, TLS: a.TLS,
		Timeout: 5 * time.Second, Watch: 50 * time.Millisecond,
	}
}

// open opens a deployment until the test ends; change may change how.
func open(t testing.TB, r *redistest.Redis, change ...func(*Config)) *DB {
	t.Helper()
	c := configOf(r)
	c.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	for _, ch := range change {
		ch(&c)
	}
	db, err := Open(t.Context(), c)
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

// everyForm runs a test on each form of Redis.
func everyForm(t *testing.T, f func(t *testing.T, r *redistest.Redis)) {
	for _, form := range []redistest.Form{redistest.FormStandalone, redistest.FormSentinel, redistest.FormCluster} {
		t.Run(string(form), func(t *testing.T) { f(t, pool.Take(t, form)) })
	}
}

func tagOf(n int) Tag { return ShardTag("shop", push.Shard(n)) }

// set writes a string and wants it done.
func set(t testing.TB, db *DB, tag Tag, name, value string) *Write {
	t.Helper()
	w := &Write{Tag: tag, Do: []Command{{Name: "SET", Key: tag.Key("x", name), Args: []any{value}}}}
	db.Write(t.Context(), w)
	if w.Err != nil || !w.Done {
		t.Fatalf("write of %s: done %v, error %v", name, w.Done, w.Err)
	}
	return w
}

// get reads a string, nil if there is none.
func get(t testing.TB, db *DB, tag Tag, name string) any {
	t.Helper()
	r := &Read{Tag: tag, Do: []Command{{Name: "GET", Key: tag.Key("x", name)}}}
	db.Read(t.Context(), r)
	if r.Err != nil {
		t.Fatalf("read of %s: %v", name, r.Err)
	}
	return r.Replies[0]
}

// wantCode wants an error of that kind and code.
func wantCode(t testing.TB, err error, kind push.Kind, code string) {
	t.Helper()
	var e *push.Error
	if !errors.As(err, &e) || e.Kind != kind || e.Code != code {
		t.Fatalf("got error %v, want %s", err, code)
	}
}

// until asks again and again, until ok says so.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("it did not come to it that %s", what)
		case <-tick.C:
		}
	}
}

func name(i int) string { return fmt.Sprintf("n%d", i) }

// counts reads metrics.
type counts struct{ *prometheus.Registry }

func newCounts() counts { return counts{prometheus.NewRegistry()} }

// count returns how many observations a histogram of that class has.
func (c counts) count(t testing.TB, name, class string) int {
	t.Helper()
	families, err := c.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && m.GetLabel()[0].GetValue() == class {
				return int(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return 0
}

var redisLibraries = redis.FunctionListQuery{LibraryNamePattern: "carillon_*"}
