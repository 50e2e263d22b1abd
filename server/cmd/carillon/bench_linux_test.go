package main

import (
	"context"
	"encoding/json"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"carillon/server/bench"
	"carillon/server/bench/child"
	"carillon/server/bench/swarm"
	"carillon/server/dev"
)

// benched runs a scenario small, against a real server, and returns its figures by name.
func benched(t *testing.T, args ...string) map[string]float64 {
	t.Helper()
	dir := t.TempDir()
	args = append([]string{"bench", args[0], "--json", "--dir", dir, "--timeout", "60s"}, args[1:]...)
	r := carillon(t, asCarillon(), "", args...)
	nothingLeft(t, dir)
	if r.code != exitOK {
		t.Fatalf("%v: code %d: %s", args, r.code, r.errOut)
	}
	var rep bench.Report
	if err := json.Unmarshal([]byte(r.out), &rep); err != nil {
		t.Fatalf("printed what is no report: %v\n%s", err, r.out)
	}
	figures := make(map[string]float64)
	for _, res := range rep.Results {
		for _, f := range res.Figures {
			if len(f.Runs) == 0 || f.Min > f.Value || f.Value > f.Max {
				t.Errorf("%s %s: %+v", res.Scenario, f.Name, f)
			}
			figures[f.Name] = f.Value
		}
	}
	if rep.Machine.Cores == 0 || rep.Machine.Kernel == "" || rep.Go == "" {
		t.Errorf("the machine is not named: %+v", rep)
	}
	return figures
}

// nothingLeft fails if the bench left a directory, or a server on one.
func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
	if pids := serversOn(t, dir); len(pids) > 0 {
		t.Errorf("still running: %v", pids)
	}
}

// serversOn returns the processes of servers whose data lies in dir.
func serversOn(t *testing.T, dir string) []int {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, l := range lines {
		if b, err := os.ReadFile(l); err == nil && strings.Contains(string(b), "\x00--data="+dir) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(l)))
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

// overAll runs a test of a scenario over each transport.
func overAll(t *testing.T, test func(t *testing.T, transport string)) {
	t.Parallel()
	for _, transport := range swarm.Transports {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			test(t, transport)
		})
	}
}

func TestBench_IdleCountsEverySession(t *testing.T) { overAll(t, idleCountsEverySession) }

func idleCountsEverySession(t *testing.T, transport string) {
	f := benched(t, "idle", "--transport", transport, "--low", "20", "--clients", "50", "--window", "2s", "--heartbeat", "1s", "--settle", "0s")
	if f["sessions"] != 50 {
		t.Errorf("%v sessions, want 50", f["sessions"])
	}
	if f["heartbeats"] < 25 { // the last of some come behind the end of the window
		t.Errorf("%v heartbeats, and 50 sessions had the time for one", f["heartbeats"])
	}
	if got := f["kernel_us_per_ping"]; (got > 0) != (transport != "sse") {
		t.Errorf("the kernel alone took %v µs for a ping", got)
	}
	for _, name := range []string{"empty_rss_bytes", "low_rss_bytes", "high_rss_bytes", "bench_rss_bytes"} {
		if f[name] <= 0 {
			t.Errorf("%s is %v", name, f[name])
		}
	}
}

func TestBench_BroadcastReachesEveryone(t *testing.T) { overAll(t, broadcastReachesEveryone) }

func broadcastReachesEveryone(t *testing.T, transport string) {
	f := benched(t, "broadcast", "--transport", transport, "--clients", "50", "--rounds", "4", "--runs", "2")
	if f["deliveries"] != 200 || f["deliveries_missing"] != 0 {
		t.Errorf("%v deliveries and %v missing, want 200 and 0", f["deliveries"], f["deliveries_missing"])
	}
}

func TestBench_ConnectWelcomesEveryone(t *testing.T) { overAll(t, connectWelcomesEveryone) }

