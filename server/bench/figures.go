package bench

import (
	"slices"
	"time"
)

// Better says which way a figure is good.
type Better string

// The ways.
const (
	Lower  Better = "lower"
	Higher Better = "higher"
	Exact  Better = "exact" // a count that has to be what it is
)

// definition says what a figure is, once for tables, JSON and documentation.
type definition struct {
	name   string
	text   string // for people
	unit   string
	better Better
	// target is what has to be reached on two cores where both ends share them, goal what is aimed at; 0: none.
	target, goal float64
}

// definitions are all figures, by scenario, in the order in which a table shows them. Names are stable: programs read them.
var definitions = map[string][]definition{
	"idle": {
		{"rss_bytes_per_session_collected", "resident memory a session, after two collections", "B", Lower, 5120, 4096},
		{"rss_bytes_per_session", "resident memory a session, as it is", "B", Lower, 8192, 6656},
		{"heap_bytes_per_session", "of it Go's heap (live, after collections)", "B", Lower, 0, 0},
		{"heap_inuse_bytes_per_session", "the same with the gaps between objects", "B", Lower, 0, 0},
		{"stack_bytes_per_session", "of it stacks of goroutines", "B", Lower, 0, 0},
		{"goroutines_per_session", "goroutines a session", "", Lower, 0, 0},
		{"kernel_bytes_per_session_both_ends", "kernel memory a session (slab and TCP), client and server", "B", Lower, 0, 0},
		{heartbeatsFigure, "processor for heartbeats of all sessions", "% of a core", Lower, 1.5, 0},
		{"heartbeat_cpu_us", "processor for one heartbeat", "µs", Lower, 0, 0},
		{"kernel_us_per_ping", "the kernel alone, a ping read and answered: processor", "µs", Lower, 0, 0},
		{"empty_core_percent", "processor of the empty server", "% of a core", Lower, 0, 0},
		{"heartbeats", "heartbeats in the window", "", Exact, 0, 0},
		{"empty_rss_bytes", "resident memory of the empty server", "B", Lower, 0, 50 << 20},
		{"low_rss_bytes", "resident memory at the low level, collected", "B", Lower, 0, 0},
		{"high_rss_bytes", "resident memory at the high level, collected", "B", Lower, 0, 0},
		{"sessions", "sessions at the high level", "", Exact, 0, 0},
	},
	"connect": {
		{"first_cpu_us_none_online", "a device's first connect, nobody online: processor", "µs", Lower, 0, 0},
		{"again_cpu_us_none_online", "a later connect, nobody online: processor", "µs", Lower, 220, 200},
		{"first_cpu_us", "a device's first connect, many online: processor", "µs", Lower, 0, 0},
		{"again_cpu_us", "a later connect, many online: processor", "µs", Lower, 220, 200},
		{"goodbye_cpu_us_none_online", "a goodbye, nobody online: processor", "µs", Lower, 0, 0},
		{"goodbye_cpu_us", "a goodbye, many online: processor", "µs", Lower, 0, 0},
		{"kernel_us_per_connect", "the kernel alone, a connect: processor", "µs", Lower, 0, 0},
		{"kernel_us_per_goodbye", "the kernel alone, a goodbye: processor", "µs", Lower, 0, 0},
		{"times_kernel", "a later connect, many online, in times of that of the kernel alone", "", Lower, 0, 0},
		{"library_us_per_connect", "net/http and coder/websocket alone, a connect: processor", "µs", Lower, 0, 0},
		{"library_us_per_goodbye", "net/http and coder/websocket alone, a goodbye: processor", "µs", Lower, 0, 0},
		{"times_library", "a later connect, many online, in times of theirs", "", Lower, 0, 0},
		{"again_per_s_none_online", "later connects, nobody online: rate", "/s", Higher, 0, 0},
		{"again_per_s", "later connects, many online: rate", "/s", Higher, 0, 0},
		{"again_p50_ms_none_online", "time to welcome, nobody online: median", "ms", Lower, 0, 0},
		{"again_p99_ms_none_online", "time to welcome, nobody online: 99 %", "ms", Lower, 0, 0},
		{"again_p50_ms", "time to welcome, many online: median", "ms", Lower, 0, 0},
		{"again_p99_ms", "time to welcome, many online: 99 %", "ms", Lower, 0, 0},
		{"connects", "connects, in all", "", Exact, 0, 0},
	},
	"broadcast": {
		{"cpu_us_per_delivery", "processor for one delivery", "µs", Lower, 12, 11},
		{"p50_ms", "from the request's start to the client: median", "ms", Lower, 0, 0},
		{"p99_ms", "from the request's start to the client: 99 %", "ms", Lower, 90, 80},
		{"max_ms", "from the request's start to the client: longest", "ms", Lower, 0, 0},
		{"kernel_us_per_write", "the kernel alone, as many bytes to a plain socket: processor", "µs", Lower, 0, 0},
		{"kernel_round_ms", "the kernel alone, to as many sockets as there are clients: time", "ms", Lower, 0, 0},
		{"deliveries", "messages that arrived", "", Exact, 0, 0},
		{"deliveries_missing", "messages that did not", "", Exact, 0, 0},
	},
	"sustain": {
		{"deliveries_per_s", "messages that arrive", "/s", Higher, 200_000, 300_000},
		{"cpu_us_per_delivery", "processor for one delivery", "µs", Lower, 5, 3.5},
		{"broadcasts_per_s", "broadcasts that reach everyone", "/s", Higher, 0, 0},
		{"p50_ms", "from the request's start to the client: median", "ms", Lower, 0, 0},
		{"p99_ms", "from the request's start to the client: 99 %", "ms", Lower, 0, 0},
		{"deliveries", "messages that arrived", "", Exact, 0, 0},
		{"deliveries_missing", "messages that did not", "", Exact, 0, 0},
		{"clients_lost", "clients that were cut", "", Exact, 0, 0},
		{"probe_ping_p50_ms", "meanwhile, a ping to its pong: median", "ms", Lower, 0, 0},
		{"probe_ping_p99_ms", "meanwhile, a ping to its pong: 99 %", "ms", Lower, 0, 0},
		{"probe_unicast_p50_ms", "meanwhile, a message to one user, from the request's start: median", "ms", Lower, 0, 0},
		{"probe_unicast_p99_ms", "meanwhile, a message to one user: 99 %", "ms", Lower, 0, 0},
	},
	"unicast": unicastFigures(),
	"limits":  limitsFigures(),
	"tasks":   tasksFigures(false),
	"offline": {
		{"messages_per_s", "messages stored, flushed to disk before the answer", "/s", Higher, 0, 40_000},
		{"cpu_us_per_message", "processor for one message", "µs", Lower, 0, 0},
		{"p50_ms", "answer to a batch: median", "ms", Lower, 0, 0},
		{"p99_ms", "answer to a batch: 99 %", "ms", Lower, 0, 0},
		{"messages", "messages stored", "", Exact, 0, 0},
	},
	"tasks-redis-process":      tasksFigures(true),
	"tasks-redis-replicated":   tasksFigures(true),
	"offline-redis-process":    offlineRedisFigures(40_000, 20),
	"offline-redis-disk":       offlineRedisFigures(0, 0),
	"offline-redis-replicated": offlineRedisFigures(20_000, 0),
}

