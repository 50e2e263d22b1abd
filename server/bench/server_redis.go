package bench

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"carillon/server/bench/child"
	"carillon/server/bench/sample"
	"carillon/server/dev"
)

// onRedis is a scenario whose server keeps everything in Redis.
type onRedis interface {
	// redis returns the address of one that runs, empty if it is to be started, and what an accepted message has to survive there.
	redis() (addr, durability string)
	// shards returns how many shards the product has that is made for the scenario.
	shards() int
}

// durabilityReplicated is the durability that takes a replica.
const durabilityReplicated = "replicated"

// startOnRedis starts a Redis, unless one is named, and a server on it, with a product of its own.
func (w *world) startOnRedis(ctx context.Context, s Scenario, r onRedis) (err error) {
	addr, durability := r.redis()
	temp, err := os.MkdirTemp(w.cfg.Dir, "carillon-bench.")
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	w.server = &server{temp: temp, data: temp, env: w.cfg.Env, flags: w.cfg.ServerFlags}
	if addr != "" {
		w.redis, err = attachStore(ctx, addr)
	} else {
		w.redis, err = startStore(ctx, w.cfg, temp, durability == durabilityReplicated)
	}
	if err != nil {
		return errors.Join(err, w.server.stop())
	}
	err = w.server.startOnRedis(ctx, w.cfg, s.heartbeat(), w.redis.primary.addr, durability)
	if err == nil {
		err = w.server.makeProduct(ctx, r.shards())
	}
	if err != nil {
		stopping := w.stop()
		if errors.Is(err, errNotStarted) { // it says already how it ended
			stopping = nil
		}
		return errors.Join(err, stopping)
	}
	return nil
}

// startOnRedis starts a node of a cluster that has no other and waits until it takes requests.
func (s *server) startOnRedis(ctx context.Context, cfg Config, heartbeat time.Duration, addr, durability string) (err error) {
	secret := rand.Text() + rand.Text()
	s.file = dev.File{Secret: secret}
	args := []string{cfg.Executable, "serve"}
	for _, d := range [][2]string{
		{"--public-listen", "127.0.0.1:0"}, {"--admin-listen", "127.0.0.1:0"}, {"--tcp-listen", "127.0.0.1:0"}, {"--node-listen", "127.0.0.1:0"},
		{"--log-level", "info"}, // it tells its addresses
		{"--heartbeat-interval", heartbeat.String()}, {"--shutdown-timeout", shutdownTimeout}, {"--store-kind", "redis"},
		{"--redis-addresses", addr}, {"--redis-durability", durability}, {"--redis-replicas", "1"}, {"--node-id", "server"},
	} {
		if !cfg.gives(d[0]) {
			args = append(args, d[0]+"="+d[1])
		}
	}
	env := append(append([]string(nil), cfg.Env...), "CARILLON_SECRET="+secret, "CARILLON_NODE_SECRET="+secret)
	if s.child, err = child.Start(append(args, cfg.ServerFlags...), env); err != nil {
		return err
	}
	s.pid = s.child.PID()
	return awaitReady(ctx, s.child, func(ctx context.Context) (bool, error) {
		if s.public == "" {
			s.listensAt(s.child.Said())
		}
		if s.public == "" {
			return false, nil
		}
		_, err := s.ready(ctx)
		return err == nil, nil
	})
}

// listensAt finds the addresses in what a server logs when it begins to serve.
func (s *server) listensAt(log string) {
	for line := range strings.Lines(log) {
		if !strings.Contains(line, "msg=serving ") || !strings.Contains(line, " version=") { // not all of it was written yet
			continue
		}
		for field := range strings.FieldsSeq(line) {
			switch name, value, _ := strings.Cut(field, "="); name {
			case "public":
				s.public, s.file.Public = value, "http://"+value
			case "admin":
				s.file.Admin = "http://" + value
			}
		}
	}
}

// makeProduct makes a product of its own name, so that nobody else's users are among those of a Redis that was there before.
func (s *server) makeProduct(ctx context.Context, shards int) error {
	s.file.Product = "bench-" + strings.ToLower(rand.Text()[:6])
	var made struct {
		Shards int `json:"shards"`
	}
	at := "/admin/v1/products"
	if err := s.ask(ctx, at, map[string]any{"id": s.file.Product, "shards": shards}, &made); err != nil {
		return err
	}
	if made.Shards != shards {
		return fmt.Errorf("the product has %d shards, and not %d", made.Shards, shards)
	}
	var key struct {
		ID     string `json:"id"`
		Secret []byte `json:"secret_base64"`
	}
	if err := s.ask(ctx, at+"/"+s.file.Product+"/device-keys", map[string]any{"alg": "HS256", "name": "bench"}, &key); err != nil {
		return err
	}
	s.file.KeyID, s.file.Key = key.ID, key.Secret
	var api struct {
		Key string `json:"key"`
	}
	err := s.ask(ctx, at+"/"+s.file.Product+"/api-keys", map[string]any{"name": "bench", "scopes": []string{"*"}}, &api)
	s.file.APIKey = api.Key
	return err
}

// ask sends the admin listener something to do.
func (s *server) ask(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return s.adminDo(ctx, http.MethodPost, path, body, func(b []byte) error { return json.Unmarshal(b, out) })
}

// pipelines returns how many round trips the server has made to Redis so far: one for each pipeline that it sent.
func (s *server) pipelines(ctx context.Context) (n float64, err error) {
	const name = "carillon_redis_pipeline_seconds_count{"
	found := false
	err = s.adminDo(ctx, http.MethodGet, "/metrics", nil, func(b []byte) error {
		for line := range strings.Lines(string(b)) {
			if !strings.HasPrefix(line, name) {
				continue
			}
			v, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(strings.TrimSpace(line), ' ')+1:]), 64)
			if err != nil {
				return err
			}
			n, found = n+v, true
		}
		if !found {
			return errors.New("it does not count what it sends to Redis")
		}
		return nil
	})
	return n, err
}

// where returns the directory of the data, for the kind of its file system.
func (s *store) where(ctx context.Context) (string, error) {
	if s.primary.dir != "" {
		return s.primary.dir, nil
	}
	dir, err := s.primary.client.ConfigGet(ctx, "dir").Result()
	if err != nil {
		return "", fmt.Errorf("redis: %w", err)
	}
	return filepath.Clean(dir["dir"]), nil
}

// describe adds to the facts what the data lies in.
func (s *store) describe(ctx context.Context, f *ServerFacts) (err error) {
	if f.Redis, err = s.text(ctx); err != nil {
		return err
	}
	dir, err := s.where(ctx)
	if err != nil {
		return err
	}
	f.Filesystem, err = sample.Filesystem(dir)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) { // of another user, or in a container
		f.Filesystem, err = "a file system that cannot be seen", nil
	}
	return err
}
