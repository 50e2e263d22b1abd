package redisdb

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"carillon/server/push"

	"github.com/redis/go-redis/v9"
)

// standing is what a look at a primary found.
type standing struct {
	seen    bool        // somebody looked
	primary bool        // it takes writes
	loading bool        // it is reading its data in
	weak    *push.Error // the settings keep less than what is asked for; nil: they suffice
	full    bool
	hidden  bool // the operator vouches for settings that the server hides

	used, max  int64 // bytes; max 0: no limit
	replicas   int   // that are connected now: no measure of what a write survives
	minWriters int   // min-replicas-to-write
}

// fullPercent of maxmemory is where the store counts as full for what does not free: so that connects, leases and recalls never meet a
// Redis that refuses them.
const fullPercent = 90

// look asks a server for what matters, in one round trip.
func (db *DB) look(ctx context.Context, c redis.Cmdable) (*standing, error) {
	var info, settings *redis.Cmd
	var memory, persistence *redis.Cmd
	_, _ = c.Pipelined(ctx, func(p redis.Pipeliner) error { // each command has its own error
		info = p.Do(ctx, "INFO", "replication")
		memory = p.Do(ctx, "INFO", "memory")
		persistence = p.Do(ctx, "INFO", "persistence")
		settings = p.Do(ctx, "CONFIG", "GET", "appendonly", "appendfsync", "no-appendfsync-on-rewrite", "min-replicas-to-write", "maxmemory-policy")
		return nil
	})
	values := map[string]string{}
	for _, part := range []*redis.Cmd{info, memory, persistence} {
		text, err := part.Text()
		if err != nil {
			return nil, fmt.Errorf("ask for its state: %w", err)
		}
		for l := range strings.Lines(text) {
			if name, v, ok := strings.Cut(strings.TrimRight(l, "\r\n"), ":"); ok {
				values[name] = v
			}
		}
	}
	s := &standing{
		seen: true, primary: values["role"] == "master", loading: values["loading"] == "1",
		used: integer(values["used_memory"]) - integer(values["mem_not_counted_for_evict"]), max: integer(values["maxmemory"]),
		replicas: int(integer(values["connected_slaves"])),
	}
	s.full = s.max > 0 && s.used >= s.max/100*fullPercent
	got, err := settings.Slice()
	switch {
	case err == nil:
		for i := 0; i+1 < len(got); i += 2 {
			values[fmt.Sprint(got[i])] = fmt.Sprint(got[i+1])
		}
		s.minWriters = int(integer(values["min-replicas-to-write"]))
		s.weak = weakness(values, db.config.Durability)
	case !answered(err):
		return nil, fmt.Errorf("ask for its settings: %w", err)
	case db.config.Asserted:
		s.hidden = true
		s.weak = policy(values["maxmemory_policy"])
	default:
		s.weak = weak("the server hides its settings (%s): let the user run CONFIG GET, or vouch for appendonly yes, appendfsync %s and maxmemory-policy noeviction",
			firstWord(err.Error()), wantedFsync(db.config.Durability))
	}
	return s, nil
}

// checkForm returns an error if the server is of another form than the configuration says: one of a cluster would answer for a part of the keys
// alone, and a sentinel for none. One that does not say what it is passes.
func (db *DB) checkForm(ctx context.Context, p *primary) error {
	text, err := p.plain.Info(ctx, "server").Result()
	if err != nil {
		return fmt.Errorf("ask for its form: %w", err)
	}
	want := "standalone"
	if db.config.Mode == Cluster {
		want = "cluster"
	}
	if is := infoField(text, "redis_mode"); is != "" && is != want {
		return push.Errorf(push.KindInvalid, "store_refused", "it is a server of mode %s, and the configuration says %s", is, db.config.Mode)
	}
	return nil
}

// mayConnect returns why no write may be sent over a new connection.
func (s *standing) mayConnect() error {
	switch {
	case s.loading:
		return errors.New("it is reading its data in")
	case !s.primary:
		return errors.New("it is a replica")
	case s.weak != nil:
		return s.weak
	}
	return nil
}

func weak(format string, args ...any) *push.Error {
	return &push.Error{Kind: push.KindUnavailable, Code: "store_weak", After: 10 * comeBack, Detail: fmt.Sprintf(format, args...)}
}

func wantedFsync(d push.Durability) string {
	if d == push.DurabilityDisk {
		return "always"
	}
	return "everysec or always"
}

// weakness returns what of the settings keeps less than was asked for, and what to set it to. Replicated writes need the file too: a
// primary that comes back empty before anybody took its place empties its replicas.
func weakness(settings map[string]string, d push.Durability) *push.Error {
	if v := settings["appendonly"]; v != "yes" {
		return weak("appendonly is %s: set it to yes, or a restart of the server loses everything", v)
	}
	v := settings["appendfsync"]
	switch {
	case d == push.DurabilityDisk && v != "always":
		return weak("appendfsync is %s: set it to always, as durability %s asks for", v, d)
	case d == push.DurabilityDisk && settings["no-appendfsync-on-rewrite"] != "no":
		return weak("no-appendfsync-on-rewrite is %s: set it to no, or nothing is flushed while the file is rewritten", settings["no-appendfsync-on-rewrite"])
	case v != "always" && v != "everysec":
		return weak("appendfsync is %s: set it to %s", v, wantedFsync(d))
	}
	return policy(settings["maxmemory-policy"])
}

func policy(v string) *push.Error {
	if v == "noeviction" {
		return nil
	}
	return weak("maxmemory-policy is %s: set it to noeviction, or a full server throws away messages that were accepted", v)
}

// answered reports whether the server gave the error, rather than nobody.
func answered(err error) bool {
	var e redis.Error
	return errors.As(err, &e)
}

func firstWord(s string) string {
	w, _, _ := strings.Cut(s, " ")
	return w
}

func integer(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}
