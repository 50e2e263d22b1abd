package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"carillon/server/bench/child"
)

// store is the Redis that a server keeps everything in: one that was started for it, or one that runs.
type store struct {
	primary redisNode
	replica *redisNode // nil: there is none that we know of
}

// redisNode is one server of it.
type redisNode struct {
	addr   string
	client *redis.Client
	child  *child.Process // nil: it was there before us
	dir    string
}

// startStore starts a Redis in a directory of its own, with a replica where replicas are to be waited for.
func startStore(ctx context.Context, cfg Config, dir string, replicated bool) (s *store, err error) {
	s = &store{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	if s.primary, err = startRedis(ctx, cfg, filepath.Join(dir, "redis")); err != nil || !replicated {
		return s, err
	}
	host, port, err := net.SplitHostPort(s.primary.addr)
	if err != nil {
		return s, err
	}
	replica, err := startRedis(ctx, cfg, filepath.Join(dir, "replica"), "--replicaof", host+" "+port)
	s.replica = &replica
	if err != nil {
		return s, err
	}
	return s, replica.until(ctx, "follows the primary", func(info map[string]string) bool { return info["master_link_status"] == "up" })
}

// attachStore takes a Redis that runs on this machine.
func attachStore(ctx context.Context, addr string) (*store, error) {
	host, _, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return nil, usagef("--redis %q: the bench loads a Redis on this machine alone, by a loopback address and a port", addr)
	}
	s := &store{primary: redisNode{addr: addr, client: newRedisClient(addr)}}
	info, err := s.primary.info(ctx, "replication")
	if err == nil && info["role"] != "master" {
		err = fmt.Errorf("redis at %s is a replica", addr)
	}
	if err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

func newRedisClient(addr string) *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: addr, MaxRetries: -1, DialerRetries: 1, DisableIdentity: true, ContextTimeoutEnabled: true, PoolSize: 4,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
}

// portTries is how often a port is looked for: another process may take it before Redis does.
const portTries = 5

// startRedis starts a server with the settings that docs/operations/redis.md asks for.
func startRedis(ctx context.Context, cfg Config, dir string, more ...string) (n redisNode, err error) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return n, fmt.Errorf("there is no redis-server on this machine: install it (on Debian the package redis-server), or name one that runs with --redis: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return n, fmt.Errorf("redis: %w", err)
	}
	for range portTries {
		if n, err = tryRedis(ctx, cfg, path, dir, more); err == nil || ctx.Err() != nil {
			return n, err
		}
	}
	return n, err
}

func tryRedis(ctx context.Context, cfg Config, path, dir string, more []string) (n redisNode, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return n, fmt.Errorf("redis: %w", err)
	}
	n.addr, n.dir = l.Addr().String(), dir
	_, port, err := net.SplitHostPort(n.addr)
	if err = errors.Join(err, l.Close()); err != nil {
		return n, fmt.Errorf("redis: %w", err)
	}
	args := append([]string{
		path, "--bind", "127.0.0.1", "--port", port, "--dir", dir, "--logfile", filepath.Join(dir, "log"), "--save", "",
		"--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction",
		"--auto-aof-rewrite-min-size", "1gb", // as docs/operations/redis.md advises
	}, more...)
	if n.child, err = child.Start(args, cfg.Env); err != nil {
		return n, err
	}
	n.client = newRedisClient(n.addr)
	pid := strconv.Itoa(n.child.PID())
	err = n.until(ctx, "is ready", func(info map[string]string) bool { return info["process_id"] == pid && info["loading"] == "0" })
	if err != nil {
		return n, errors.Join(err, n.stop())
	}
	return n, nil
}

