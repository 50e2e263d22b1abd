// Package server holds no code; its test holds the direction of imports.
package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// layers says what each package may import of ours, by prefix. Everything may import push, failpoint and planted; what is not
// listed may not be there.
var layers = []struct {
	pkg string
	may []string
	why string
}{
	{"push", nil, "the words that all share know nobody"},
	{"failpoint", nil, "a failpoint may stand anywhere, so it knows nobody"},
	{"planted", nil, "a planted bug may stand anywhere, so it knows nobody"},
	{"nextversion", nil, "what the next version adds may stand anywhere, so it knows nobody"},
	{"clock", nil, "time is an argument everywhere"},
	{"clock/clocktest", []string{"clock"}, "a clock for tests"},
	{"history", nil, "the judge knows nothing of how the system works inside"},
	{"dev", nil, "a file for developers"},
	{"demo", nil, "a page that asks the API as everybody does, and is handed what signs its tokens"},
	{"proxytest", []string{"clock"}, "a bad network knows bytes alone"},
	{"redistest", []string{"bench/child", "proxytest", "clock"}, "processes of Redis, and nothing of what lies in them"},
	{"nettest", nil, "a network knows packets alone"},
	{"config", nil, "the configuration is plain values"},
	{"heap", nil, "the collector's settings are the process's, and know nothing of what it does"},
	{"admission", []string{"push", "clock"}, "it decides before anybody knows who comes"},
	{"origin", nil, "rules over names in headers, and nothing of what they guard"},
	{"forwarded", nil, "addresses in headers, and nothing of whose they are"},
	{"certificate", []string{"clock"}, "files and handshakes, and nothing of what goes on behind them"},
	{"wire", []string{"push"}, "transports build on wire, never the other way"},
	{"transport", []string{"wire", "push"}, "the contract between transports and sessions"},
	{"transport/transporttest", []string{"transport", "wire", "push"}, "a suite knows the contract alone"},
	{"transport/poller", nil, "sockets, and nothing of what they carry"},
	{"transport/ready", []string{"transport"}, "a list of connections, whatever they are"},
	{"transport/roster", nil, "a list of connections, whatever they are"},
	{"transport/engine", []string{"transport", "transport/poller", "wire", "push"}, "it holds connections for transports, and knows none of them"},
	{"transport/ws", []string{"transport", "wire", "push", "origin"}, "a transport never imports a sibling or the room"},
	{"transport/sse", []string{"transport", "wire", "push"}, "a transport never imports a sibling or the room"},
	{"transport/longpoll", []string{"transport", "wire", "push"}, "a transport never imports a sibling or the room"},
	{"transport/web", []string{"transport", "wire", "auth", "push"},
		"what transports over HTTP share reads credentials as all do, and knows none of the transports"},
	{"transport/tcp", []string{"transport", "wire", "push"}, "a transport never imports a sibling or the room"},
	{"register", []string{"push"}, "a contract"},
	{"register/registertest", []string{"register", "push", "clock"}, "a suite knows the contract alone"},
	{"register/memory", []string{"register", "push", "clock"}, "an adapter imports its contract, never a sibling"},
	{"saver", []string{"push"}, "a contract"},
	{"saver/savertest", []string{"saver", "push", "clock"}, "a suite knows the contract alone"},
	{"saver/memory", []string{"saver", "push", "clock"}, "an adapter imports its contract, never a sibling"},
	{"saver/pebble", []string{"saver", "push", "clock", "embedded"}, "an adapter imports its contract, never a sibling"},
	{"catalog", []string{"push", "clock"}, "a contract"},
	{"catalog/catalogtest", []string{"catalog", "push", "clock"}, "a suite knows the contract alone"},
	{"catalog/memory", []string{"catalog", "push", "clock"}, "an adapter imports its contract, never a sibling"},
	{"catalog/pebble", []string{"catalog", "push", "clock", "embedded"}, "an adapter imports its contract, never a sibling"},
	{"task", []string{"push"}, "a contract"},
	{"task/tasktest", []string{"task", "push", "clock"}, "a suite knows the contract alone"},
	{"task/memory", []string{"task", "push", "clock"}, "an adapter imports its contract, never a sibling"},
	{"task/pebble", []string{"task", "push", "clock", "embedded"}, "an adapter imports its contract, never a sibling"},
	{"task/redis", []string{"task", "push", "clock", "redisdb"}, "an adapter imports its contract, never a sibling"},
	{"idgenerator", []string{"push", "clock"}, "a contract"},
	{"idgenerator/idgeneratortest", []string{"idgenerator", "push", "clock"}, "a suite knows the contract alone"},
	{"idgenerator/memory", []string{"idgenerator", "push", "clock"}, "an adapter imports its contract, never a sibling"},
	{"idgenerator/pebble", []string{"idgenerator", "push", "clock", "embedded"}, "an adapter imports its contract, never a sibling"},
	{"embedded", []string{"push", "clock"}, "the database knows nothing of what lies in it"},
	{"redisdb", []string{"push", "clock"}, "the database knows nothing of what lies in it"},
	{"redisdb/redisdbtest", []string{"redisdb", "redistest", "clock"}, "it opens what was started, and knows nothing of what lies in it"},
	{"saver/redis", []string{"saver", "push", "clock", "redisdb"}, "an adapter imports its contract, never a sibling"},
	{"register/redis", []string{"register", "push", "clock", "redisdb"}, "an adapter imports its contract, never a sibling"},
	{"node", []string{"register", "saver", "push", "clock"}, "rooms are told in the words in which messages are stored, whatever holds them"},
	{"node/redis", []string{"node", "push", "clock", "redisdb"}, "an adapter imports its contract, never a sibling"},
	{"catalog/redis", []string{"catalog", "push", "clock", "redisdb"}, "an adapter imports its contract, never a sibling"},
	{"idgenerator/redis", []string{"idgenerator", "push", "clock", "redisdb"}, "an adapter imports its contract, never a sibling"},
	{"auth", []string{"catalog", "push", "clock"}, "credentials are judged by the catalog's keys"},
	{"auth/redis", []string{"auth", "push", "redisdb"}, "an adapter imports its contract, never a sibling"},
	{"outbound", nil, "requests to addresses that others named, whatever they are for"},
	{"jwks", []string{"catalog", "push", "clock"}, "keys that products publish, in the catalog's words"},
	{"room", []string{"transport", "wire", "register", "saver", "task", "auth", "push", "clock", "admission"},
		"a room never imports an adapter, a transport's package, or center: they meet in gateway"},
	{"center", []string{"register", "saver", "catalog", "task", "idgenerator", "auth", "push", "clock", "center"},
		"center never imports an adapter, a transport, or the room: they meet in gateway"},
	{"client", []string{"wire", "push", "clock"}, "a client knows the wire alone"},
	{"bench", []string{"bench", "auth", "catalog", "dev", "wire", "push"}, "the bench sees the server from outside"},
	{"bench/bare", []string{"bench/sample", "wire", "push"}, "it says what clients wait for, and is no server of ours"},
	{"bench/child", nil, "it runs any process"},
	{"bench/online", []string{"redisdb", "register", "register/redis", "push"}, "it plays a node that looks users up, which no request asks for"},
	{"bench/sample", nil, "it reads /proc, and nothing of ours"},
	{"bench/swarm", []string{"bench/sample", "bench/child", "auth", "catalog", "wire", "push"}, "clients know the wire alone"},
	{"gateway", []string{""}, "gateway is the only package that knows all"},
	{"fleet", []string{"bench/child", "redistest", "proxytest", "dev"}, "it sees nodes from outside, as processes"},
	{"torture", []string{"fleet", "redistest", "proxytest", "history", "client", "wire", "push", "auth", "catalog", "dev"},
		"it sees the gateway from outside, as its users do and as whoever pulls its plugs"},
	{"torture/pushes", []string{"fleet", "redistest", "dev", "push", "saver", "saver/pebble", "saver/redis", "register/memory", "embedded", "redisdb"},
		"it sees the gateway from outside, and reads what is stored when no node runs any more"},
	{"cmd/pushes", []string{"torture/pushes"}, "subcommands and flags, nothing else"},
	{"cmd/torture", []string{"torture"}, "subcommands and flags, nothing else"},
	{"cmd/cluster", []string{"fleet", "redistest"}, "subcommands and flags, nothing else"},
	{"simulation", []string{""}, "a simulated gateway puts together what gateway does"},
	{"cmd", []string{"gateway", "config", "client", "dev", "auth", "catalog", "wire", "push", "room", "transport", "transport/ws", "bench", "heap", "admission", "certificate", "forwarded", "redisdb"}, "subcommands and flags, nothing else"},
}

