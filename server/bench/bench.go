package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"carillon/server/bench/sample"
	"carillon/server/bench/swarm"
)

// Config is what a measurement is given. Everything but Data, ServerFlags and Dir is needed.
type Config struct {
	Executable string   // the carillon binary: server and client processes are started from it
	Env        []string // of those processes, without the variables of Carillon itself
	Clients    []string // arguments with which Executable is a client process
	Bare       []string // those with which, and with a kind, it is a server of package bare

	Data        string   // data directory of a running development server to measure; empty: start one
	ServerFlags []string // for the server that is started
	Dir         string   // where its temporary data directory is made; empty: the system's place

	Workers  int           // client processes
	Runs     int           // how often each scenario is measured
	Timeout  time.Duration // of one run of one scenario
	Version  string        // of this binary
	Progress func(string)  // called with what is being done, often
}

// Limits of what may be asked for.
const (
	MaxPerWorker = 18_000 // clients of one process: it may open 20 000 files in many places
	maxWorkers   = 64
	maxRuns      = 100

	// spareFiles are those that a process opens besides its clients' sockets: the store, listeners, epoll, requests.
	spareFiles = 500
)

// check says what is wrong, in the words of the command line.
func (c Config) check() error {
	switch {
	case c.Workers < 1 || c.Workers > maxWorkers:
		return usagef("--workers lies between 1 and %d", maxWorkers)
	case c.Runs < 1 || c.Runs > maxRuns:
		return usagef("--runs lies between 1 and %d", maxRuns)
	case c.Timeout <= 0:
		return usagef("--timeout is above zero")
	case c.Data != "" && len(c.ServerFlags) > 0:
		return usagef("--server-flag is for a server that the bench starts; with --data it runs already")
	}
	for _, f := range c.ServerFlags {
		if !strings.HasPrefix(f, "--") {
			return usagef("--server-flag %q: write it with its value, as in --server-flag=--heartbeat-interval=30s", f)
		}
	}
	return nil
}

// UsageError is a request that cannot be carried out as it stands.
type UsageError struct{ error }

func usagef(format string, args ...any) error { return UsageError{fmt.Errorf(format, args...)} }

// Scenario is one thing to measure.
type Scenario interface {
	// Name returns its name, as figures.go and the command line have it.
	Name() string
	// settings returns what it was asked to do, by name, for whoever reads the figures.
	settings() map[string]any
	// check says what is wrong with that, in the words of the command line.
	check() error
	// clients returns how many clients it connects at most.
	clients() int
	// transport returns by what its clients connect.
	transport() string
	// heartbeat returns the interval that the server should name.
	heartbeat() time.Duration
	// run measures once.
	run(ctx context.Context, w *world) error
}

// limited is a scenario that needs a server with certain flags.
type limited interface {
	serverFlags() [][2]string
}

// gives reports whether the server was given a flag.
func (c Config) gives(flag string) bool {
	return slices.ContainsFunc(c.ServerFlags, func(f string) bool { return f == flag || strings.HasPrefix(f, flag+"=") })
}

// checkFlags says if a scenario cannot have the flags that it needs.
func (c Config) checkFlags(s Scenario) error {
	l, ok := s.(limited)
	if !ok {
		if _, ok := s.(onRedis); ok && c.Data != "" {
			return usagef("%s needs a server on Redis, and --data names one with a store of its own", s.Name())
		}
		return nil
	}
	if c.Data != "" {
		return usagef("%s needs a server with limits of its own, and --data names one that runs", s.Name())
	}
	for _, f := range l.serverFlags() {
		if c.gives(f[0]) {
			return usagef("--server-flag %s: %s sets it by itself, for its figures are made for it", f[0], s.Name())
		}
	}
	return nil
}

// Run measures scenarios, each with a server and clients of its own. If one fails, what was measured before is returned beside
// the error.
func Run(ctx context.Context, cfg Config, scenarios ...Scenario) (*Report, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	for _, s := range scenarios {
		if err := s.check(); err != nil {
			return nil, err
		}
		if !slices.Contains(swarm.Transports, s.transport()) {
			return nil, usagef("--transport is one of %s", strings.Join(swarm.Transports, ", "))
		}
		if err := cfg.checkFlags(s); err != nil {
			return nil, err
		}
		if n := s.clients(); n > cfg.Workers*MaxPerWorker {
			return nil, usagef("%d clients need --workers %d: a process holds %d", n, (n+MaxPerWorker-1)/MaxPerWorker, MaxPerWorker)
		} else if n > 0 && n < cfg.Workers {
			return nil, usagef("%d clients are fewer than --workers %d", n, cfg.Workers)
		}
	}
	machine, err := sample.This()
	if err != nil {
		return nil, err
	}
	if _, err := sample.RaiseOpenFiles(); err != nil { // the server we start inherits it
		return nil, err
	}
	rep := &Report{Version: cfg.Version, Go: goVersion, Machine: machine}
	for _, s := range scenarios {
		res, err := measure(ctx, cfg, s)
		if res != nil {
			rep.Results = append(rep.Results, *res)
		}
		if err != nil {
			return rep, fmt.Errorf("bench: %s: %w", s.Name(), err)
		}
	}
	return rep, nil
}

