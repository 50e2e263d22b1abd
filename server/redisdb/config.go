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
	Addrs    []string // host:port; of all sentinels, or of some nodes of the cluster
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
	// Patience is how long a unit that surely was not executed is tried again, because nobody listens, the primary is another, or is
	// starting; 0: 2 s. While a slot of a cluster moves it is Timeout.
	Patience time.Duration
	Watch    time.Duration // between two looks at every primary; 0: 1 s

	Clock   clock.Clock  // nil: the server's own, as it must be where there is more than one client; tests bring theirs
	Log     *slog.Logger // nil: none
	Metrics *Metrics     // nil: none
}

func (c Config) withDefaults() (Config, error) {
	if c.Mode == "" {
		c.Mode = Standalone
	}
	if c.Durability == push.DurabilityNone {
		c.Durability = push.DurabilityProcess
	}
	if c.Timeout == 0 {
		c.Timeout = 5 * time.Second
	}
	if c.Patience == 0 {
		c.Patience = 2 * time.Second
	}
	if c.Watch == 0 {
		c.Watch = time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics(nil)
	}
	wrong := ""
	switch {
	case c.Mode != Standalone && c.Mode != Sentinel && c.Mode != Cluster:
		wrong = "a mode that is standalone, sentinel or cluster"
	case len(c.Addrs) == 0:
		wrong = "addresses"
	case c.Mode == Standalone && len(c.Addrs) > 1:
		wrong = "one address in mode standalone"
	case c.Mode == Sentinel && c.Master == "":
		wrong = "the name of the master that the sentinels watch"
	case c.Mode == Cluster && c.Database != 0:
		wrong = "database 0 in mode cluster"
	case c.Durability == push.DurabilityReplicated && c.Replicas < 1:
		wrong = "the number of replicas that must have a write which is called replicated"
	case c.Timeout < 0 || c.Patience < 0 || c.Watch < 0:
		wrong = "times that are not negative"
	}
	if wrong != "" {
		return c, push.Errorf(push.KindInvalid, "invalid_config", "Redis needs %s", wrong)
	}
	return c, nil
}