func connectWelcomesEveryone(t *testing.T, transport string) {
	f := benched(t, "connect", "--transport", transport, "--clients", "20", "--count", "30", "--at-once", "8", "--turns", "2",
		"--server-flag=--heartbeat-linger=1s") // so that the server ends soon: it waits for polls to tell them of their end
	if f["connects"] != 180 {
		t.Errorf("%v connects, want 180", f["connects"])
	}
	for _, name := range []string{"kernel_us_per_connect", "kernel_us_per_goodbye", "times_kernel", "library_us_per_connect", "library_us_per_goodbye", "times_library"} {
		if v, ok := f[name]; ok != (transport == "ws") || ok && v < 0 {
			t.Errorf("%s: %v (%v); it is measured for WebSocket alone", name, v, ok)
		}
	}
}

func TestBench_SustainDropsNothing(t *testing.T) { overAll(t, sustainDropsNothing) }

func sustainDropsNothing(t *testing.T, transport string) {
	f := benched(t, "sustain", "--transport", transport, "--clients", "50", "--duration", "300ms", "--window", "8")
	if f["deliveries"] == 0 || f["deliveries_missing"] != 0 || f["clients_lost"] != 0 {
		t.Errorf("%v deliveries, %v missing, %v clients lost", f["deliveries"], f["deliveries_missing"], f["clients_lost"])
	}
}

func TestBench_UnicastArrivesInAllFourWays(t *testing.T) { overAll(t, unicastArrivesInAllFourWays) }

func unicastArrivesInAllFourWays(t *testing.T, transport string) {
	f := benched(t, "unicast", "--transport", transport, "--clients", "50", "--duration", "1500ms", "--batch", "10", "--window", "40")
	if f["acks"] == 0 {
		t.Error("nothing was acknowledged")
	}
	if f["messages"] == 0 || f["messages_missing"] != 0 {
		t.Errorf("%v messages, %v missing", f["messages"], f["messages_missing"])
	}
	for _, way := range []string{"live_single", "live_batch", "stored_single", "stored_batch"} {
		if f[way+"_messages_per_s"] <= 0 {
			t.Errorf("%s: nothing arrived", way)
		}
	}
}

func TestBench_OfflineStoresWhatItSends(t *testing.T) {
	t.Parallel()
	f := benched(t, "offline", "--users", "50", "--duration", "200ms", "--connections", "2", "--batch", "10")
	if n := f["messages"]; n < 10 || n != math.Trunc(n/10)*10 {
		t.Errorf("%v messages, want whole batches of 10", n)
	}
}

func TestBench_OfflineOnRedisCountsWhatEachPartCosts(t *testing.T) {
	t.Parallel()
	for _, durability := range []string{"process", "replicated"} {
		f := benched(t, "offline", "--store", "redis", "--durability", durability, "--users", "25", "--per-user", "3", "--registered", "70",
			"--lookup", "40", "--broadcasts", "1", "--connections", "2", "--batch", "10", "--shards", "16")
		if f["messages"] != 75 || f["users"] != 70 {
			t.Errorf("%s: %v messages and %v users, want 75 and 70", durability, f["messages"], f["users"])
		}
		for _, name := range []string{
			"messages_per_s", "cpu_us_per_message", "redis_cpu_us_per_message", "redis_commands_per_message", "round_trips_per_request",
			"keyed_messages_per_s", "lookup_offline_ms", "lookup_online_ms", "broadcast_few_redis_cpu_ms", "broadcast_many_cpu_ms",
		} { // of memory, so few messages take less than what comes and goes otherwise
			if f[name] <= 0 {
				t.Errorf("%s: %s is %v", durability, name, f[name])
			}
		}
		if got := f["replica_cpu_us_per_message"]; (got > 0) != (durability == "replicated") {
			t.Errorf("%s: the replica took %v µs for a message", durability, got)
		}
		// A read and five or six commands of the write in each shard.
		if few, many := f["broadcast_few_redis_commands"], f["broadcast_many_redis_commands"]; few < 5*16 || many < 5*16 {
			t.Errorf("%s: a broadcast to 16 shards took %v commands, and %v when more users were known", durability, few, many)
		}
	}
}

