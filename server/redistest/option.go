package redistest

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Form says how the nodes of a deployment stand to each other.
type Form string

// The forms.
const (
	FormStandalone Form = "standalone" // one server
	FormReplicated Form = "replicated" // a primary and two replicas, and nobody who would promote one
	FormSentinel   Form = "sentinel"   // the same, watched by three sentinels
	FormCluster    Form = "cluster"    // three masters, each with a replica
)

// Option changes how a deployment is set up.
type Option func(*config)

// config is what options make.
type config struct {
	dir       string
	host      string
	username  string
	password  string
	maxMemory int64
	downAfter time.Duration
	settings  [][2]string // of every server, the later one counts
}

func newConfig(opts []Option) config {
	c := config{host: "127.0.0.1", downAfter: 2 * time.Second}
	for _, o := range opts {
		o(&c)
	}
	return c
}

// Dir has the nodes keep their files below dir, which stays, instead of in a directory that goes with the deployment.
func Dir(dir string) Option { return func(c *config) { c.dir = dir } }

// Host has the nodes listen on this address, and tell it to each other and to clients, instead of 127.0.0.1.
func Host(address string) Option { return func(c *config) { c.host = address } }

// AppendFsync says when the append-only file is flushed: "everysec" (as without this option), "always" or "no".
func AppendFsync(policy string) Option { return Setting("appendfsync", policy) }

// NoAppendOnly keeps nothing on disk: a server that was killed comes back empty.
func NoAppendOnly() Option { return Setting("appendonly", "no") }

// MaxMemory bounds what a server holds, in bytes.
func MaxMemory(bytes int64) Option { return func(c *config) { c.maxMemory = bytes } }

// MaxMemoryPolicy says what a full server does; "noeviction" without this option.
func MaxMemoryPolicy(policy string) Option { return Setting("maxmemory-policy", policy) }

// MinReplicas has a primary refuse writes while fewer replicas than that were heard of within maxLag.
func MinReplicas(n int, maxLag time.Duration) Option {
	return func(c *config) {
		Setting("min-replicas-to-write", strconv.Itoa(n))(c)
		Setting("min-replicas-max-lag", strconv.Itoa(int(maxLag/time.Second)))(c)
	}
}

// Password has servers ask for a password. Sentinels ask for none, and know the servers'.
func Password(password string) Option { return func(c *config) { c.password = password } }

// User has servers let nobody in but a user of this name, who may do everything.
func User(name, password string) Option {
	return func(c *config) { c.username, c.password = name, password }
}

// DownAfter says how long a server is silent before the others take it for dead; two seconds without this option.
func DownAfter(d time.Duration) Option { return func(c *config) { c.downAfter = d } }

// Setting is a line of every server's configuration, those of sentinels excepted. A later one of the same name counts.
func Setting(name, value string) Option {
	return func(c *config) { c.settings = append(c.settings, [2]string{name, value}) }
}

// server returns the settings of a server that takes part in form.
func (c config) server(form Form) (lines []string) {
	set := [][2]string{
		{"save", `""`},
		{"appendonly", "yes"},
		{"appendfsync", "everysec"},
		{"maxmemory", strconv.FormatInt(c.maxMemory, 10)},
		{"maxmemory-policy", "noeviction"},
		{"protected-mode", "no"},
		{"enable-debug-command", "yes"},
		// Two replicas that come at once share one snapshot of a primary that writes it to disk; they would wait a second for each
		// other's to end if it were sent to them right away.
		{"repl-diskless-sync", "no"},
		{"repl-ping-replica-period", "1"},
	}
	if form == FormCluster {
		set = append(set,
			[2]string{"cluster-enabled", "yes"},
			[2]string{"cluster-node-timeout", strconv.FormatInt(c.downAfter.Milliseconds(), 10)},
		)
	}
	set = append(set, c.auth()...)
	set = append(set, c.settings...)
	for i, s := range set {
		again := func(later [2]string) bool { return later[0] == s[0] }
		if s[0] != "user" && slices.ContainsFunc(set[i+1:], again) {
			continue
		}
		lines = append(lines, s[0]+" "+s[1])
	}
	return lines
}

// auth returns the settings by which servers ask for credentials, and give them to each other.
func (c config) auth() [][2]string {
	switch {
	case c.password == "":
		return nil
	case c.username == "":
		return [][2]string{{"requirepass", c.password}, {"masterauth", c.password}}
	default:
		return [][2]string{
			{"user", "default off"},
			{"user", fmt.Sprintf("%s on >%s ~* &* +@all", c.username, c.password)},
			{"masteruser", c.username}, {"masterauth", c.password},
		}
	}
}
