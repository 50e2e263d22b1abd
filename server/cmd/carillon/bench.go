package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"time"

	"carillon/server/bench"
	"carillon/server/bench/swarm"
	"carillon/server/config"
)

type benchCmd struct {
	Idle      benchIdleCmd      `cmd:"" help:"Memory and heartbeats of sessions that do nothing."`
	Broadcast benchBroadcastCmd `cmd:"" help:"One message to everyone, again and again."`
}

// benchFlags are what all scenarios share.
type benchFlags struct {
	Data       string        `placeholder:"DIR" help:"Measure the running development server of this data directory, instead of starting one. It gets users whose names begin with bench-."`
	ServerFlag []string      `sep:"none" placeholder:"FLAG" help:"Flag for the server that is started, with its value, as in --server-flag=--limits-queue-messages=512; may be repeated."`
	Dir        string        `placeholder:"DIR" help:"Where the temporary data of that server lies; with a disk below it, flushes cost what they cost."`
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
		Executable: exe, Env: withoutOurs(a.environ), Clients: []string{"bench-clients"}, Data: f.Data,
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

type benchIdleCmd struct {
	benchFlags
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
measured, beside that of the empty server.

Example:

    carillon bench idle --low 5000 --clients 18000 --runs 3`
}

// Run executes the command.
func (c *benchIdleCmd) Run(ctx context.Context, a *app) error { return c.run(ctx, a, c.scenario()) }

func (c *benchIdleCmd) scenario() bench.Scenario {
	return &bench.Idle{Low: c.Low, High: c.Clients, Window: c.Window, Heartbeat: c.Heartbeat, Settle: c.Settle}
}

type benchBroadcastCmd struct {
	benchFlags
	Clients   int `default:"10000" help:"Sessions that get each message."`
	Rounds    int `default:"30" help:"Messages; each is sent when all sessions have the one before."`
	BodyBytes int `default:"128" help:"Size of a message's body."`
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
	return c.run(ctx, a, &bench.Broadcast{Clients: c.Clients, Rounds: c.Rounds, Body: c.BodyBytes})
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
