package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"carillon/server/bench"
	"carillon/server/bench/bare"
	"carillon/server/bench/swarm"
	"carillon/server/config"
)

type benchCmd struct {
	Idle      benchIdleCmd      `cmd:"" help:"Memory and heartbeats of sessions that do nothing."`
	Connect   benchConnectCmd   `cmd:"" help:"Coming and going, with nobody and with many online."`
	Broadcast benchBroadcastCmd `cmd:"" help:"One message to everyone, again and again."`
	Sustain   benchSustainCmd   `cmd:"" help:"Messages to everyone, as fast as they are taken."`
	Unicast   benchUnicastCmd   `cmd:"" help:"Messages to single users who are online."`
	Offline   benchOfflineCmd   `cmd:"" help:"Messages that are stored for users who are offline."`
	Tasks     benchTasksCmd     `cmd:"" help:"A task to a million users who are offline."`
	Limits    benchLimitsCmd    `cmd:"" help:"What those who break a limit do to the others."`
	All       benchAllCmd       `cmd:"" help:"All of these, one after the other."`
}

// Help is shown under --help.
func (benchCmd) Help() string {
	return `Starts a development server on a temporary directory, connects clients from processes of their own, and measures the
server from outside. Nothing is left when it ends or is interrupted. Both ends share this machine, which has to run Linux.
docs/benchmarks/README.md says how to read the figures.

Example:

    carillon bench broadcast --clients 10000 --rounds 30`
}

// benchFlags are what all scenarios share.
type benchFlags struct {
	Data       string        `placeholder:"DIR" help:"Measure the running development server of this data directory, instead of starting one. It gets users whose names begin with bench-."`
	ServerFlag []string      `sep:"none" placeholder:"FLAG" help:"Flag for the server that is started, with its value, as in --server-flag=--limits-queue-messages=512; may be repeated."`
	Dir        string        `type:"path" placeholder:"DIR" help:"Where the temporary data of that server lies; with a disk below it, flushes cost what they cost."`
	Workers    int           `default:"2" help:"Processes that the clients are spread over; each holds at most 18000."`
	Runs       int           `default:"1" help:"How often everything is measured; the median of all is shown, and the bounds."`
	Timeout    time.Duration `default:"15m" help:"Most time of one run of one scenario."`
	JSON       bool          `name:"json" help:"Print the figures as JSON, for programs."`
}

// run measures, and prints what was measured, also if a later scenario failed.
func (f *benchFlags) run(ctx context.Context, a *app, scenarios ...bench.Scenario) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	p := newProgress(a.stderr)
	rep, err := bench.Run(ctx, bench.Config{
		Executable: exe, Env: withoutOurs(a.environ), Clients: []string{"bench-clients"}, Bare: []string{"bench-bare"}, Data: f.Data,
		ServerFlags: f.ServerFlag, Dir: f.Dir, Workers: f.Workers, Runs: f.Runs, Timeout: f.Timeout, Version: version(),
		Progress: p.say,
	}, scenarios...)
	p.end()
	if rep != nil && len(rep.Results) > 0 {
		err = errors.Join(f.print(a, rep), err)
	}
	if usage, ok := errors.AsType[bench.UsageError](err); ok {
		return usageError{usage}
	}
	return err
}

