package redis

import (
	"context"
	"crypto/rand"
	"math/big"
	"os"
	"strconv"
	"sync"
	"testing"

	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/redisdb/redisdbtest"
	"carillon/server/redistest"
	"carillon/server/saver"
	"carillon/server/saver/savertest"

	goredis "github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

var pool redistest.Pool

func TestMain(m *testing.M) { goleak.VerifyTestMain(pool.Closing(m)) }

// fixture is some stores on one Redis, as so many nodes have them.
type fixture struct {
	redis   *redistest.Redis
	raw     goredis.UniversalClient
	clock   *savertest.Clock
	locator *savertest.Locator
	config  Config // DB and Shards are filled in
	slack   int    // if it is not the usual
	kept    int    // replicas that have to have what is written
	nodes   []node
}

type node struct {
	db    *redisdb.DB
	store *Store
}

func newFixture(t testing.TB, r *redistest.Redis, nodes int, c Config) *fixture {
	t.Helper()
	f := &fixture{redis: r, clock: savertest.NewClock(), locator: savertest.NewLocator(), config: c}
	f.raw = goredis.NewUniversalClient(r.Access().Options())
	t.Cleanup(func() {
		f.close()
		_ = f.raw.Close()
	})
	f.nodes = make([]node, nodes)
	f.open(t)
	f.locator.Tell(func(p push.ProductID, u push.UserID, rooms []push.RoomID, devices []push.DeviceID) {
		f.register(t, p, u, rooms, devices)
	})
	return f
}

func (f *fixture) open(t testing.TB) {
	t.Helper()
	for i := range f.nodes {
		c := redisdbtest.Config(f.redis)
		c.Clock = f.clock
		if f.kept > 0 {
			c.Durability, c.Replicas = push.DurabilityReplicated, f.kept
		}
		f.nodes[i] = f.node(t, c)
	}
}

// node opens one more store.
func (f *fixture) node(t testing.TB, d redisdb.Config) node {
	t.Helper()
	db, err := redisdb.Open(context.Background(), d)
	if err != nil {
		t.Fatal(err)
	}
	c := f.config
	c.DB, c.Shards = db, func(push.ProductID) int { return savertest.Shards }
	st, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if f.slack != 0 {
		st.slack = f.slack
	}
	return node{db, st}
}

func (f *fixture) close() {
	for i := range f.nodes {
		if n := &f.nodes[i]; n.db != nil {
			_ = n.store.Close()
			_ = n.db.Close()
			*n = node{}
		}
	}
}

// register writes who is online as the register does: a session of each device, and one for each room.
func (f *fixture) register(t testing.TB, p push.ProductID, u push.UserID, rooms []push.RoomID, devices []push.DeviceID) {
	t.Helper()
	ctx := context.Background()
	tag := tagOf(saver.UserRef{Product: p, Shards: savertest.Shards, User: u}.Shard())
	key, counts := tag.SessionsKey(), tag.Key(kindRooms, "")
	named := func(s string) string { return string(rune(len(s))) + s }
	const life = "abcdef"
	was := f.must(t, f.raw.HGet(ctx, key, string(u))).(string)
	redisdb.EachSession(was, func(r push.RoomID, _ push.DeviceID, _ string) {
		f.must(t, f.raw.HIncrBy(ctx, counts, named(string(r))+life, -1))
	})
	all := ""
	add := func(room, device string) {
		one := named(room) + named(device) + life
		all += string([]byte{byte(len(one) >> 8), byte(len(one))}) + one
		f.must(t, f.raw.HIncrBy(ctx, counts, named(room)+life, 1))
	}
	for i, r := range rooms {
		add(string(r), "device "+strconv.Itoa(i))
	}
	for _, d := range devices {
		add("elsewhere", string(d))
	}
	if all == "" {
		f.must(t, f.raw.HDel(ctx, key, string(u)))
		return
	}
	f.must(t, f.raw.HSet(ctx, key, string(u), all))
}

func (f *fixture) must(t testing.TB, c goredis.Cmder) any {
	t.Helper()
	if err := c.Err(); err != nil && err != goredis.Nil {
		t.Fatal(err)
	}
	switch c := c.(type) {
	case *goredis.StringSliceCmd:
		return c.Val()
	case *goredis.StringCmd:
		return c.Val()
	case *goredis.IntCmd:
		return c.Val()
	}
	return nil
}

// each runs f on every primary.
func (f *fixture) each(t testing.TB, do func(c goredis.UniversalClient)) {
	t.Helper()
	if c, ok := f.raw.(*goredis.ClusterClient); ok {
		err := c.ForEachMaster(context.Background(), func(_ context.Context, c *goredis.Client) error {
			do(c)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	do(f.raw)
}

// otherLineage gives every primary a replication id that it never had.
func (f *fixture) otherLineage(t testing.TB) {
	f.each(t, func(c goredis.UniversalClient) {
		if err := c.Do(context.Background(), "DEBUG", "CHANGE-REPL-ID").Err(); err != nil {
			t.Error(err)
		}
	})
}

// dump returns every key and what it holds.
func (f *fixture) dump(t testing.TB) map[string]string {
	t.Helper()
	out := make(map[string]string)
	var mu sync.Mutex
	ctx := context.Background()
	f.each(t, func(c goredis.UniversalClient) {
		keys := f.must(t, c.Keys(ctx, "*")).([]string)
		pipe := c.Pipeline()
		cmds := make([]*goredis.StringCmd, len(keys))
		for i, k := range keys {
			cmds[i] = pipe.Dump(ctx, k)
		}
		if len(keys) > 0 {
			if _, err := pipe.Exec(ctx); err != nil {
				t.Error(err)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		for i, k := range keys {
			out[k] = cmds[i].Val()
		}
	})
	return out
}

// restore makes Redis hold what dump returned, and nothing else.
func (f *fixture) restore(t testing.TB, all map[string]string) {
	t.Helper()
	ctx := context.Background()
	f.each(t, func(c goredis.UniversalClient) {
		if err := c.FlushAll(ctx).Err(); err != nil {
			t.Error(err)
		}
	})
	pipe := f.raw.Pipeline()
	for k, v := range all {
		pipe.Restore(ctx, k, 0, v)
	}
	if len(all) > 0 {
		if _, err := pipe.Exec(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// subject gives the fixture to the suite: every call goes to another node.
func (f *fixture) subject() *savertest.Subject {
	s := &savertest.Subject{Clock: f.clock, Locator: f.locator, AsksNobody: true, Store: f.store()}
	s.Sweep = func(ctx context.Context) error { return f.nodes[0].store.Sweep(ctx) }
	s.LoseBucket = f.loseBucket
	s.LoseSlot = func(t *testing.T, u saver.UserRef, k push.SlotKind) {
		keys := ownKeys(u)
		if k == push.Common {
			keys = slotKeys{tag: keys.tag, kind: k}
		}
		ctx := context.Background()
		f.must(t, f.raw.HDel(ctx, keys.state(), fieldState))
		f.must(t, f.raw.Del(ctx, keys.entries()))
		f.must(t, f.raw.Del(ctx, keys.aside()))
	}
	s.Reopen = func(t *testing.T) saver.Store {
		f.close()
		f.otherLineage(t)
		f.open(t)
		return f.store()
	}
	s.Mark = func(t *testing.T) func(t *testing.T) saver.Store {
		then := f.dump(t)
		return func(t *testing.T) saver.Store {
			f.restore(t, then)
			f.otherLineage(t)
			return f.store()
		}
	}
	return s
}

func (f *fixture) store() saver.Store {
	if len(f.nodes) == 1 {
		return f.nodes[0].store
	}
	var many nodes
	for _, n := range f.nodes {
		many = append(many, n.store)
	}
	return many
}

// loseBucket removes a body, and those of it that lie in entries.
func (f *fixture) loseBucket(t *testing.T, p push.ProductID, id push.MsgID) {
	ctx := context.Background()
	_, key := bodyKey(p, id)
	if n := f.must(t, f.raw.Del(ctx, key)).(int64); n > 0 {
		return
	}
	lost := 0
	for _, kind := range []string{kindEntries, "E"} {
		for shard := range savertest.Shards {
			pattern := tagOf(saver.ShardRef{Product: p, Shard: push.Shard(shard)}).Key(kind, "*")
			f.each(t, func(c goredis.UniversalClient) {
				for _, k := range f.must(t, c.Keys(ctx, pattern)).([]string) {
					for i, v := range f.must(t, c.LRange(ctx, k, 0, -1)).([]string) {
						e, err := saver.DecodeEntry([]byte(v))
						if err != nil || e.ID != id {
							continue
						}
						e.Message = nil
						if err := c.LSet(ctx, k, int64(i), saver.AppendEntry(nil, &e)).Err(); err != nil {
							t.Error(err)
						}
						lost++
					}
				}
			})
		}
	}
	if lost == 0 {
		t.Fatalf("no entry of message %d", id)
	}
}

// nodes is one store to the suite, of which each call goes to a random node.
type nodes []*Store

func (n nodes) any() *Store {
	i, err := rand.Int(rand.Reader, big.NewInt(int64(len(n))))
	if err != nil {
		panic(err)
	}
	return n[i.Int64()]
}

func (n nodes) Publish(ctx context.Context, ps []*saver.Publication) []saver.Published {
	return n.any().Publish(ctx, ps)
}
func (n nodes) Recall(ctx context.Context, r saver.Recall) (saver.Recalled, error) {
	return n.any().Recall(ctx, r)
}
func (n nodes) Message(ctx context.Context, p push.ProductID, id push.MsgID) (saver.Record, error) {
	return n.any().Message(ctx, p, id)
}
func (n nodes) Fence(ctx context.Context, f saver.Fence) error { return n.any().Fence(ctx, f) }
func (n nodes) Batches(ctx context.Context, bs []*saver.Batch) []saver.Batched {
	return n.any().Batches(ctx, bs)
}
func (n nodes) BatchRecords(ctx context.Context, ref saver.BatchesRef, ns []int) ([]*saver.BatchRecord, error) {
	return n.any().BatchRecords(ctx, ref, ns)
}
func (n nodes) Open(ctx context.Context, o saver.Open) (saver.Opened, error) {
	return n.any().Open(ctx, o)
}
func (n nodes) Read(ctx context.Context, rs []saver.Read) ([]saver.Tail, error) {
	return n.any().Read(ctx, rs)
}
func (n nodes) Ack(ctx context.Context, as []saver.Ack) ([]int, error) { return n.any().Ack(ctx, as) }
func (n nodes) User(ctx context.Context, u saver.UserRef) (saver.User, error) {
	return n.any().User(ctx, u)
}
func (n nodes) Devices(ctx context.Context, us []saver.UserRef) ([][]push.DeviceFacts, error) {
	return n.any().Devices(ctx, us)
}
func (n nodes) DeleteDevice(ctx context.Context, u saver.UserRef, d push.DeviceID) (bool, error) {
	return n.any().DeleteDevice(ctx, u, d)
}
func (n nodes) Tags(ctx context.Context, us []saver.UserRef) ([]saver.UserTags, error) {
	return n.any().Tags(ctx, us)
}
func (n nodes) Tagged(ctx context.Context, p push.ProductID, shards int, tag push.Tag, most int) ([]saver.TaggedUsers, error) {
	return n.any().Tagged(ctx, p, shards, tag, most)
}
func (n nodes) ChangeTags(ctx context.Context, cs []saver.TagChange) []saver.TagsChanged {
	return n.any().ChangeTags(ctx, cs)
}
func (n nodes) Changes(ctx context.Context, room push.RoomID, qs []saver.ChangeQuery) ([]saver.ChangeLog, error) {
	return n.any().Changes(ctx, room, qs)
}
func (n nodes) Heads(ctx context.Context, s saver.ShardRef, users []push.UserID) ([]push.Place, error) {
	return n.any().Heads(ctx, s, users)
}
func (n nodes) Lineage(ctx context.Context) (push.Lineage, error) { return n.any().Lineage(ctx) }
func (n nodes) Durability() push.Durability                       { return n[0].Durability() }
func (n nodes) Health(ctx context.Context) error                  { return n.any().Health(ctx) }
func (n nodes) Close() error {
	for _, s := range n {
		if err := s.Close(); err != nil {
			return err
		}
	}
	return nil
}

// fewSeeds bounds the random part of a further run of the suite, unless somebody asked for more.
func fewSeeds(t *testing.T, n int) {
	if os.Getenv(savertest.SeedsVariable) == "" {
		t.Setenv(savertest.SeedsVariable, strconv.Itoa(n))
	}
}

func TestConformance(t *testing.T) {
	savertest.Run(t, func(t *testing.T) *savertest.Subject {
		return newFixture(t, pool.Standalone(t), 1, Config{Inline: -1}).subject()
	})
}

// TestConformance_TwoNodes sends every call to one of two stores, so that what races in the suite races between nodes; small bodies lie
// in the entries here, as they do by default.
func TestConformance_TwoNodes(t *testing.T) {
	fewSeeds(t, 6)
	savertest.Run(t, func(t *testing.T) *savertest.Subject {
		return newFixture(t, pool.Standalone(t), 2, Config{}).subject()
	})
}

// TestConformance_EntriesAside moves entries out of the list as soon as there are some holes behind them.
func TestConformance_EntriesAside(t *testing.T) {
	fewSeeds(t, 12)
	savertest.Run(t, func(t *testing.T) *savertest.Subject {
		f := newFixture(t, pool.Standalone(t), 2, Config{})
		f.slack = 1
		f.close()
		f.open(t)
		return f.subject()
	})
}

// TestConformance_Sentinel waits for both replicas with every write.
func TestConformance_Sentinel(t *testing.T) {
	fewSeeds(t, 2)
	r := pool.Sentinel(t)
	savertest.Run(t, func(t *testing.T) *savertest.Subject {
		f := newFixture(t, r, 2, Config{})
		f.close()
		f.restore(t, nil)
		f.kept = 2
		f.open(t)
		return f.subject()
	})
}

// TestConformance_Cluster spreads everything over a cluster, but for the shards of the products: each master has a lineage of its
// own, and the suite knows of one.
func TestConformance_Cluster(t *testing.T) {
	fewSeeds(t, 2)
	r := redistest.Cluster(t)
	ctx := t.Context()
	raw := goredis.NewUniversalClient(r.Access().Options())
	defer raw.Close()
	for _, p := range []push.ProductID{"shop", "forum"} {
		for i := range savertest.Shards {
			moveTo(t, r, raw, tagOf(saver.ShardRef{Product: p, Shard: push.Shard(i)}))
		}
	}
	moveTo(t, r, raw, askedTag)
	if err := r.Await(ctx); err != nil {
		t.Fatal(err)
	}
	savertest.Run(t, func(t *testing.T) *savertest.Subject {
		f := newFixture(t, r, 2, Config{})
		f.restore(t, nil)
		return f.subject()
	})
}

// moveTo gives the slot of a tag to the first server.
func moveTo(t *testing.T, r *redistest.Redis, raw goredis.UniversalClient, tag redisdb.Tag) {
	t.Helper()
	ctx := t.Context()
	slot, err := raw.ClusterKeySlot(ctx, tag.Key("a", "")).Result()
	if err != nil {
		t.Fatal(err)
	}
	to := r.Servers()[0]
	if m, err := r.MasterOf(ctx, int(slot)); err != nil || m == to {
		return
	}
	m, err := r.BeginMove(ctx, int(slot), to)
	if err == nil {
		err = m.Finish(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
}