// marks are the targets and goals of figures where clients connect by other transports than WebSocket. Those who have none of
// their own are without a mark there.
var marks = map[string][2]float64{
	"rss_bytes_per_session_collected": {4096, 3072},
	"rss_bytes_per_session":           {5120, 0},
}

// heartbeatsFigure has its mark for so many sessions, with a heartbeat every so often.
const (
	heartbeatsFigure   = "heartbeats_core_percent"
	heartbeatsSessions = 18_000
	heartbeatsInterval = time.Minute
)

// ofWebSockets are figures whose marks in definitions were set for WebSockets.
var ofWebSockets = map[string][]string{
	"idle":      {"rss_bytes_per_session_collected", "rss_bytes_per_session", heartbeatsFigure},
	"broadcast": {"cpu_us_per_delivery", "p99_ms"},
	"sustain":   {"deliveries_per_s", "cpu_us_per_delivery"},
}

// definitionsOf returns the figures of a scenario whose clients connect by some transport.
func definitionsOf(scenario, transport string) []definition {
	ds := slices.Concat(definitions[scenario], ownFigures)
	if transport == "ws" {
		return ds
	}
	for i := range ds {
		if slices.Contains(ofWebSockets[scenario], ds[i].name) {
			m := marks[ds[i].name]
			ds[i].target, ds[i].goal = m[0], m[1]
		}
	}
	return ds
}