func TestBench_TasksWritesForAllUsers(t *testing.T) {
	t.Parallel()
	for _, store := range []string{"embedded", "redis"} {
		f := benched(t, "tasks", "--store", store, "--users", "3000", "--clients", "5", "--rate", "100", "--duration", "500ms")
		if f["users"] != 3000 {
			t.Errorf("%s: the task wrote for %v users, want 3000", store, f["users"])
		}
		for _, name := range []string{"task_s", "unicast_p99_ms", "unicast_p99_ms_without", "list_upload_s"} {
			if f[name] <= 0 {
				t.Errorf("%s: %s is %v", store, name, f[name])
			}
		}
		if got := f["redis_cpu_us_per_user"]; (got > 0) != (store == "redis") {
			t.Errorf("%s: Redis took %v µs for a user", store, got)
		}
	}
}

func TestBench_LimitsTurnsAttackersAwayAndServesTheOthers(t *testing.T) {
	t.Parallel()
	f := benched(t, "limits", "--clients", "20", "--rate", "100", "--turns", "1", "--duration", "500ms")
	if f["messages"] < 100 || f["messages_missing"] != 0 {
		t.Errorf("%v messages, %v missing", f["messages"], f["messages_missing"])
	}
	for _, attack := range []string{"frame_rate", "frame_size", "slow_reader", "polls", "address_connects", "connects"} {
		if f[attack+"_refused"] == 0 || f[attack+"_refused"] > f[attack+"_attempts"] {
			t.Errorf("%s: %v of %v attempts refused", attack, f[attack+"_refused"], f[attack+"_attempts"])
		}
		for _, name := range []string{"_p99_ms", "_p99_ms_without", "_ping_p99_ms", "_ping_p99_ms_without"} {
			if f[attack+name] <= 0 {
				t.Errorf("%s%s is %v", attack, name, f[attack+name])
			}
		}
	}
}

func TestBench_AllIsEveryScenarioWithItsDefaults(t *testing.T) {
	t.Parallel()
	got, err := (&benchAllCmd{}).scenarios()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range got {
		names = append(names, s.Name())
	}
	if want := []string{"idle", "connect", "broadcast", "sustain", "unicast", "offline", "tasks", "limits"}; !slices.Equal(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
	want := &bench.Idle{Transport: "ws", Low: 5000, High: 18000, Window: time.Minute, Heartbeat: time.Minute, Settle: 3 * time.Second}
	if got := got[0].(*bench.Idle); *got != *want {
		t.Errorf("idle is %+v, want %+v", got, want)
	}
	got, err = (&benchAllCmd{Clients: 100, Duration: time.Second}).scenarios()
	if err != nil {
		t.Fatal(err)
	}
	if i := got[0].(*bench.Idle); i.High != 100 || i.Low != 25 || i.Window != time.Second {
		t.Errorf("bounded, idle is %+v", i)
	}
}

func TestBench_InterruptedLeavesNothing(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	code, said := disturbed(ctx, t, t.TempDir(), cancel)
	if code != exitFailed || ctx.Err() == nil {
		t.Errorf("code %d, want %d: %s", code, exitFailed, said)
	}
}

func TestBench_AServerThatDiesIsTold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	code, said := disturbed(t.Context(), t, dir, func() {
		for _, pid := range serversOn(t, dir) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Error(err)
			}
		}
	})
	if code != exitFailed || !strings.Contains(said, "the server: the process ") || !strings.Contains(said, "signal: killed") {
		t.Errorf("code %d: %s", code, said)
	}
}

// disturbed runs a scenario that would take long, does something in its midst, and fails if anything is left.
func disturbed(ctx context.Context, t *testing.T, dir string, do func()) (code int, said string) {
	t.Helper()
	h := &hook{text: "broadcast 1 of ", do: do}
	a := &app{stdin: strings.NewReader(""), stdout: h, stderr: h, environ: asCarillon()}
	code = a.run(ctx, []string{"bench", "broadcast", "--clients", "50", "--rounds", "100000", "--timeout", "20s", "--dir", dir})
	nothingLeft(t, dir)
	return code, h.said.String()
}

