package config

import (
	"log/slog"
	"net/netip"
	"time"
)

// Config is the whole configuration, as [Load] checked it.
type Config struct {
	Data       string // directory of the embedded store and of dev.json
	Dev        bool   // development: keys are made up, and said aloud
	Public     Public
	Admin      Admin
	TCP        TCP
	TLS        TLS
	Proxy      Proxy
	Outbound   Outbound
	Secret     Secret // of the administration; from SecretFile if that is set
	SecretFile string
	Log        Log
	Limits     Limits
	Heartbeat  Heartbeat
	Drain      Drain
	Shutdown   Shutdown
	Store      Store
	Transport  Transport
	Memory     Memory
	Roles      []Role
	Redis      Redis
	Node       Node
}

// Public is the listener for clients and product servers.
type Public struct {
	Listen  string   // host:port
	Hosts   []string // names under which it answers: host patterns; none: all
	Origins []string // pages that may connect beside the server's own: host patterns, or scheme://host
}

// Admin is the listener for operators: administration, metrics, profiles.
type Admin struct {
	Listen string   // host:port
	Hosts  []string // names under which it answers beside localhost, addresses, and that of Listen: host patterns
}

// TLS are the certificates for clients. Cert and Key have the same length: what stands at one place belongs together.
type TLS struct {
	Cert []string // files
	Key  []string // files
}

// ProxyHeader is how trusted proxies say whom they speak for.
type ProxyHeader string

// The ways.
const (
	ProxyXForwardedFor ProxyHeader = "x-forwarded-for"
	ProxyForwarded     ProxyHeader = "forwarded"
	ProxyV2            ProxyHeader = "proxy-v2" // the PROXY protocol
)

// Proxy says which proxies stand between clients and the server.
type Proxy struct {
	Trusted []netip.Prefix
	Header  ProxyHeader
}

// Outbound says where requests may go that products cause.
type Outbound struct {
	Allow []netip.Prefix // beside the public addresses
}

// TCP is the listener for clients over raw TCP.
type TCP struct {
	Listen string // host:port; empty: none
}

// LogFormat is the form of log lines.
type LogFormat string

// The formats.
const (
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// Log says what is logged, to standard error.
type Log struct {
	Level  slog.Level
	Format LogFormat
}

// Limits are those of one session.
type Limits struct {
	ConnectTimeout  time.Duration // for the connect frame
	FrameBytes      int           // largest frame of a client
	FramesPerSecond int           // of a client
	QueueMessages   int           // waiting for one client
	QueueBytes      int           // waiting for one client
	WriteDeadline   time.Duration // a client that takes nothing for so long is cut as slow
	Broadcasts      int           // messages a second out of what goes to many; 0: as fast as it goes
	SmallAudience   int           // users of an audience by tags that is settled when the message is sent; 0: none is

	// Of connections, before anybody knows whose they are; 0: none.
	Connects            int // a second
	ConnectBurst        int // at once
	Sessions            int // at a time
	AddressConnects     int // a second, of one address
	AddressSessions     int // at a time, of one address
	SessionsHeapPercent int // of the memory limit that may be live before no more are taken

	Connections        int // open at a time, sessions included; ConnectionsAuto: what the process may open allows
	AddressConnections int // open at a time without a session, of one address
	AddressRequests    int // a second that begin no session, of one address
	Refusals           int // a second that are told so
	AddressRefusals    int // the same of one address, for what it does itself
}

// Heartbeat is what the server asks of clients.
type Heartbeat struct {
	Interval  time.Duration // a client sends something at least that often
	Intervals []Interval    // where it is another
	Grace     time.Duration // beyond it, before a client counts as gone
	Linger    time.Duration // between two polls, before their session counts as gone
}

// Drain says how clients are sent away.
type Drain struct {
	Notice  time.Duration // before that: the server says that it goes, and serves everybody; NoticeAuto: as the store asks for
	Spread  time.Duration // over which they come back
	Address string        // where they come back, https://host; empty: where they were
}

// NoticeAuto leaves the notice to the store: a server that is alone gives none, since there is nobody to go to.
const NoticeAuto = time.Duration(-1)

// clusterNotice is the notice that a node of a cluster gives by itself.
const clusterNotice = 5 * time.Second

// NoticeGiven returns how long a server that stops says so beforehand.
func (c *Config) NoticeGiven() time.Duration {
	switch {
	case c.Drain.Notice != NoticeAuto:
		return c.Drain.Notice
	case c.Store.Kind == StoreRedis:
		return clusterNotice
	}
	return 0
}

// Shutdown says how a server stops.
type Shutdown struct {
	Timeout time.Duration // for goodbyes and for requests under way, after the notice
}

// Store says where everything is kept; CacheBytes is for the embedded one.
type Store struct {
	Kind       StoreKind
	CacheBytes int64
}

// Engine is how connections of clients are held.
type Engine string

// The engines.
const (
	EngineAuto      Engine = "auto" // EngineEpoll where it is possible
	EngineEpoll     Engine = "epoll"
	EngineGoroutine Engine = "goroutine"
)

// Transport says how clients' connections are held.
type Transport struct {
	Engine Engine
}

// Memory bounds what the garbage collector lets the process take.
type Memory struct {
	LimitBytes int64 // MemoryAuto: by what the process was given; 0: none
	GCPercent  int   // how much may be allocated, in percent of what is live, before a collection
}

// ConnectionsAuto is Limits.Connections as "auto".
const ConnectionsAuto = -1

// MemoryAuto is Memory.LimitBytes as "auto".
const MemoryAuto = -1

// Default returns the configuration in which nothing is set.
func Default() Config {
	var c Config
	for _, k := range table {
		if k.standard != "" {
			if err := k.set(&c, k.standard); err != nil {
				panic("config: default of " + k.name + ": " + err.Error())
			}
		}
	}
	return c
}