// ownFigures are what the bench itself costs, in every scenario that measures it.
var ownFigures = []definition{
	{"bench_cpu_percent", "the bench itself: processor, beside the server's", "% of a core", Lower, 0, 0},
	{"bench_cpu_us", "the bench itself: processor for one of the above", "µs", Lower, 0, 0},
	{"bench_rss_bytes", "the bench's client processes: resident memory", "B", Lower, 0, 0},
	{"bench_bytes_per_client", "of it for one client", "B", Lower, 0, 0},
}

// The ways in which unicast publishes; each has the same figures.
var unicastWays = []struct{ name, text string }{
	{"live_single", "online only, one by one"}, {"live_batch", "online only, in batches"},
	{"stored_single", "persistent, one by one"}, {"stored_batch", "persistent, in batches"},
}

func unicastFigures() []definition {
	goals := map[string][2]float64{"live_single": {12_000, 70}, "live_batch": {60_000, 22}}
	var ds []definition
	for _, w := range unicastWays {
		g := goals[w.name]
		ds = append(ds,
			definition{w.name + "_messages_per_s", w.text + ": messages that arrive", "/s", Higher, 0, g[0]},
			definition{w.name + "_cpu_us_per_message", w.text + ": processor for one", "µs", Lower, 0, g[1]},
			definition{w.name + "_p50_ms", w.text + ": from the request's start to the client, median", "ms", Lower, 0, 0},
			definition{w.name + "_p99_ms", w.text + ": 99 %", "ms", Lower, 0, 0},
		)
	}
	return append(ds,
		definition{"messages", "messages that arrived", "", Exact, 0, 0},
		definition{"messages_missing", "messages that did not", "", Exact, 0, 0},
		definition{"acks", "acknowledgements", "", Exact, 0, 0},
	)
}

func limitsFigures() []definition {
	var ds []definition
	for _, a := range attacks {
		ds = append(ds,
			definition{a.name + "_p99_more_percent", a.text + ": by how much the others' 99 % grows", "%", Lower, 20, 0},
			definition{a.name + "_p99_ms_without", "a message to one of the others, without it: 99 %", "ms", Lower, 0, 0},
			definition{a.name + "_p99_ms", "the same under attack", "ms", Lower, 0, 0},
			definition{a.name + "_ping_p99_ms_without", "a ping of the others to its pong, without it: 99 %", "ms", Lower, 0, 0},
			definition{a.name + "_ping_p99_ms", "the same under attack", "ms", Lower, 0, 0},
			definition{a.name + "_attempts", "attempts of the attackers", "", Exact, 0, 0},
			definition{a.name + "_refused", "of them refused, or cut for", "", Exact, 0, 0},
			definition{a.name + "_cpu_us", "processor of the server for an attempt", "µs", Lower, 0, 0},
			definition{a.name + "_beside_p99_ms", "a message while the attackers are at a server beside it: 99 %", "ms", Lower, 0, 0},
			definition{a.name + "_beside_p99_more_percent", "by how much that is more than without them", "%", Lower, 0, 0},
			definition{a.name + "_p99_more_than_beside_percent", "by how much the attack on the server is more than that", "%", Lower, 20, 0},
		)
	}
	return append(ds,
		definition{"messages", "messages that arrived at the others", "", Exact, 0, 0},
		definition{"messages_missing", "messages that did not", "", Exact, 0, 0},
	)
}
