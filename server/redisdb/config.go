package redisdb

import (
	"crypto/tls"
	"log/slog"
	"time"

	"carillon/server/clock"
	"carillon/server/push"
)

// Mode is the form of Redis.
type Mode string

// The forms.
const (
	Standalone Mode = "standalone"
	Sentinel   Mode = "sentinel"
	Cluster    Mode = "cluster"
)

// Config says where Redis is and what an accepted write has to survive there.
type Config struct {
	Mode     Mode     // empty: Standalone
	Addrs    []string // host:port; of the sentinels, or of some nodes of the cluster
	Master   string   // name of the primary that the sentinels watch
	Username string
	Password string
	// SentinelUsername and SentinelPassword are for the sentinels themselves.
	SentinelUsername string
	SentinelPassword string
	TLS              *tls.Config // nil: plain
	Database         int         // not with Cluster

	Durability push.Durability // of Write; DurabilityNone means DurabilityProcess
	Replicas   int             // with DurabilityReplicated: how many must have it, all that may be promoted; at least 1
	// Asserted says that the operator vouches for the server's settings where it hides them (CONFIG is forbidden).
	Asserted bool

	Timeout time.Duration // of one round trip, and of waiting for replicas; 0: 5 s
	Clock   clock.Clock   // nil: the server's own, as it must be where there is more than one client; tests bring theirs
	Log     *slog.Logger  // nil: none
}

// ChangesKept is how many changes a room's log of a shard keeps at least.
const ChangesKept = 4096

// changesIdle is how long a log is kept after the last change.
const changesIdle = time.Hour