// hook is a writer that acts when a text is written to it for the first time.
type hook struct {
	text string
	do   func()

	// Guarded by mu.
	mu   sync.Mutex
	said strings.Builder
}

// Write implements io.Writer.
func (h *hook) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := strings.Contains(h.said.String(), h.text)
	h.said.Write(p)
	if !before && strings.Contains(h.said.String(), h.text) {
		h.do()
	}
	return len(p), nil
}

// serving starts a development server in a process of its own and waits until it is ready.
func serving(t *testing.T, data string) *child.Process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	srv, err := child.Start([]string{exe, "serve", "--dev", "--data=" + data, "--public-listen=127.0.0.1:0",
		"--admin-listen=127.0.0.1:0", "--tcp-listen=127.0.0.1:0", "--log-level=warn"}, asCarillon())
	if err != nil {
		t.Fatal(err)
	}
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		select {
		case <-srv.Exited():
			t.Fatal(srv.Err())
		case <-poll.C:
		}
		f, err := dev.Load(data)
		if err != nil {
			continue
		}
		resp, err := http.Get(f.Admin + "/readyz")
		if err != nil {
			continue
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return srv
		}
	}
}

// asCarillon is an environment in which the test binary is the command.
func asCarillon() []string { return append(os.Environ(), beCarillon+"=1") }

func TestBench_ARunningServerIsMeasuredAndLeftRunning(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	srv := serving(t, data)
	dir := t.TempDir()
	r := carillon(t, asCarillon(), "", "bench", "broadcast", "--data", data, "--clients", "10", "--rounds", "2", "--dir", dir)
	if r.code != exitOK || !strings.Contains(r.out, "was running before") {
		t.Errorf("code %d: %s%s", r.code, r.out, r.errOut)
	}
	select {
	case <-srv.Exited():
		t.Error("the server was ended")
	default:
	}
	if err := srv.Stop(); err != nil {
		t.Error(err)
	}
	r = carillon(t, asCarillon(), "", "bench", "broadcast", "--data", data, "--clients", "10", "--rounds", "2")
	if r.code != exitFailed {
		t.Errorf("with a server that is gone: code %d, want %d (%s)", r.code, exitFailed, r.errOut)
	}
}

