package config

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Key describes one key to people and to the command line.
type Key struct {
	Name    string // in the file: sections and key, joined by dots
	Env     string // the variable
	Flag    string // the flag without its dashes; empty for secrets
	Default string // as it would be written; empty: none
	Doc     string
	Bool    bool // the flag needs no value
}

// Keys returns all keys, in the order in which a file would name them.
func Keys() []Key {
	ks := make([]Key, len(table))
	for i, k := range table {
		ks[i] = Key{Name: k.name, Env: envName(k.name), Default: k.standard, Doc: k.doc, Bool: k.boolean}
		if !k.secret {
			ks[i].Flag = flagName(k.name)
		}
	}
	return ks
}

// Prefix begins every environment variable of Carillon.
const Prefix = "CARILLON_"

func envName(key string) string { return Prefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_")) }

func flagName(key string) string { return strings.NewReplacer(".", "-", "_", "-").Replace(key) }

// key is one row of the table. Values are read from, and written as, text; a list is written with commas.
type key struct {
	name     string
	standard string // the default
	doc      string
	secret   bool
	boolean  bool
	list     bool
	set      func(*Config, string) error
	get      func(*Config) string
}

var table = slices.Concat(nodeTable, clusterTable)

var nodeTable = []key{
	text("data", "./data", "directory of the embedded store", func(c *Config) *string { return &c.Data }),
	{
		name: "dev", standard: "false", boolean: true,
		doc: "development: makes up keys, writes them to dev.json in the data directory and prints what to do next",
		set: func(c *Config, s string) (err error) {
			if c.Dev, err = strconv.ParseBool(s); err != nil {
				err = errors.New("write true or false")
			}
			return err
		},
		get: func(c *Config) string { return strconv.FormatBool(c.Dev) },
	},
	address("public.listen", "127.0.0.1:8080", "address for clients and product servers",
		func(c *Config) *string { return &c.Public.Listen }),
	list("public.hosts", "names under which clients and product servers may ask for it, like push.example.com or *.example.com; "+
		"without any, all", func(c *Config) *[]string { return &c.Public.Hosts }),
	list("public.origins", "pages that may connect beside the server's own: host patterns like *.example.com, "+
		"or scheme://host; null for pages without an origin", func(c *Config) *[]string { return &c.Public.Origins }),
	address("admin.listen", "127.0.0.1:8081", "address for administration, metrics and profiles",
		func(c *Config) *string { return &c.Admin.Listen }),
	list("admin.hosts", "names under which operators and monitoring may ask for it, beside localhost, addresses and that of "+
		"admin.listen", func(c *Config) *[]string { return &c.Admin.Hosts }),
	list("tls.cert", "files with certificates for clients, in PEM, each the server's own first and then its chain; without any "+
		"there is no TLS", func(c *Config) *[]string { return &c.TLS.Cert }),
	list("tls.key", "files with their private keys, in the same order", func(c *Config) *[]string { return &c.TLS.Key }),
	networks("proxy.trusted",
		"proxies that may say whom they speak for: networks like 10.0.0.0/8, or addresses; nobody else is believed",
		func(c *Config) *[]netip.Prefix { return &c.Proxy.Trusted }),
	word("proxy.header", "how trusted proxies tell the client's address: x-forwarded-for, forwarded (RFC 7239), or proxy-v2 (the "+
		"PROXY protocol in front of each connection)",
		func(c *Config) *ProxyHeader { return &c.Proxy.Header }, ProxyXForwardedFor, ProxyForwarded, ProxyV2),
	tcpListen(),
	networks("outbound.allow", "private networks where products may publish the keys of their device tokens (jwks_url): networks "+
		"like 10.0.0.0/8, or addresses; public addresses may be reached anyway",
		func(c *Config) *[]netip.Prefix { return &c.Outbound.Allow }),
	secretKey("secret", "secret of the administration, at least 32 bytes; needed without --dev", func(c *Config) *Secret { return &c.Secret }),
	text("secret_file", "", "file that holds that secret; white space around it is dropped",
		func(c *Config) *string { return &c.SecretFile }),
	{
		name: "log.level", standard: "info", doc: "debug, info, warn or error",
		set: func(c *Config, s string) error {
			levels := map[string]slog.Level{
				"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
			}
			l, ok := levels[s]
			if !ok {
				return errors.New("write debug, info, warn or error")
			}
			c.Log.Level = l
			return nil
		},
		get: func(c *Config) string { return strings.ToLower(c.Log.Level.String()) },
	},
	word("log.format", "text or json", func(c *Config) *LogFormat { return &c.Log.Format }, LogText, LogJSON),
	duration("limits.connect_timeout", "5s", "time for a client's connect frame", time.Millisecond, time.Minute,
		func(c *Config) *time.Duration { return &c.Limits.ConnectTimeout }),
	number("limits.frame_bytes", "16384", "largest frame of a client, in bytes", 4096, 1<<20,
		func(c *Config) *int { return &c.Limits.FrameBytes }),
	number("limits.frames_per_second", "20", "frames a second that a client may send", 1, 10000,
		func(c *Config) *int { return &c.Limits.FramesPerSecond }),
	number("limits.queue_messages", "256", "messages that may wait for one client", 1, 1<<20,
		func(c *Config) *int { return &c.Limits.QueueMessages }),
	number("limits.queue_bytes", "262144", "bytes that may wait for one client", 4096, 1<<30,
		func(c *Config) *int { return &c.Limits.QueueBytes }),
	duration("limits.write_deadline", "10s", "a client that takes nothing for so long is cut as slow",
		100*time.Millisecond, 10*time.Minute, func(c *Config) *time.Duration { return &c.Limits.WriteDeadline }),
	number("limits.broadcasts_per_second", "0", "messages a second that a room hands to its clients, all together, out of what goes to everybody or "+
		"to tags; what is for single users does not wait for it; 0: as fast as it goes", 0, 1_000_000_000,
		func(c *Config) *int { return &c.Limits.Broadcasts }),
	number("limits.small_audience", "10000", "users of a message to tags, at most, if it is settled when it is sent who has the tags, and not when a "+
		"device comes to it; 0: always when a device comes to it", 0, 10_000, func(c *Config) *int { return &c.Limits.SmallAudience }),
	number("limits.connects_per_second", "5000", "connections that the node takes a second; the others are told when to come back; 0: no limit",
		0, 1_000_000, func(c *Config) *int { return &c.Limits.Connects }),
	number("limits.connect_burst", "10000", "how many of them at once", 1, 10_000_000,
		func(c *Config) *int { return &c.Limits.ConnectBurst }),
	number("limits.sessions", "0", "connections that the node holds at a time; 0: no limit", 0, math.MaxInt32,
		func(c *Config) *int { return &c.Limits.Sessions }),
	number("limits.connects_per_address", "0", "connections of one address a second, ten times as many at once; an IPv6 network "+
		"of 64 bits counts as one; 0: no limit", 0, 1_000_000, func(c *Config) *int { return &c.Limits.AddressConnects }),
	number("limits.sessions_per_address", "0", "connections of one address at a time; 0: no limit", 0, math.MaxInt32,
		func(c *Config) *int { return &c.Limits.AddressSessions }),
	connections(),
	number("limits.connections_per_address", "0", "open connections of one address that carry no session: handshakes, requests, and those kept "+
		"for the next one; 0: no limit", 0, math.MaxInt32, func(c *Config) *int { return &c.Limits.AddressConnections }),
	number("limits.requests_per_address", "0", "requests of one address a second to /connect/frames and /connect/ticket, ten times as many at "+
		"once; 0: no limit", 0, 1_000_000, func(c *Config) *int { return &c.Limits.AddressRequests }),
	number("limits.refusals_per_second", "1000", "refusals a second that are answered, ten times as many at once; beyond them connections of "+
		"addresses that were refused lately are closed unread; 0: no limit", 0, 1_000_000, func(c *Config) *int { return &c.Limits.Refusals }),
	number("limits.refusals_per_address", "10", "the same for one address that goes past its own limits; 0: no limit", 0, 1_000_000,
		func(c *Config) *int { return &c.Limits.AddressRefusals }),
	number("limits.sessions_heap_percent", "80", "percent of the memory limit that may be live before no more connections are taken; "+
		"0: no limit", 0, 100, func(c *Config) *int { return &c.Limits.SessionsHeapPercent }),
	duration("heartbeat.interval", "30s", "a client sends something at least that often", time.Second, time.Hour,
		func(c *Config) *time.Duration { return &c.Heartbeat.Interval }),
	{
		name: "heartbeat.intervals", list: true,
		doc: "where it is another: by transport (ws, sse, poll, tcp, or *) and platform, the most specific one counts, as in " +
			"tcp=2m,tcp/android=4m; polls are held for 55s",
		set: func(c *Config, s string) (err error) { c.Heartbeat.Intervals, err = parseIntervals(s); return err },
		get: func(c *Config) string {
			all := make([]string, len(c.Heartbeat.Intervals))
			for i, v := range c.Heartbeat.Intervals {
				all[i] = v.String()
			}
			return strings.Join(all, ",")
		},
	},
	duration("heartbeat.grace", "10s", "how much longer a silent client is kept", time.Second, time.Hour,
		func(c *Config) *time.Duration { return &c.Heartbeat.Grace }),
	duration("heartbeat.linger", "15s", "how long a session of long-polls is kept between two polls", time.Second, time.Hour,
		func(c *Config) *time.Duration { return &c.Heartbeat.Linger }),
	notice(),
	duration("drain.spread", "5s", "over how long clients come back that are sent away by a server that drains or stops",
		100*time.Millisecond, time.Hour, func(c *Config) *time.Duration { return &c.Drain.Spread }),
	{
		name: "drain.address",
		doc:  "where they come back: https://host of another server; without it where they were",
		set: func(c *Config, s string) error {
			if s != "" {
				if err := parseOrigin(s); err != nil {
					return err
				}
			}
			c.Drain.Address = s
			return nil
		},
		get: func(c *Config) string { return c.Drain.Address },
	},
	duration("shutdown.timeout", "20s", "time for goodbyes and requests under way when the server stops, after its notice",
		time.Millisecond, time.Hour, func(c *Config) *time.Duration { return &c.Shutdown.Timeout }),
	word("transport.engine", "how clients' connections are held: epoll (Linux; an idle one holds no goroutine), goroutine (one "+
		"each), or auto, which is epoll where it is possible",
		func(c *Config) *Engine { return &c.Transport.Engine }, EngineAuto, EngineEpoll, EngineGoroutine),
	number("store.cache_bytes", "67108864", "memory for the store's block cache, in bytes", 1<<20, math.MaxInt64,
		func(c *Config) *int64 { return &c.Store.CacheBytes }),
	memoryLimit(),
	number("memory.gc_percent", "100", "how much may be allocated, in percent of what is live, before a collection", 10, 1000,
		func(c *Config) *int { return &c.Memory.GCPercent }),
}

// connections is a number that may also be "auto".
func connections() key {
	k := number("limits.connections", "auto", "open connections of clients and product servers at a time, sessions included; auto: what the "+
		"process may open, less a reserve for the store; 0: no limit", 0, math.MaxInt32, func(c *Config) *int { return &c.Limits.Connections })
	set, get := k.set, k.get
	k.set = func(c *Config, s string) error {
		if s == "auto" {
			c.Limits.Connections = ConnectionsAuto
			return nil
		}
		if err := set(c, s); err != nil {
			return errors.New("write auto, or a whole number")
		}
		return nil
	}
	k.get = func(c *Config) string {
		if c.Limits.Connections == ConnectionsAuto {
			return "auto"
		}
		return get(c)
	}
	return k
}

// notice is a time that may also be "auto".
func notice() key {
	k := duration("drain.notice", "auto", "how long a server that stops says so on /readyz, and goes on serving, before it sends anybody away: longer than "+
		"a load balancer takes to notice; auto: 5s with store.kind redis, none for a server that is alone",
		0, time.Hour, func(c *Config) *time.Duration { return &c.Drain.Notice })
	set, get := k.set, k.get
	k.set = func(c *Config, s string) error {
		if s == "auto" {
			c.Drain.Notice = NoticeAuto
			return nil
		}
		if err := set(c, s); err != nil {
			return fmt.Errorf("%w, or auto", err)
		}
		return nil
	}
	k.get = func(c *Config) string {
		if c.Drain.Notice == NoticeAuto {
			return "auto"
		}
		return get(c)
	}
	return k
}

// memoryLimit is a number that may also be "auto".
func memoryLimit() key {
	k := number("memory.limit_bytes", "auto", "memory above which the collector works harder; auto: 70 % of what the process "+
		"was given; 0: none", 0, math.MaxInt64, func(c *Config) *int64 { return &c.Memory.LimitBytes })
	set, get := k.set, k.get
	k.set = func(c *Config, s string) error {
		if s == "auto" {
			c.Memory.LimitBytes = MemoryAuto
			return nil
		}
		if err := set(c, s); err != nil {
			return errors.New("write auto, or a whole number of bytes")
		}
		if n := c.Memory.LimitBytes; n != 0 && n < 64<<20 {
			return errors.New("it is auto, 0, or at least 67108864")
		}
		return nil
	}
	k.get = func(c *Config) string {
		if c.Memory.LimitBytes == MemoryAuto {
			return "auto"
		}
		return get(c)
	}
	return k
}

func text(name, standard, doc string, field func(*Config) *string) key {
	return key{
		name: name, standard: standard, doc: doc,
		set: func(c *Config, s string) error {
			if s == "" && standard != "" {
				return errors.New("it may not be empty")
			}
			*field(c) = s
			return nil
		},
		get: func(c *Config) string { return *field(c) },
	}
}

// word is one of some words, the first of which is the default.
func word[T ~string](name, doc string, field func(*Config) *T, words ...T) key {
	return key{
		name: name, standard: string(words[0]), doc: doc,
		set: func(c *Config, s string) error {
			if !slices.Contains(words, T(s)) {
				last := len(words) - 1
				all := make([]string, last)
				for i, w := range words[:last] {
					all[i] = string(w)
				}
				return fmt.Errorf("write %s or %s", strings.Join(all, ", "), words[last])
			}
			*field(c) = T(s)
			return nil
		},
		get: func(c *Config) string { return string(*field(c)) },
	}
}

func list(name, doc string, field func(*Config) *[]string) key {
	return key{
		name: name, doc: doc, list: true,
		set: func(c *Config, s string) error { *field(c) = splitList(s); return nil },
		get: func(c *Config) string { return strings.Join(*field(c), ",") },
	}
}

// networks is a list of networks; an address is the network of that one.
func networks(name, doc string, field func(*Config) *[]netip.Prefix) key {
	return key{
		name: name, list: true, doc: doc,
		set: func(c *Config, s string) error {
			var all []netip.Prefix
			for _, part := range splitList(s) {
				p, err := netip.ParsePrefix(part)
				if a, e := netip.ParseAddr(part); e == nil {
					p, err = a.Prefix(a.BitLen())
				}
				if err != nil {
					return errors.New("write networks and addresses, as in 10.0.0.0/8,192.0.2.7")
				}
				all = append(all, p)
			}
			*field(c) = all
			return nil
		},
		get: func(c *Config) string {
			parts := make([]string, len(*field(c)))
			for i, p := range *field(c) {
				parts[i] = p.String()
			}
			return strings.Join(parts, ",")
		},
	}
}

func address(name, standard, doc string, field func(*Config) *string) key {
	k := text(name, standard, doc, field)
	set := k.set
	k.set = func(c *Config, s string) error {
		_, port, err := net.SplitHostPort(s)
		if n, e := strconv.ParseUint(port, 10, 16); err != nil || e != nil || n > 65535 {
			return errors.New("write host:port, as in 127.0.0.1:8080 or :8080")
		}
		return set(c, s)
	}
	return k
}

// tcpListen is an address that may be off.
func tcpListen() key {
	k := address("tcp.listen", "127.0.0.1:8082", "address for clients over raw TCP; off: none",
		func(c *Config) *string { return &c.TCP.Listen })
	set, get := k.set, k.get
	k.set = func(c *Config, s string) error {
		if s == "off" {
			c.TCP.Listen = ""
			return nil
		}
		if err := set(c, s); err != nil {
			return errors.New("write host:port, as in 127.0.0.1:8082 or :8082, or off")
		}
		return nil
	}
	k.get = func(c *Config) string { return cmp.Or(get(c), "off") }
	return k
}

func duration(name, standard, doc string, least, most time.Duration, field func(*Config) *time.Duration) key {
	return key{
		name: name, standard: standard, doc: doc,
		set: func(c *Config, s string) error {
			d, err := time.ParseDuration(s)
			if err != nil {
				return errors.New("write a number and its unit, as in 500ms, 10s or 2m")
			}
			if d < least || d > most {
				return fmt.Errorf("it lies between %v and %v", least, most)
			}
			*field(c) = d
			return nil
		},
		get: func(c *Config) string { return field(c).String() },
	}
}

func number[T int | int64](name, standard, doc string, least, most int64, field func(*Config) *T) key {
	return key{
		name: name, standard: standard, doc: doc,
		set: func(c *Config, s string) error {
			n, err := strconv.ParseInt(s, 10, 64)
			if err != nil {
				return errors.New("write a whole number")
			}
			if n < least || n > most || int64(T(n)) != n {
				return fmt.Errorf("it lies between %d and %d", least, most)
			}
			*field(c) = T(n)
			return nil
		},
		get: func(c *Config) string { return strconv.FormatInt(int64(*field(c)), 10) },
	}
}

// splitList reads a list written with commas.
func splitList(s string) []string {
	var out []string
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}
