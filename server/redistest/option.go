package redistest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
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
	rules     []string // of the user
	tls       bool
	proxied   bool
	patient   bool // sentinels
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

// User has servers let nobody in but a user of this name, who may do everything but what rules take away, as "-config" does for
// a Redis whose owner hides its settings. The kit itself has a user of its own.
func User(name, password string, rules ...string) Option {
	return func(c *config) { c.username, c.password, c.rules = name, password, rules }
}

// TLS has every node speak TLS alone, with clients and with each other.
func TLS() Option { return func(c *config) { c.tls = true } }

// Proxied puts a proxy before every server, and has clients and peers told its address, so that a test can hold up, lose and cut
// what clients send and get; see Node.Delay and those behind it. What nodes send to each other is left alone, but for Node.Starve.
func Proxied() Option { return func(c *config) { c.proxied = true } }

// DownAfter says how long a server is silent before the others take it for dead; two seconds without this option.
func DownAfter(d time.Duration) Option { return func(c *config) { c.downAfter = d } }

// PatientSentinels has sentinels take the time that they take in earnest: a primary that was replaced and comes back takes writes for
// ten to twenty seconds before they make it a replica. Without this option it is a few seconds, so that tests heal quickly.
func PatientSentinels() Option { return func(c *config) { c.patient = true } }

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

// kitUser is who the kit and the nodes are to a server that lets in users by name. Its password guards nothing but a server on
// loopback that lives as long as a test.
const kitUser = "redistest"

// kit returns the credentials of the kit itself, and of the nodes among each other.
func (c config) kit() (username, password string) {
	if c.username != "" {
		return kitUser, kitUser
	}
	return "", c.password
}

// auth returns the settings by which servers ask for credentials, and give them to each other.
func (c config) auth() [][2]string {
	name, password := c.kit()
	switch {
	case password == "":
		return nil
	case name == "":
		return [][2]string{{"requirepass", password}, {"masterauth", password}}
	default:
		rules := strings.Join(append([]string{"~* &* +@all"}, c.rules...), " ")
		return [][2]string{
			{"user", "default off"},
			{"user", fmt.Sprintf("%s on >%s %s", c.username, c.password, rules)},
			{"user", fmt.Sprintf("%s on >%s ~* &* +@all", name, password)},
			{"masteruser", name}, {"masterauth", password},
		}
	}
}
