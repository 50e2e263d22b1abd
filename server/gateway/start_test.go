package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"carillon/server/client"
	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/redisdb/redisdbtest"
	"carillon/server/redistest"
)

// opening is a node of a cluster that is being opened.
type opening struct {
	stop  context.CancelFunc
	logs  *safeBuffer
	found chan *Gateway // what New returned; nil with an error
	err   error         // of New; to be read after found

	mu    sync.Mutex
	addrs map[string]string // guarded by mu; where it listens last, by what was configured
}

// openNode opens a node on Redis; change may change what it is given.
func openNode(t *testing.T, r *redistest.Redis, change func(*Config)) *opening {
	t.Helper()
	o := &opening{logs: &safeBuffer{}, found: make(chan *Gateway, 1), addrs: make(map[string]string)}
	cfg := Config{
		Secret: secret, PublicListen: "127.0.0.1:0", AdminListen: "localhost:0", ShutdownTimeout: 10 * time.Second,
		Log:     slog.New(slog.NewTextHandler(o.logs, nil)),
		Cluster: &Cluster{ID: "north", Listen: "127.0.0.1:0", Secret: secret, Redis: redisdbtest.Config(r)},
		Listen: func(network, address string) (net.Listener, error) {
			l, err := net.Listen(network, address)
			if err == nil {
				o.mu.Lock()
				defer o.mu.Unlock()
				o.addrs[address] = l.Addr().String()
			}
			return l, err
		},
	}
	change(&cfg)
	ctx, stop := context.WithCancel(context.Background())
	o.stop = stop
	t.Cleanup(stop)
	go func() {
		g, err := New(ctx, cfg)
		o.err = err
		o.found <- g
	}()
	return o
}

// at returns where the node listens, empty if it does not yet.
func (o *opening) at(configured string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.addrs[configured]
}

// says asks the admin listener for a path; status 0: nobody answers.
func (o *opening) says(path string) (status int, a ready) {
	resp, err := http.Get("http://" + o.at("localhost:0") + path)
	if err != nil {
		return 0, a
	}
	defer resp.Body.Close()
	_ = json.NewDecoder(resp.Body).Decode(&a)
	return resp.StatusCode, a
}

// awaitWaiting waits until the node says that it waits for Redis.
func (o *opening) awaitWaiting(t *testing.T) {
	t.Helper()
	eventually(t, networkPatience, func() bool {
		status, a := o.says("/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(a.Checks["store"], "waiting for Redis")
	}, o.logs.String)
}

func same(*Config) {}

func TestStart_ANodeWaitsForRedisAndGoesOn(t *testing.T) {
	r := redistest.Standalone(t)
	r.Servers()[0].Kill()
	o := openNode(t, r, same)
	o.awaitWaiting(t)
	if status, _ := o.says("/livez"); status != http.StatusOK {
		t.Errorf("/livez answers %d", status)
	}
	if status, _ := o.says("/metrics"); status != http.StatusOK {
		t.Errorf("/metrics answers %d", status)
	}
	if status, _ := o.says("/admin/v1/products"); status != http.StatusServiceUnavailable {
		t.Errorf("what needs Redis answers %d", status)
	}
	if _, a := o.says("/readyz"); !strings.Contains(a.Checks["store"], "refused") {
		t.Errorf("/readyz does not say why: %v", a.Checks)
	}
	if nc, err := net.Dial("tcp", o.at("127.0.0.1:0")); err == nil {
		nc.Close()
		t.Error("clients are taken by a node that can do nothing")
	}
	if err := r.Servers()[0].Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	g := <-o.found
	if o.err != nil {
		t.Fatal(o.err)
	}
	n := runNode(t, g, o.logs)
	if status, a := o.says("/readyz"); status != http.StatusOK {
		t.Errorf("/readyz answers %d, %v", status, a.Checks)
	}
	n.setUp()
	w := n.watch("alice", "phone", &client.Memory{})
	w.want(t, n.publish("alice", "at last"))
	w.leave(t)
	if logs := o.logs.String(); strings.Count(logs, `msg="waiting for Redis"`) == 0 || !strings.Contains(logs, `msg="Redis is there"`) {
		t.Errorf("the log does not tell what it waited for:\n%s", logs)
	}
}

func TestStart_ANodeThatWaitsForRedisEndsWhenItIsTold(t *testing.T) {
	r := redistest.Standalone(t)
	r.Servers()[0].Kill()
	o := openNode(t, r, same)
	o.awaitWaiting(t)
	o.stop()
	if g := <-o.found; g != nil || !errors.Is(o.err, context.Canceled) {
		t.Errorf("got %v, %v", g, o.err)
	}
	if status, _ := o.says("/livez"); status != 0 {
		t.Errorf("it answers still: %d", status)
	}
}

func TestStart_WhatWaitingDoesNotChangeEndsANodeAtOnce(t *testing.T) {
	closed, evicting := redistest.Standalone(t, redistest.Password("right")), redistest.Standalone(t, redistest.MaxMemoryPolicy("allkeys-lru"))
	for what, c := range map[string]struct {
		of     *redistest.Redis
		change func(*redisdb.Config)
		want   string
	}{
		"another password": {closed, func(c *redisdb.Config) { c.Password = "wrong" }, "WRONGPASS"},
		"no password":      {closed, func(c *redisdb.Config) { c.Password = "" }, "NOAUTH"},
		"another form":     {closed, func(c *redisdb.Config) { c.Mode = redisdb.Cluster }, "cluster support disabled"},
		"its settings":     {evicting, func(*redisdb.Config) {}, "maxmemory-policy is allkeys-lru: set it to noeviction"},
		"no settings":      {evicting, func(c *redisdb.Config) { c.Addrs = nil }, "addresses"},
	} {
		o := openNode(t, c.of, func(cfg *Config) { c.change(&cfg.Cluster.Redis) })
		if g := <-o.found; g != nil || push.KindOf(o.err) != push.KindInvalid || !strings.Contains(o.err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", what, o.err, c.want)
		}
		if logs := o.logs.String(); strings.Contains(logs, "waiting") {
			t.Errorf("%s: it waited: %s", what, logs)
		}
	}
}