func TestBench_RefusesWhatItCannotMeasure(t *testing.T) {
	t.Parallel()
	elsewhere := devData(t, "http://192.0.2.1:8080", "http://192.0.2.1:8081")
	stranger := devData(t, "http://127.0.0.1:1", "http://127.0.0.1:1")
	if err := os.WriteFile(filepath.Join(stranger, "dev.pid"), []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	nobody := devData(t, "http://127.0.0.1:1", "http://127.0.0.1:1")
	cases := []struct {
		args []string
		code int
		want string
	}{
		{[]string{"broadcast", "--data", elsewhere}, exitUsage, "on this machine alone"},
		{[]string{"broadcast", "--data", t.TempDir()}, exitUsage, "serve --dev"},
		{[]string{"broadcast", "--data", stranger}, exitFailed, "cannot be measured"},
		{[]string{"broadcast", "--data", nobody}, exitFailed, "dev.pid"},
		{[]string{"broadcast", "--clients", "0"}, exitUsage, "--clients"},
		{[]string{"broadcast", "--clients", "18001", "--workers", "1"}, exitUsage, "--workers 2"},
		{[]string{"broadcast", "--clients", "1"}, exitUsage, "--workers"},
		{[]string{"broadcast", "--rounds", "0"}, exitUsage, "--rounds"},
		{[]string{"broadcast", "--body-bytes", "10"}, exitUsage, "--body-bytes"},
		{[]string{"broadcast", "--runs", "0"}, exitUsage, "--runs"},
		{[]string{"broadcast", "--timeout", "-1s"}, exitUsage, "--timeout"},
		{[]string{"broadcast", "--server-flag", "heartbeat"}, exitUsage, "--server-flag"},
		{[]string{"broadcast", "--data", nobody, "--server-flag=--log-level=info"}, exitUsage, "--server-flag"},
		{[]string{"idle", "--low", "5", "--clients", "5"}, exitUsage, "--low"},
		{[]string{"idle", "--window", "10ms"}, exitUsage, "--window"},
		{[]string{"idle", "--transport", "pigeon"}, exitUsage, "--transport is one of"},
		{[]string{"idle", "--heartbeat", "10ms"}, exitUsage, "--heartbeat"},
		{[]string{"connect", "--count", "0"}, exitUsage, "--count"},
		{[]string{"connect", "--at-once", "0"}, exitUsage, "--at-once"},
		{[]string{"sustain", "--window", "5000"}, exitUsage, "--window"},
		{[]string{"sustain", "--connections", "0"}, exitUsage, "--connections"},
		{[]string{"unicast", "--batch", "501"}, exitUsage, "--batch"},
		{[]string{"unicast", "--window", "99"}, exitUsage, "--window"},
		{[]string{"offline", "--duration", "2h"}, exitUsage, "--duration"},
		{[]string{"offline", "--users", "0"}, exitUsage, "--users"},
		{[]string{"offline", "--store", "papyrus"}, exitUsage, "--store"},
		{[]string{"offline", "--redis", "127.0.0.1:6379"}, exitUsage, "--store redis"},
		{[]string{"offline", "--store", "redis", "--redis", "127.0.0.1:6379"}, exitUsage, "--durability"},
		{[]string{"offline", "--store", "redis", "--redis", "192.0.2.1:6379", "--durability", "process"}, exitUsage, "on this machine alone"},
		{[]string{"offline", "--store", "redis", "--durability", "eternal"}, exitUsage, "--durability"},
		{[]string{"offline", "--store", "redis", "--per-user", "0"}, exitUsage, "--per-user"},
		{[]string{"offline", "--store", "redis", "--shards", "1025"}, exitUsage, "--shards"},
		{[]string{"offline", "--store", "redis", "--lookup", "0"}, exitUsage, "--lookup"},
		{[]string{"offline", "--store", "redis", "--data", nobody}, exitUsage, "--data"},
		{[]string{"tasks", "--users", "1000001"}, exitUsage, "--users"},
		{[]string{"tasks", "--redis", "127.0.0.1:6379"}, exitUsage, "--store redis"},
		{[]string{"tasks", "--store", "redis", "--shards", "0"}, exitUsage, "--shards"},
		{[]string{"limits", "--clients", "197"}, exitUsage, "--clients"},
		{[]string{"limits", "--rate", "0"}, exitUsage, "--rate"},
		{[]string{"limits", "--turns", "0"}, exitUsage, "--turns"},
		{[]string{"limits", "--data", nobody}, exitUsage, "--data"},
		{[]string{"limits", "--server-flag=--limits-frame-bytes=4096"}, exitUsage, "--limits-frame-bytes"},
		{[]string{"all", "--clients", "-1"}, exitUsage, "--clients"},
		{[]string{"broadcast", "--server-flag=--no-such-flag", "--clients", "2"}, exitFailed, "no-such-flag"},
	}
	for _, c := range cases {
		r := carillon(t, asCarillon(), "", append([]string{"bench"}, c.args...)...)
		if r.code != c.code || !strings.Contains(r.errOut, c.want) {
			t.Errorf("%v: code %d, want %d; %q should hold %q", c.args, r.code, c.code, r.errOut, c.want)
		}
	}
}

func TestProgress_OneLineForEachStep(t *testing.T) {
	var b strings.Builder
	p := newProgress(&b)
	for _, s := range []string{"1 of 3", "2 of 3", "stopping", "stopping", "1 of 3"} {
		p.say(s)
	}
	p.end()
	if want := "1 of 3\nstopping\n1 of 3\n"; b.String() != want {
		t.Errorf("wrote %q, want %q", b.String(), want)
	}
	p.last = p.last.Add(-time.Hour)
	p.say("2 of 3")
	if !strings.HasSuffix(b.String(), "2 of 3\n") {
		t.Error("a step that takes long is not shown again")
	}
}