// contracts are imported without what lies below them: room may import saver, but not saver/pebble.
var adapters = []string{"/memory", "/pebble", "/redis", "/ws", "/sse", "/longpoll", "/tcp"}

func TestImports_FollowTheLayers(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "carillon/...").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	dec := json.NewDecoder(bytes.NewReader(out))
	for {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		pkg, ours := strings.CutPrefix(p.ImportPath, "carillon/server/")
		if !ours || pkg == "" {
			continue
		}
		for _, imp := range p.Imports {
			if to, ours := strings.CutPrefix(imp, "carillon/server/"); ours {
				if why := forbidden(pkg, to); why != "" {
					t.Errorf("%s imports %s: %s", pkg, to, why)
				}
			}
		}
	}
}

// forbidden returns why pkg may not import to, empty if it may.
func forbidden(pkg, to string) string {
	best := -1
	for i, l := range layers {
		if (pkg == l.pkg || strings.HasPrefix(pkg, l.pkg+"/")) && (best < 0 || len(l.pkg) > len(layers[best].pkg)) {
			best = i
		}
	}
	if best < 0 {
		return "the package has no layer in server/imports_test.go"
	}
	l := layers[best]
	everywhere := []string{"push", "failpoint", "planted", "nextversion"}
	if slices.Contains(everywhere, to) && !slices.Contains(everywhere, l.pkg) {
		return ""
	}
	if slices.Contains(l.may, "") {
		return ""
	}
	isAdapter := slices.ContainsFunc(adapters, func(a string) bool { return strings.HasSuffix(to, a) })
	for _, m := range l.may {
		if to == m || strings.HasPrefix(to, m+"/") && !isAdapter {
			return ""
		}
	}
	return l.why
}

func TestImports_RefuseWhatTheLayersForbid(t *testing.T) {
	cases := []struct {
		pkg, to string
		ok      bool
	}{
		{"room", "saver", true},
		{"room", "saver/pebble", false},
		{"room", "center", false},
		{"center", "room", false},
		{"center/strictjson", "center/api", true},
		{"saver/pebble", "saver/memory", false},
		{"push", "wire", false},
		{"transport/ws", "room", false},
		{"transport/ws", "transport/engine", true},
		{"transport/engine", "transport/ws", false},
		{"gateway", "saver/pebble", true},
		{"somewhere", "push", false},
	}
	for _, c := range cases {
		if got := forbidden(c.pkg, c.to) == ""; got != c.ok {
			t.Errorf("%s importing %s is allowed: %v, want %v", c.pkg, c.to, got, c.ok)
		}
	}
}