// measure runs one scenario as often as it was asked for.
func measure(ctx context.Context, cfg Config, s Scenario) (*Result, error) {
	res := &Result{Scenario: s.Name(), Settings: s.settings(), transport: s.transport()}
	if s.clients() > 0 {
		res.Settings["workers"], res.Settings["transport"] = cfg.Workers, s.transport()
	}
	for i := range cfg.Runs {
		name := s.Name()
		if cfg.Runs > 1 {
			name = fmt.Sprintf("%s, run %d of %d", name, i+1, cfg.Runs)
		}
		w := &world{cfg: cfg, name: name, values: make(map[string]float64)}
		err := w.run(ctx, s)
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			err = fmt.Errorf("it took longer than --timeout %v: %w", cfg.Timeout, err)
		}
		if err != nil {
			if i == 0 {
				return nil, err
			}
			res.summarize()
			return res, err
		}
		res.add(w)
	}
	res.summarize()
	return res, nil
}

// world is what one run of a scenario works with.
type world struct {
	cfg    Config
	name   string
	server *server
	redis  *store // nil: the server has its own
	fleet  *swarm.Fleet
	pub    *publisher
	phase  uint32

	values   map[string]float64
	unmarked []string // figures whose marks were set for other settings than these
	notes    []string
	facts    ServerFacts

	// What the fleet tells; set by scenarios before they begin a phase, nil between phases.
	news news
}

func (w *world) run(ctx context.Context, s Scenario) (err error) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.Timeout)
	defer cancel()
	w.progress("starting the server")
	if err := w.start(ctx, s); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	if err := w.server.canHold(s.clients()); err != nil {
		return err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	if c := w.server.child; c != nil {
		var watching sync.WaitGroup
		watching.Go(func() {
			select {
			case <-c.Exited():
				fail(errServerGone) // stop tells why
			case <-ctx.Done():
			}
		})
		defer watching.Wait()
		defer fail(nil)
	}
	if w.facts, err = w.server.facts(ctx); err != nil {
		return err
	}
	if w.redis != nil {
		if err := w.redis.describe(ctx, &w.facts); err != nil {
			return err
		}
	}
	if w.facts.Filesystem == "tmpfs" {
		w.note("the data lies in memory (tmpfs): flushes cost nothing there; name another place with --dir")
	}
	w.pub = newPublisher(w.server)
	defer w.pub.close()
	if s.clients() > 0 {
		if err := w.startFleet(ctx, s, fail); err != nil {
			return err
		}
		defer func() {
			w.progress("stopping")
			w.fleet.Stop()
		}()
	}
	if err = s.run(ctx, w); err != nil && context.Cause(ctx) != nil {
		return context.Cause(ctx) // and not what followed from it
	}
	return err
}

var errServerGone = errors.New("the server is gone")

// start starts the server of a scenario, or takes the one that runs.
func (w *world) start(ctx context.Context, s Scenario) (err error) {
	if r, ok := s.(onRedis); ok {
		return w.startOnRedis(ctx, s, r)
	}
	var flags [][2]string
	if l, ok := s.(limited); ok {
		flags = l.serverFlags()
	}
	if w.cfg.Data != "" {
		w.server, err = attach(w.cfg.Data)
	} else {
		w.server, err = startServer(ctx, w.cfg, s.heartbeat(), flags)
	}
	return err
}

// stop ends what start started, the server before what it keeps everything in.
func (w *world) stop() error {
	err := w.server.end()
	if w.redis != nil {
		err = errors.Join(err, w.redis.stop())
	}
	return errors.Join(err, w.server.remove())
}

// portsPerAddress is how many connections to one place begin at one address. The system's range of ports has some 28 000, and it
// looks at every second one first: where those run out, it goes through thousands for each connect, and slow clients are measured.
const portsPerAddress = 8_000

func (w *world) startFleet(ctx context.Context, s Scenario, lost func(error)) (err error) {
	var sources []string
	if s.clients() > portsPerAddress {
		for i := range w.cfg.Workers {
			sources = append(sources, fmt.Sprintf("127.0.0.%d", 2+i))
		}
	}
	f := w.server.file
	users := "bench-" + strings.ToLower(rand.Text()[:8]) + "-"
	if w.facts.Running {
		w.note("users of this run, who stay on the server, are %s0 to %d", users, s.clients()-1)
	}
	address := w.server.public
	if s.transport() == "tcp" {
		if address = w.server.tcp; address == "" {
			return usagef("the server has no listener for raw TCP")
		}
	}
	acks := s.Name() == "unicast"
	w.fleet, err = swarm.Start(ctx, swarm.FleetConfig{
		Processes: w.cfg.Workers, Command: append([]string{w.cfg.Executable}, w.cfg.Clients...), Env: w.cfg.Env,
		Setup: swarm.Setup{
			Transport: s.transport(), Address: address, Product: f.Product, KeyID: f.KeyID, Key: f.Key, Users: users, Acks: acks,
			HoldSeconds: holdSeconds(s.heartbeat()),
		},
		Sources:    sources,
		Everywhere: w.news.everywhere, Arrived: w.news.arrived,
		Connected: func(open int) { w.progress("%d clients connected", open) }, Lost: lost,
	})
	return err
}

// holdSeconds is how long polls ask to be held where clients of other transports show that they live at an interval: as long, up
// to what the server allows.
func holdSeconds(heartbeat time.Duration) int {
	return int(min(max(heartbeat, time.Second), 55*time.Second) / time.Second)
}

func (w *world) progress(format string, args ...any) {
	w.cfg.Progress(w.name + ": " + fmt.Sprintf(format, args...))
}

func (w *world) set(name string, v float64) { w.values[name] = v }

func (w *world) note(format string, args ...any) {
	w.notes = append(w.notes, fmt.Sprintf(format, args...))
}