func (f *benchFlags) print(a *app, rep *bench.Report) error {
	if f.JSON {
		enc := json.NewEncoder(a.stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(rep)
	}
	return rep.Write(a.stdout)
}

// withoutOurs returns the environment without what configures a server: what is measured is told by flags, and stands in
// the report.
func withoutOurs(environ []string) []string {
	var out []string
	for _, e := range environ {
		if !strings.HasPrefix(e, config.Prefix) {
			out = append(out, e)
		}
	}
	return out
}

// benchTransport is how clients connect.
type benchTransport struct {
	Transport string `default:"ws" help:"By what clients connect: ws, sse, poll or tcp."`
}

type benchIdleCmd struct {
	benchFlags
	benchTransport
	Low       int           `default:"5000" help:"Sessions at the lower of the two levels."`
	Clients   int           `default:"18000" help:"Sessions at the higher one."`
	Window    time.Duration `default:"60s" help:"How long processor time is measured, without sessions and with all of them."`
	Heartbeat time.Duration `default:"60s" help:"Interval at which sessions show that they live."`
	Settle    time.Duration `default:"3s" help:"Time between the last connect and a sample of memory."`
}

// Help is shown under --help.
func (benchIdleCmd) Help() string {
	return `Connects sessions up to a low and then to a high level: authenticated, registered, with heartbeats. What one takes is the
slope of the server's resident memory between the levels, so that what the process takes anyway is left out. It is
sampled as it is, and again after two garbage collections. At the high level, processor time for the heartbeats is
measured, beside that of the empty server, and what the kernel alone takes for pings that come as often.

Example:

    carillon bench idle --low 5000 --clients 18000 --runs 3`
}

// Run executes the command.
func (c *benchIdleCmd) Run(ctx context.Context, a *app) error { return c.run(ctx, a, c.scenario()) }

func (c *benchIdleCmd) scenario() bench.Scenario {
	return &bench.Idle{Transport: c.Transport, Low: c.Low, High: c.Clients, Window: c.Window, Heartbeat: c.Heartbeat, Settle: c.Settle}
}

type benchConnectCmd struct {
	benchFlags
	benchTransport
	Clients int `default:"18000" help:"Sessions that are online when it is measured again."`
	Count   int `default:"1500" help:"Connects in each measurement."`
	AtOnce  int `default:"16" help:"How many connect at the same time."`
	Turns   int `default:"5" help:"Measurements of later connects, of which the median is shown."`
}

// Help is shown under --help.
func (benchConnectCmd) Help() string {
	return `Connects devices, several times each, with nobody online and again with many: token checked, registered, welcomed. The
first connect of a device stores it; later ones do not. They stay until all are there, and then say goodbye, which is
measured by itself. Where one of it costs more with many online, something grows that must not.

Over WebSocket the same clients then connect to two servers that do nothing with them: one that is nothing but the kernel's
accept, epoll_ctl, read and write, and one of net/http and coder/websocket. Machines differ in those, and one machine from day
to day: what a connect takes beyond them, and in times of them, is ours.

Example:

    carillon bench connect --clients 18000 --count 1500 --turns 9`
}

// Run executes the command.
func (c *benchConnectCmd) Run(ctx context.Context, a *app) error { return c.run(ctx, a, c.scenario()) }

func (c *benchConnectCmd) scenario() bench.Scenario {
	return &bench.Connect{Transport: c.Transport, Clients: c.Clients, Count: c.Count, AtOnce: c.AtOnce, Turns: c.Turns}
}

// benchBody is how large messages are.
type benchBody struct {
	BodyBytes int `default:"128" help:"Size of a message's body."`
}

type benchBroadcastCmd struct {
	benchFlags
	benchTransport
	benchBody
	Clients int `default:"10000" help:"Sessions that get each message."`
	Rounds  int `default:"30" help:"Messages; each is sent when all sessions have the one before."`
}

// Help is shown under --help.
func (benchBroadcastCmd) Help() string {
	return `Sends a message that is not persistent to everyone and waits until all have it, again and again. Shows the server's
processor time for one delivery, and the time from the beginning of the request until a client has read the message.

Example:

    carillon bench broadcast --clients 10000 --rounds 30`
}

// Run executes the command.
func (c *benchBroadcastCmd) Run(ctx context.Context, a *app) error {
	return c.run(ctx, a, c.scenario())
}

func (c *benchBroadcastCmd) scenario() bench.Scenario {
	return &bench.Broadcast{Transport: c.Transport, Clients: c.Clients, Rounds: c.Rounds, Body: c.BodyBytes}
}

type benchSustainCmd struct {
	benchFlags
	benchTransport
	benchBody
	Clients     int           `default:"10000" help:"Sessions that get each message."`
	Window      int           `default:"32" help:"Messages under way: sent, and not yet read by every session."`
	Connections int           `default:"4" help:"Requests side by side."`
	Duration    time.Duration `default:"10s" help:"How long messages are sent."`
}

// Help is shown under --help.
func (benchSustainCmd) Help() string {
	return `Sends messages that are not persistent to everyone, as fast as all sessions take them. The next is sent when fewer than
--window are under way, so that no queue of the server runs over; messages that did not arrive are counted all the same.

Example:

    carillon bench sustain --clients 10000 --window 32 --duration 10s`
}

// Run executes the command.
func (c *benchSustainCmd) Run(ctx context.Context, a *app) error { return c.run(ctx, a, c.scenario()) }

func (c *benchSustainCmd) scenario() bench.Scenario {
	return &bench.Sustain{
		Transport: c.Transport, Clients: c.Clients, Window: c.Window, Senders: c.Connections, Duration: c.Duration, Body: c.BodyBytes,
	}
}

type benchUnicastCmd struct {
	benchFlags
	benchTransport
	benchBody
	Clients     int           `default:"1000" help:"Users online, who get the messages in turn."`
	Connections int           `default:"4" help:"Requests side by side."`
	Batch       int           `default:"100" help:"Messages in one request, where they go in batches."`
	Window      int           `default:"2000" help:"Messages under way: sent, and not yet read."`
	Duration    time.Duration `default:"5s" help:"How long messages are sent, in each of the four ways."`
}

// Help is shown under --help.
func (benchUnicastCmd) Help() string {
	return `Sends messages to single users who are online, in four ways: online only and persistent, one by one and in batches.
Persistent ones have an idempotency key, are flushed to disk before the answer, and are acknowledged by the clients.

Example:

    carillon bench unicast --clients 1000 --connections 4 --batch 100`
}

// Run executes the command.
func (c *benchUnicastCmd) Run(ctx context.Context, a *app) error { return c.run(ctx, a, c.scenario()) }

func (c *benchUnicastCmd) scenario() bench.Scenario {
	return &bench.Unicast{
		Transport: c.Transport, Clients: c.Clients, Senders: c.Connections, Batch: c.Batch, Window: c.Window, Duration: c.Duration, Body: c.BodyBytes,
	}
}

type benchOfflineCmd struct {
	benchFlags
	benchBody
	Users       int           `default:"100000" help:"Users that the messages are for, in turn."`
	Connections int           `default:"16" help:"Requests side by side."`
	Batch       int           `default:"100" help:"Messages in one request."`
	Duration    time.Duration `default:"10s" help:"How long messages are sent, on the embedded store."`
	Store       string        `default:"embedded" enum:"embedded,redis" help:"Where the server keeps messages: embedded or redis."`
	Redis       string        `placeholder:"ADDRESS" help:"host:port of a Redis that runs on this machine, with nothing in it that matters; without it one is started, which takes redis-server."`
	Durability  []string      `default:"process,replicated" help:"On Redis: what an accepted message has to survive: process, disk, replicated; each is measured by itself."`
	PerUser     int           `default:"10" help:"On Redis: messages to each user."`
	Shards      int           `default:"1024" help:"On Redis: shards of the product."`
	Registered  int           `default:"1000000" help:"On Redis: users who are known when stored broadcasts are measured again."`
	Broadcasts  int           `default:"20" help:"On Redis: stored broadcasts in each measurement."`
	Lookup      int           `default:"100000" help:"On Redis: users in a look-up."`
}

// Help is shown under --help.
func (benchOfflineCmd) Help() string {
	return `Sends persistent messages to users who are offline, in batches.

On the embedded store each message has an idempotency key, and an answer means that all are on disk, so the disk matters: --dir says
where the data lies.

With --store redis it starts a Redis too, with a replica for durability replicated, or takes the one of --redis, and a server that is a
cluster of one node. Each durability is measured by itself: messages until every user has --per-user of them, without idempotency keys, and
as many again with them to as many other users: what one takes of the server's processor, of Redis's, and of Redis's memory. Then it
has users known until there are --registered, by a message to each, and compares what a stored broadcast costs with what it cost when ten were. At last
it looks --lookup users up in the register, in a process of its own by the server's code: when all are offline, and when all have a session. That
takes some minutes and, by default, 2 GB of memory.

Examples:

    carillon bench offline --connections 16 --batch 100 --dir .
    carillon bench offline --store redis --durability process --registered 100000`
}

// Run executes the command.
func (c *benchOfflineCmd) Run(ctx context.Context, a *app) error {
	if c.Store == "embedded" {
		if c.Redis != "" {
			return usagef("--redis is for --store redis")
		}
		return c.run(ctx, a, c.scenario())
	}
	if c.Redis != "" && len(c.Durability) > 1 {
		return usagef("--redis names one Redis: say with --durability what a message has to survive there")
	}
	return c.run(ctx, a, c.onRedis()...)
}

func (c *benchOfflineCmd) scenario() bench.Scenario {
	return &bench.Offline{
		Users: c.Users, Senders: c.Connections, Batch: c.Batch, Duration: c.Duration, Body: c.BodyBytes,
	}
}

func (c *benchOfflineCmd) onRedis() []bench.Scenario {
	var all []bench.Scenario
	for _, d := range c.Durability {
		all = append(all, &bench.OfflineRedis{
			Redis: c.Redis, Durability: d, Shards: c.Shards, Users: c.Users, PerUser: c.PerUser, Registered: c.Registered, LookedUp: c.Lookup,
			Broadcasts: c.Broadcasts, Senders: c.Connections, Batch: c.Batch, Body: c.BodyBytes,
		})
	}
	return all
}

type benchTasksCmd struct {
	benchFlags
	benchBody
	Users       int           `default:"1000000" help:"Users of the list that the task goes to."`
	Clients     int           `default:"100" help:"Users online, who get messages of their own meanwhile, in turn."`
	Connections int           `default:"4" help:"Requests with those side by side."`
	Rate        int           `default:"200" help:"Such messages a second."`
	Duration    time.Duration `default:"5s" help:"How long they are sent without the task, before it."`
	Store       string        `default:"embedded" enum:"embedded,redis" help:"Where the server keeps everything: embedded or redis."`
	Redis       string        `placeholder:"ADDRESS" help:"host:port of a Redis that runs on this machine, with nothing in it that matters; without it one is started, which takes redis-server."`
	Durability  string        `default:"process" enum:"process,replicated" help:"On Redis: what an accepted message has to survive: process or replicated."`
	Shards      int           `default:"1024" help:"On Redis: shards of the product."`
}

// Help is shown under --help.
func (benchTasksCmd) Help() string {
	return `Uploads a list of users who are offline, and makes a task that writes each of them a message with the user's name in it. Meanwhile
persistent messages go to single users who are online, and the time until they have them is compared with what it was before.

Examples:

    carillon bench tasks --dir .
    carillon bench tasks --store redis --users 100000`
}

// Run executes the command.
func (c *benchTasksCmd) Run(ctx context.Context, a *app) error {
	if c.Store == "embedded" {
		if c.Redis != "" {
			return usagef("--redis is for --store redis")
		}
		return c.run(ctx, a, c.scenario())
	}
	return c.run(ctx, a, &bench.TasksRedis{Tasks: *c.scenario().(*bench.Tasks), Redis: c.Redis, Durability: c.Durability, Shards: c.Shards})
}

func (c *benchTasksCmd) scenario() bench.Scenario {
	return &bench.Tasks{
		Users: c.Users, Clients: c.Clients, Senders: c.Connections, Rate: c.Rate, Body: c.BodyBytes, Duration: c.Duration,
	}
}

type benchLimitsCmd struct {
	benchFlags
	benchBody
	Clients     int           `default:"100" help:"Users online who keep to the limits, and get the messages in turn."`
	Connections int           `default:"4" help:"Requests side by side."`
	Rate        int           `default:"400" help:"Messages a second."`
	Refusals    int           `default:"10" help:"Refusals a second that the server answers, in all and of an address; 0: all of them."`
	Turns       int           `default:"3" help:"How often each attack comes, in turns with the same without it."`
	Duration    time.Duration `default:"3s" help:"How long a turn is."`
}

// Help is shown under --help.
func (benchLimitsCmd) Help() string {
	return `Sends messages to users online at an even rate, while others go ten times past one limit after the other: frames a second,
size of a frame, readers that do not read, polls without pause, connects of one address and of many. Shows how long a
message and a ping of those who keep to the limits take, without each attack, with it, and with the same on another
server like it, in one run: what that does to them is the machine's, the rest is the server's.

Example:

    carillon bench limits --turns 5`
}

// Run executes the command.
func (c *benchLimitsCmd) Run(ctx context.Context, a *app) error { return c.run(ctx, a, c.scenario()) }

func (c *benchLimitsCmd) scenario() bench.Scenario {
	return &bench.Limits{
		Clients: c.Clients, Senders: c.Connections, Rate: c.Rate, Refusals: c.Refusals, Turns: c.Turns, Duration: c.Duration,
		Body: c.BodyBytes,
	}
}

type benchAllCmd struct {
	benchFlags
	Clients  int           `placeholder:"N" help:"Sessions at most, in every scenario."`
	Duration time.Duration `placeholder:"TIME" help:"Time of each measurement that is bounded by time, instead of its default."`
}

// Help is shown under --help.
func (benchAllCmd) Help() string {
	return `Runs every scenario with its defaults, each with a server of its own, one after the other. That takes some minutes.

Example:

    carillon bench all --runs 3 --json`
}

// Run executes the command.
func (c *benchAllCmd) Run(ctx context.Context, a *app) error {
	scenarios, err := c.scenarios()
	if err != nil {
		return err
	}
	return c.run(ctx, a, scenarios...)
}

// scenarios returns all scenarios with the defaults of their commands, as far as nothing else was asked for.
func (c *benchAllCmd) scenarios() ([]bench.Scenario, error) {
	if c.Clients < 0 || c.Duration < 0 {
		return nil, usagef("--clients and --duration are above zero")
	}
	var all benchCmd
	for _, command := range []any{&all.Idle, &all.Connect, &all.Broadcast, &all.Sustain, &all.Unicast, &all.Offline, &all.Tasks, &all.Limits} {
		if err := kong.ApplyDefaults(command); err != nil {
			return nil, err
		}
	}
	if c.Clients > 0 {
		for _, n := range []*int{
			&all.Idle.Clients, &all.Connect.Clients, &all.Connect.Count, &all.Broadcast.Clients, &all.Sustain.Clients, &all.Unicast.Clients,
			&all.Limits.Clients, &all.Tasks.Clients,
		} {
			*n = min(*n, c.Clients)
		}
		all.Idle.Low = min(all.Idle.Low, (c.Clients+3)/4)
	}
	if c.Duration > 0 {
		for _, d := range []*time.Duration{&all.Idle.Window, &all.Sustain.Duration, &all.Unicast.Duration, &all.Offline.Duration, &all.Tasks.Duration,
			&all.Limits.Duration} {
			*d = c.Duration
		}
	}
	return []bench.Scenario{
		all.Idle.scenario(), all.Connect.scenario(), all.Broadcast.scenario(), all.Sustain.scenario(), all.Unicast.scenario(),
		all.Offline.scenario(), all.Tasks.scenario(), all.Limits.scenario(),
	}, nil
}

// benchClientsCmd is a process full of clients, which the bench starts for itself.
type benchClientsCmd struct{}

// Help is shown under --help.
func (benchClientsCmd) Help() string {
	return `Holds clients for "carillon bench", which starts it and tells it on standard input what to do.

Example:

    carillon bench-clients`
}

// Run executes the command.
func (benchClientsCmd) Run(a *app) error { return swarm.Serve(a.stdin, a.stdout) }

// benchBareCmd is a server that does nothing with who connects to it, which the bench starts for itself.
type benchBareCmd struct {
	Kind string `arg:"" enum:"kernel,library" help:"What it is made of: ${enum}."`
}

// Help is shown under --help.
func (benchBareCmd) Help() string {
	return `Takes WebSockets, says welcome and nothing else, for "carillon bench connect", which starts it and ends it by its standard input.

Example:

    carillon bench-bare library`
}

// Run executes the command.
func (c *benchBareCmd) Run(a *app) error { return bare.Serve(c.Kind, a.stdin, a.stdout) }
