package config

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// Role is a part of the gateway that a node plays.
type Role string

// The roles.
const (
	RoleRoom   Role = "room"   // holds the connections of clients
	RoleCenter Role = "center" // answers product servers
)

// StoreKind is where messages, sessions and products are kept.
type StoreKind string

// The stores.
const (
	StoreEmbedded StoreKind = "embedded" // in files of this node, which is alone
	StoreRedis    StoreKind = "redis"    // shared by all nodes of a cluster
)

// RedisMode is the form of Redis.
type RedisMode string

// The forms.
const (
	RedisStandalone RedisMode = "standalone"
	RedisSentinel   RedisMode = "sentinel"
	RedisCluster    RedisMode = "cluster"
)

// Durability is what an accepted message survives on Redis.
type Durability string

// The durabilities.
const (
	DurabilityProcess    Durability = "process"    // the death of the process that keeps it
	DurabilityDisk       Durability = "disk"       // a power failure
	DurabilityReplicated Durability = "replicated" // the loss of the primary
)

// Redis says where Redis is, and what it has to do for a message before the message counts as accepted.
type Redis struct {
	Mode             RedisMode
	Addresses        []string // host:port
	Master           string   // name of the primary, with sentinels
	Database         int
	Username         string
	Password         Secret // from PasswordFile if that is set
	PasswordFile     string
	SentinelUsername string
	SentinelPassword Secret
	TLS              bool
	TLSCA            string // file; empty: the system's authorities
	Durability       Durability
	Replicas         int
	Asserted         bool
}

// Node is how the nodes of a cluster know and reach each other.
type Node struct {
	ID         string // empty: the address where others reach it
	Listen     string
	Advertise  string // empty: Listen
	Secret     Secret // from SecretFile if that is set
	SecretFile string
	CutOff     time.Duration // without Redis for so long, a room looks whether others have it
}

// Address returns where other nodes reach this one.
func (n Node) Address() string {
	if n.Advertise != "" {
		return n.Advertise
	}
	return n.Listen
}

// Has reports whether the node plays that role.
func (c *Config) Has(r Role) bool { return slices.Contains(c.Roles, r) }

var clusterTable = []key{
	{
		name: "roles", standard: "room,center", list: true,
		doc: "what the node does: room holds the connections of clients, center answers product servers",
		set: func(c *Config, s string) error {
			var roles []Role
			for _, part := range splitList(s) {
				r := Role(part)
				if r != RoleRoom && r != RoleCenter {
					return errors.New("write room, center, or room,center")
				}
				if !slices.Contains(roles, r) {
					roles = append(roles, r)
				}
			}
			if len(roles) == 0 {
				return errors.New("write room, center, or room,center")
			}
			c.Roles = roles
			return nil
		},
		get: func(c *Config) string {
			parts := make([]string, len(c.Roles))
			for i, r := range c.Roles {
				parts[i] = string(r)
			}
			return strings.Join(parts, ",")
		},
	},
	word("store.kind", "where messages, sessions and products are kept: embedded, in files of this node, or redis, shared by the nodes of a cluster",
		func(c *Config) *StoreKind { return &c.Store.Kind }, StoreEmbedded, StoreRedis),
	word("redis.mode", "the form of Redis: standalone, sentinel or cluster",
		func(c *Config) *RedisMode { return &c.Redis.Mode }, RedisStandalone, RedisSentinel, RedisCluster),
	{
		name: "redis.addresses", standard: "127.0.0.1:6379", list: true,
		doc: "where Redis is, host:port: the server, the sentinels, or some nodes of the cluster",
		set: func(c *Config, s string) error {
			all := splitList(s)
			for _, a := range all {
				if !isHostPort(a) {
					return errors.New("write host:port, as in 10.0.0.5:6379")
				}
			}
			c.Redis.Addresses = all
			return nil
		},
		get: func(c *Config) string { return strings.Join(c.Redis.Addresses, ",") },
	},
	text("redis.master", "", "name of the primary that the sentinels watch", func(c *Config) *string { return &c.Redis.Master }),
	number("redis.database", "0", "number of the database; a cluster has only 0", 0, 1<<16, func(c *Config) *int { return &c.Redis.Database }),
	text("redis.username", "", "user of Redis; without one the default user", func(c *Config) *string { return &c.Redis.Username }),
	secretKey("redis.password", "password of that user", func(c *Config) *Secret { return &c.Redis.Password }),
	text("redis.password_file", "", "file that holds the password; white space around it is dropped",
		func(c *Config) *string { return &c.Redis.PasswordFile }),
	text("redis.sentinel_username", "", "user of the sentinels", func(c *Config) *string { return &c.Redis.SentinelUsername }),
	secretKey("redis.sentinel_password", "password of the sentinels", func(c *Config) *Secret { return &c.Redis.SentinelPassword }),
	truth("redis.tls", "Redis is spoken to over TLS", func(c *Config) *bool { return &c.Redis.TLS }),
	text("redis.tls_ca", "", "file with the authorities that its certificates are of, in PEM; without one the system's",
		func(c *Config) *string { return &c.Redis.TLSCA }),
	word("redis.durability", "what an accepted message survives: process (the death of Redis), disk (a power failure), or replicated (the loss of the "+
		"primary); the settings of Redis have to fit", func(c *Config) *Durability { return &c.Redis.Durability },
		DurabilityProcess, DurabilityDisk, DurabilityReplicated),
	number("redis.replicas", "1", "with replicated: how many replicas have to have a message: all that may become the primary", 1, 16,
		func(c *Config) *int { return &c.Redis.Replicas }),
	truth("redis.asserted", "you vouch for the settings of a Redis that does not show them", func(c *Config) *bool { return &c.Redis.Asserted }),
	text("node.id", "", "name of this node among the others, the same after a restart; without one the address where others reach it",
		func(c *Config) *string { return &c.Node.ID }),
	address("node.listen", "127.0.0.1:8083", "address for the other nodes of a cluster", func(c *Config) *string { return &c.Node.Listen }),
	text("node.advertise", "", "host:port where the other nodes reach this one; without it node.listen", func(c *Config) *string { return &c.Node.Advertise }),
	secretKey("node.secret", "secret of the cluster, at least 32 bytes, the same on all its nodes", func(c *Config) *Secret { return &c.Node.Secret }),
	text("node.secret_file", "", "file that holds that secret; white space around it is dropped", func(c *Config) *string { return &c.Node.SecretFile }),
	duration("node.cut_off", "60s", "a room that cannot reach Redis for so long sends its clients elsewhere, if another room can reach it",
		3*time.Second, time.Hour, func(c *Config) *time.Duration { return &c.Node.CutOff }),
}

func isHostPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	return err == nil && host != "" && port != "" && port != "0"
}

// truth is a key that is true or false, false by default.
func truth(name, doc string, field func(*Config) *bool) key {
	return key{
		name: name, standard: "false", boolean: true, doc: doc,
		set: func(c *Config, s string) error {
			if s != "true" && s != "false" {
				return errors.New("write true or false")
			}
			*field(c) = s == "true"
			return nil
		},
		get: func(c *Config) string { return fmt.Sprint(*field(c)) },
	}
}

// secretKey is a key without a flag, whose value is never shown.
func secretKey(name, doc string, field func(*Config) *Secret) key {
	return key{
		name: name, secret: true, doc: doc,
		set: func(c *Config, s string) error { *field(c) = NewSecret(s); return nil },
		get: func(c *Config) string { return field(c).String() },
	}
}

// checkCluster says what is wrong between the keys of a cluster.
func (l *Loaded) checkCluster() error {
	var errs []error
	say := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	alone := l.Store.Kind == StoreEmbedded
	say(alone && len(l.Roles) < 2, "roles: the embedded store belongs to one node, which plays all of them; several nodes share Redis (store.kind: redis)")
	if alone {
		return errors.Join(errs...)
	}
	say(l.Dev, "dev: a development server keeps all in files of its own; with store.kind redis give it its secrets")
	say(len(l.Redis.Addresses) == 0, "redis.addresses: say where Redis is")
	say(l.Redis.Mode == RedisSentinel && l.Redis.Master == "", "redis.master: sentinels watch a primary under a name, often mymaster")
	say(l.Redis.Mode == RedisCluster && l.Redis.Database != 0, "redis.database: a Redis Cluster has only database 0")
	say(l.Redis.TLSCA != "" && !l.Redis.TLS, "redis.tls_ca: it says whom to believe over TLS; set redis.tls")
	say(l.Node.Secret.IsZero(), "node.secret: the nodes of a cluster know each other by a secret; make it with `openssl rand -base64 32`, put it into a "+
		"file that only the servers can read, the same on all of them, and name that with --node-secret-file, or set CARILLON_NODE_SECRET")
	say(l.Node.Advertise != "" && !isHostPort(l.Node.Advertise), "node.advertise: write host:port, as in 10.0.0.7:8083")
	host, _, _ := net.SplitHostPort(l.Node.Listen)
	say(l.Node.Advertise == "" && (host == "" || net.ParseIP(host).IsUnspecified()),
		"node.advertise: node.listen is every address of the machine; say at which one other nodes reach this one")
	for _, other := range []string{l.Public.Listen, l.Admin.Listen, l.TCP.Listen} {
		say(sameAddress(l.Node.Listen, other), "node.listen: it is the address of another listener; nodes have one of their own")
	}
	return errors.Join(errs...)
}
