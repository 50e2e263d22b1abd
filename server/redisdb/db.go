package redisdb

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"carillon/server/push"

	"github.com/redis/go-redis/v9"
)

//go:embed carillon.lua
var library string

// DB is Redis as stores use it. All methods are safe for concurrent use.
type DB struct {
	// Static after Open.
	config  Config
	client  redis.UniversalClient
	cluster *redis.ClusterClient // nil unless Mode is Cluster
	closed  atomic.Bool
}

// Open connects, loads the functions on every primary, and checks that the server keeps what Durability promises.
func Open(ctx context.Context, c Config) (*DB, error) {
	if c.Mode == "" {
		c.Mode = Standalone
	}
	if c.Durability == push.DurabilityNone {
		c.Durability = push.DurabilityProcess
	}
	if c.Timeout == 0 {
		c.Timeout = 5 * time.Second
	}
	if len(c.Addrs) == 0 || c.Durability == push.DurabilityReplicated && c.Replicas < 1 || c.Mode == Sentinel && c.Master == "" {
		return nil, push.Errorf(push.KindInvalid, "invalid_config", "Redis needs addresses, the sentinels a master, and replicated writes a number of replicas")
	}
	o := &redis.UniversalOptions{
		Addrs: c.Addrs, MasterName: c.Master, IsClusterMode: c.Mode == Cluster,
		Username: c.Username, Password: c.Password, SentinelUsername: c.SentinelUsername, SentinelPassword: c.SentinelPassword,
		DB: c.Database, TLSConfig: c.TLS, Protocol: 2, MaxRetries: -1, DisableIdentity: true,
		DialTimeout: c.Timeout, ReadTimeout: c.Timeout, WriteTimeout: c.Timeout, ContextTimeoutEnabled: true,
	}
	db := &DB{config: c, client: redis.NewUniversalClient(o)}
	db.cluster, _ = db.client.(*redis.ClusterClient)
	if err := db.eachMaster(ctx, db.load); err != nil {
		return nil, errors.Join(fmt.Errorf("redisdb: open: %w", unavailable(err)), db.client.Close())
	}
	return db, nil
}

func (db *DB) eachMaster(ctx context.Context, do func(context.Context, redis.UniversalClient) error) error {
	if db.cluster == nil {
		return do(ctx, db.client)
	}
	return db.cluster.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error { return do(ctx, c) })
}

func (db *DB) load(ctx context.Context, c redis.UniversalClient) error {
	return c.FunctionLoadReplace(ctx, library).Err()
}

// Close ends the connections. Later calls fail with KindClosed.
func (db *DB) Close() error {
	if db.closed.Swap(true) {
		return nil
	}
	return db.client.Close()
}

// Durability returns what a write survives.
func (db *DB) Durability() push.Durability { return db.config.Durability }

// now is what the functions take for the time: empty for the server's own.
func (db *DB) now() string {
	if db.config.Clock == nil {
		return ""
	}
	return strconv.FormatInt(db.config.Clock.Now().UnixMilli(), 10)
}

// Read fills in the answers. Reads of one call share round trips, and are not of one moment with each other.
func (db *DB) Read(ctx context.Context, rs ...*Read) {
	g := db.group()
	for _, r := range rs {
		c := g.call("carillon_read", r.Tag)
		c.read(r)
	}
	db.run(ctx, g.calls)
}

// Write tries each write and fills in the answers. Writes of one call share round trips and flushes, are done in the order
// given where their tags are the same, and succeed or fail each by itself.
func (db *DB) Write(ctx context.Context, ws ...*Write) {
	g := db.group()
	for _, w := range ws {
		name := "carillon_write"
		if w.Frees {
			name = "carillon_free"
		}
		c := g.call(name, w.Tag)
		c.write(w)
	}
	db.run(ctx, g.calls)
}

// group collects units into calls: on a cluster those of one tag, otherwise any.
type group struct {
	db    *DB
	now   string
	last  map[string]*call
	calls []tagged
}

type tagged struct {
	tag Tag
	*call
}

func (db *DB) group() *group { return &group{db: db, now: db.now(), last: make(map[string]*call)} }

func (g *group) call(function string, t Tag) *call {
	k := function
	if g.db.cluster != nil {
		k += string(t)
	}
	c := g.last[k]
	if c == nil || c.full() {
		c = &call{}
		c.begin(function, g.now)
		g.last[k] = c
		g.calls = append(g.calls, tagged{t, c})
	}
	return c
}

// run sends the calls, those of one primary in one pipeline.
func (db *DB) run(ctx context.Context, calls []tagged) {
	if db.closed.Load() {
		for _, c := range calls {
			c.fail(errClosed())
		}
		return
	}
	if db.cluster == nil {
		db.pipeline(ctx, db.client, calls)
		return
	}
	by := make(map[*redis.Client][]tagged)
	for _, c := range calls {
		m, err := db.cluster.MasterForKey(ctx, "{"+string(c.tag)+"}")
		if err != nil {
			c.fail(unavailable(err))
			continue
		}
		by[m] = append(by[m], c)
	}
	var wg sync.WaitGroup
	for m, calls := range by {
		wg.Go(func() { db.pipeline(ctx, m, calls) })
	}
	wg.Wait()
}

// pipeline sends calls to one primary, with WAIT behind them on the same connection where a write needs it.
func (db *DB) pipeline(ctx context.Context, to redis.UniversalClient, calls []tagged) {
	p := to.Pipeline()
	cmds := make([]*redis.Cmd, len(calls))
	wait := false
	for i, c := range calls {
		cmds[i] = p.FCall(ctx, c.function, c.keys, c.args...)
		for _, w := range c.writes {
			wait = wait || !w.Lax && db.config.Durability == push.DurabilityReplicated
		}
	}
	var waited *redis.Cmd
	if wait {
		waited = p.Do(ctx, "WAIT", db.config.Replicas, db.config.Timeout.Milliseconds()*9/10)
	}
	_, _ = p.Exec(ctx) // each command has its own error
	for i, c := range calls {
		reply, err := cmds[i].Result()
		if err != nil {
			c.fail(unavailable(err))
			continue
		}
		c.answer(reply)
	}
	if waited == nil {
		return
	}
	n, err := waited.Int()
	if err == nil && n >= db.config.Replicas {
		return
	}
	if err == nil {
		err = fmt.Errorf("%d of %d replicas have the write", n, db.config.Replicas)
	}
	for _, c := range calls {
		for _, w := range c.writes {
			if w.Done && !w.Lax {
				w.Done, w.Err = false, unavailable(err)
			}
		}
	}
}

func errClosed() error { return push.Errorf(push.KindClosed, "closed", "the store is closed") }

// unavailable translates what went wrong on the way.
func unavailable(err error) error {
	e := &push.Error{Kind: push.KindUnavailable, Code: "store_unavailable", After: time.Second, Err: err}
	if strings.HasPrefix(err.Error(), "OOM ") {
		e.Code = "store_full"
	}
	return e
}
