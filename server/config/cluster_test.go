package config

import (
	"strings"
	"testing"
)

// redis are flags of a node that shares Redis, with others added or put in their place.
func redis(more map[string]string) map[string]string {
	flags := map[string]string{"store.kind": "redis", "redis.addresses": "127.0.0.1:6379"}
	for k, v := range more {
		flags[k] = v
	}
	return flags
}

var secrets = map[string]string{"CARILLON_SECRET": strings.Repeat("a", 40), "CARILLON_NODE_SECRET": strings.Repeat("n", 40), "CARILLON_REDIS_PASSWORD": "open sesame"}

func environment(m map[string]string) []string {
	var env []string
	for k, v := range m {
		env = append(env, k+"="+v)
	}
	return env
}

func TestLoad_ClusterNode(t *testing.T) {
	l, err := Load(Sources{Env: environment(secrets), Flags: redis(map[string]string{
		"roles": "center", "redis.mode": "sentinel", "redis.addresses": "10.0.0.1:26379,10.0.0.2:26379", "redis.master": "mymaster",
		"redis.durability": "replicated", "redis.replicas": "2", "node.listen": ":8083", "node.advertise": "10.0.0.7:8083",
	})})
	if err != nil {
		t.Fatal(err)
	}
	if l.Has(RoleRoom) || !l.Has(RoleCenter) || l.Store.Kind != StoreRedis || len(l.Redis.Addresses) != 2 ||
		l.Redis.Durability != DurabilityReplicated || l.Redis.Replicas != 2 || l.Redis.Password.Reveal() != "open sesame" ||
		l.Node.Address() != "10.0.0.7:8083" || l.Node.Secret.IsZero() {
		t.Errorf("got %+v", l.Config)
	}
}

func TestLoad_ClusterSecretsComeFromFilesToo(t *testing.T) {
	files := map[string]string{"/run/node": strings.Repeat("f", 40) + "\n", "/run/redis": " from a file\n"}
	l, err := Load(Sources{
		Env:      environment(map[string]string{"CARILLON_SECRET": strings.Repeat("a", 40)}),
		Flags:    redis(map[string]string{"node.secret_file": "/run/node", "redis.password_file": "/run/redis"}),
		ReadFile: func(name string) ([]byte, error) { return []byte(files[name]), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if l.Node.Secret.Reveal() != strings.Repeat("f", 40) || l.Redis.Password.Reveal() != "from a file" {
		t.Error("secrets of files were not taken")
	}
	_, err = Load(Sources{Env: environment(secrets), Flags: redis(map[string]string{"node.secret_file": "/run/node"}),
		ReadFile: func(name string) ([]byte, error) { return []byte(files[name]), nil }})
	if err == nil || !strings.Contains(err.Error(), "node.secret (CARILLON_NODE_SECRET) and node.secret_file (--node-secret-file): give one") {
		t.Errorf("both: %v", err)
	}
}

func TestLoad_RefusesClustersThatCannotBe(t *testing.T) {
	with := func(k, v string) map[string]string { return redis(map[string]string{k: v}) }
	for _, c := range []struct {
		why   string
		flags map[string]string
		env   map[string]string
		want  string
	}{
		{"one role alone", map[string]string{"roles": "room"}, secrets, "roles: the embedded store belongs to one node"},
		{"no such role", map[string]string{"roles": "rooms"}, secrets, "roles (--roles): write room, center"},
		{"no role", map[string]string{"roles": ","}, secrets, "roles (--roles): write room, center"},
		{"development", with("dev", "true"), secrets, "dev: "},
		{"no Redis", with("redis.addresses", ""), secrets, "redis.addresses: say where"},
		{"a bad address", with("redis.addresses", "10.0.0.1"), secrets, "redis.addresses (--redis-addresses): write host:port"},
		{"sentinels without a name", with("redis.mode", "sentinel"), secrets, "redis.master: "},
		{"database of a cluster", redis(map[string]string{"redis.mode": "cluster", "redis.database": "1"}), secrets, "redis.database: "},
		{"authorities without TLS", with("redis.tls_ca", "ca.pem"), secrets, "redis.tls_ca: "},
		{"a truth that is none", with("redis.tls", "yes"), secrets, "redis.tls (--redis-tls): write true or false"},
		{"no secret of the cluster", redis(nil), map[string]string{"CARILLON_SECRET": strings.Repeat("a", 40)}, "node.secret: "},
		{"an address that is none", with("node.listen", ":8083"), secrets, "node.advertise: node.listen is every address"},
		{"every address", with("node.listen", "0.0.0.0:8083"), secrets, "node.advertise: node.listen is every address"},
		{"a bad advertisement", with("node.advertise", "here"), secrets, "node.advertise: write host:port"},
		{"two listeners at one address", with("node.listen", "127.0.0.1:8080"), secrets, "node.listen: it is the address of another"},
	} {
		_, err := Load(Sources{Env: environment(c.env), Flags: c.flags})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.why, err, c.want)
		}
		if err != nil && (strings.Contains(err.Error(), "sesame") || strings.Contains(err.Error(), "nnnn")) {
			t.Errorf("%s: the error shows a secret", c.why)
		}
	}
}

func TestLoad_ClusterSecretsAreNeverShown(t *testing.T) {
	l, err := Load(Sources{Env: environment(secrets), Flags: redis(nil)})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range l.Settings() {
		if strings.Contains(s.Value, "sesame") || strings.Contains(s.Value, "nnnn") {
			t.Errorf("%s is shown as %q", s.Key, s.Value)
		}
	}
}
