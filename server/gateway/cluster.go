package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"

	authredis "carillon/server/auth/redis"
	"carillon/server/catalog"
	catalogredis "carillon/server/catalog/redis"
	"carillon/server/config"
	idredis "carillon/server/idgenerator/redis"
	"carillon/server/node"
	noderedis "carillon/server/node/redis"
	"carillon/server/push"
	"carillon/server/redisdb"
	registerredis "carillon/server/register/redis"
	"carillon/server/room"
	saverredis "carillon/server/saver/redis"
	taskredis "carillon/server/task/redis"
)

// Role is a part that a node plays.
type Role string

// The roles.
const (
	RoleRoom   Role = "room"   // holds the connections of clients
	RoleCenter Role = "center" // answers product servers
)

// Cluster makes a node one of several that share Redis.
type Cluster struct {
	ID        push.RoomID // another for each node, the same after a restart
	Listen    string      // for the other nodes
	Advertise string      // where they reach it; empty: the address of Listen
	Secret    string      // of all nodes of the cluster, at least node.MinSecret bytes
	Redis     redisdb.Config
}

// has reports whether the node plays a role: all of them, if none is named.
func (c *Config) has(r Role) bool { return len(c.Roles) == 0 || slices.Contains(c.Roles, r) }

// checkCluster says what is wrong with the roles and the cluster.
func (c *Config) checkCluster() error {
	for _, r := range c.Roles {
		if r != RoleRoom && r != RoleCenter {
			return fmt.Errorf("gateway: there is no role %q", r)
		}
	}
	switch {
	case c.Cluster == nil && !(c.has(RoleRoom) && c.has(RoleCenter)):
		return errors.New("gateway: a node that is alone plays all roles")
	case c.Cluster != nil && c.Dev:
		return errors.New("gateway: a development node is alone")
	case c.Cluster != nil && (c.Cluster.ID == "" || c.Cluster.Listen == ""):
		return errors.New("gateway: a node of a cluster needs an id and a listener")
	}
	return nil
}

// openRedis opens the stores that a cluster shares.
func (g *Gateway) openRedis(ctx context.Context) (s stores, err error) {
	cfg := &g.cfg
	rc := cfg.Cluster.Redis
	rc.Log, rc.Metrics = cfg.Log, redisdb.NewMetrics(g.metrics)
	var db *redisdb.DB
	waited, err := g.awaitRedis(ctx, g.closeOutside, func(ctx context.Context) (err error) {
		db, err = redisdb.Open(ctx, rc)
		return err
	})
	if err != nil {
		return s, err
	}
	g.onClose(db.Close)
	if waited {
		if err := g.listenOutside(); err != nil {
			return s, err
		}
	}
	if s.catalog, err = catalogredis.New(catalogredis.Config{DB: db}); err != nil {
		return s, err
	}
	g.onClose(s.catalog.Close)
	reg, err := registerredis.New(registerredis.Config{DB: db, Shards: g.shards, Clock: cfg.Clock, Rand: cfg.Rand, Log: cfg.Log})
	if err != nil {
		return s, err
	}
	s.register, s.lastRooms = reg, reg.LastRooms
	g.onClose(reg.Close)
	store, err := saverredis.New(saverredis.Config{
		DB: db, Shards: g.shardsKnown, Limits: g.limits, Clock: cfg.Clock, Rand: cfg.Rand, Log: cfg.Log,
	})
	if err != nil {
		return s, err
	}
	s.saver, s.run = store, store.Run
	g.onClose(store.Close)
	if s.blocks, err = idredis.New(idredis.Config{DB: db}); err != nil {
		return s, err
	}
	if s.tasks, err = taskredis.New(taskredis.Config{DB: db}); err != nil {
		return s, err
	}
	g.onClose(s.tasks.Close)
	s.notices = noderedis.New(db)
	if s.tickets, err = authredis.New(authredis.Config{DB: db, Rand: cfg.Rand}); err != nil {
		return s, err
	}
	return s, nil
}

// shards returns how many shards a product has.
func (g *Gateway) shards(ctx context.Context, p push.ProductID) (int, error) {
	prod, err := g.cache.LookupProduct(ctx, p)
	if err != nil {
		return 0, err
	}
	return prod.Shards, nil
}

// shardsKnown is shards for the store: 0 if there is no such product, or nobody can say.
func (g *Gateway) shardsKnown(p push.ProductID) int {
	n, err := g.shards(context.Background(), p)
	if err != nil {
		return 0
	}
	return n
}

// openNode makes what speaks with the other nodes.
func (g *Gateway) openNode(ctx context.Context) error {
	cfg := &g.cfg
	tls, err := node.FromSecret([]byte(cfg.Cluster.Secret))
	if err != nil {
		return err
	}
	nc := node.Config{
		Register: g.stores.register, LastRooms: g.stores.lastRooms, Notices: g.stores.notices, TLS: tls, Clock: cfg.Clock, Log: cfg.Log,
		Metrics: node.NewMetrics(g.metrics),
	}
	if g.room != nil {
		nc.Room, nc.Local = cfg.Cluster.ID, localRoom{g.room, g.cache}
	}
	if g.node, err = node.New(nc); err != nil {
		return err
	}
	g.onClose(g.node.Close)
	_, err = g.awaitRedis(ctx, func() error { return nil }, g.node.Begin) // it was there just now
	return err
}

// localRoom is this node's room as the other nodes see it.
type localRoom struct {
	*room.Room
	cache *catalog.Cache
}

// Kick has the cache ask for revocations before the room ends anything: a session that begins after that is judged by them, and one that began
// before is found.
func (l localRoom) Kick(ctx context.Context, p push.ProductID, u push.UserID, k push.Kick) (int, error) {
	if k.Kind == push.KickRevoked {
		l.cache.Expire()
	}
	return l.Room.Kick(ctx, p, u, k)
}

// listenNodes opens the listener for other nodes.
func (g *Gateway) listenNodes() (err error) {
	c := g.cfg.Cluster
	if g.nodes, err = g.cfg.Listen("tcp", c.Listen); err != nil {
		return config.ListenError("node.listen", c.Listen, err)
	}
	g.onClose(ignoreClosed(g.nodes.Close))
	return nil
}

// NodeAddr returns where other nodes reach this one, empty if it is alone.
func (g *Gateway) NodeAddr() string {
	if g.nodes == nil {
		return ""
	}
	return g.nodeAddress()
}

// NodeListenAddr returns where this node listens for others, which may be behind what NodeAddr says; empty if it is alone.
func (g *Gateway) NodeListenAddr() string {
	if g.nodes == nil {
		return ""
	}
	return g.nodes.Addr().String()
}

// nodeAddress is where other nodes reach this one.
func (g *Gateway) nodeAddress() string {
	if a := g.cfg.Cluster.Advertise; a != "" {
		return a
	}
	return g.nodes.Addr().String()
}