// until asks the server again and again until it is as it should be.
func (n *redisNode) until(ctx context.Context, what string, ok func(map[string]string) bool) error {
	err := awaitReady(ctx, n.child, func(ctx context.Context) (bool, error) {
		if c, err := net.Dial("tcp", n.addr); err != nil { // the client would write its complaint to standard error
			return false, nil
		} else if err := c.Close(); err != nil {
			return false, nil
		}
		info, err := n.info(ctx, "everything")
		return err == nil && ok(info), nil
	})
	if err != nil {
		return fmt.Errorf("redis: it was waited until it %s: %w", what, err)
	}
	return nil
}

// info returns what a section of INFO says.
func (n *redisNode) info(ctx context.Context, sections ...string) (map[string]string, error) {
	text, err := n.client.Info(ctx, sections...).Result()
	if err != nil {
		return nil, fmt.Errorf("redis: info: %w", err)
	}
	out := make(map[string]string)
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			out[name] = value
		}
	}
	return out, nil
}

// spent is what a server has done so far, or between two moments.
type spent struct {
	cpu      time.Duration // of the process
	children time.Duration // of those that rewrote its file and are gone
	commands float64       // also those within functions
}

func (n *redisNode) spent(ctx context.Context) (s spent, err error) {
	info, err := n.info(ctx, "cpu", "stats")
	if err != nil {
		return s, err
	}
	seconds := func(names ...string) (d time.Duration) {
		for _, name := range names {
			v, e := strconv.ParseFloat(info[name], 64)
			err = errors.Join(err, e)
			d += time.Duration(v * float64(time.Second))
		}
		return d
	}
	s.cpu, s.children = seconds("used_cpu_user", "used_cpu_sys"), seconds("used_cpu_user_children", "used_cpu_sys_children")
	commands, e := strconv.ParseFloat(info["total_commands_processed"], 64)
	s.commands = commands
	if err = errors.Join(err, e); err != nil {
		return s, fmt.Errorf("redis: info: %w", err)
	}
	return s, nil
}

// since returns what was done after an earlier moment, and not for asking.
func (n *redisNode) since(ctx context.Context, before spent) (spent, error) {
	s, err := n.spent(ctx)
	return spent{cpu: s.cpu - before.cpu, children: s.children - before.children, commands: s.commands - before.commands - 1}, err
}

// memory returns what the data takes: values, keys, and the tables that keys and their times to live lie in.
func (n *redisNode) memory(ctx context.Context) (bytes int64, err error) {
	all, err := n.client.Do(ctx, "MEMORY", "STATS").Result()
	if err != nil {
		return 0, fmt.Errorf("redis: memory: %w", err)
	}
	stats, _ := all.(map[any]any)
	bytes, ok := stats["dataset.bytes"].(int64)
	if !ok {
		return 0, errors.New("redis: MEMORY STATS says nothing of the dataset")
	}
	if tables, ok := stats["db.0"].(map[any]any); ok { // there is none while it is empty
		for _, of := range tables {
			n, _ := of.(int64)
			bytes += n
		}
	}
	return bytes, nil
}

// text says what it is, for whoever reads the figures.
func (s *store) text(ctx context.Context) (string, error) {
	info, err := s.primary.info(ctx, "server")
	if err != nil {
		return "", err
	}
	settings, err := s.primary.client.ConfigGet(ctx, "appendfsync").Result()
	if err != nil {
		return "", fmt.Errorf("redis: %w", err)
	}
	text := "Redis " + info["redis_version"] + ", appendfsync " + settings["appendfsync"]
	if s.replica != nil {
		text += ", one replica"
	}
	if s.primary.child == nil {
		text += ", was running before"
	}
	return text, nil
}

// stop ends what was started here.
func (s *store) stop() error {
	var err error
	if s.replica != nil {
		err = s.replica.stop()
	}
	return errors.Join(err, s.primary.stop())
}

func (n *redisNode) stop() (err error) {
	if n.client != nil {
		err = n.client.Close()
		n.client = nil
	}
	if n.child != nil {
		if gone := n.child.Err(); gone != nil {
			err = errors.Join(err, fmt.Errorf("redis: %w", gone))
		}
		n.child.Kill() // its files go with it
		n.child = nil
	}
	return err
}
