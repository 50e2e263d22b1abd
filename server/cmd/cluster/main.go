// Command cluster runs a whole cluster on this machine until it is interrupted: Redis, rooms, centers, and a balancer before them.
// `make cluster` is the way to call it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"carillon/server/fleet"
	"carillon/server/redistest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// startPatience is how long all parts together may take to be ready.
const startPatience = 2 * time.Minute

// options are what the command line says.
type options struct {
	binary, listen, tcp, form, durability, data string
	rooms, centers, replicas                    int
	respawn                                     time.Duration
}

func parse() (o options, err error) {
	f := flag.NewFlagSet("cluster", flag.ExitOnError)
	f.StringVar(&o.binary, "binary", "./bin/carillon", "the gateway's `FILE`")
	f.StringVar(&o.listen, "listen", "127.0.0.1:8080", "`ADDRESS` of the balancer")
	f.StringVar(&o.tcp, "tcp", "127.0.0.1:8082", "`ADDRESS` of the balancer for devices over raw TCP")
	f.StringVar(&o.form, "redis", "standalone", "`FORM` of Redis: standalone, replicated, sentinel or cluster")
	f.StringVar(&o.durability, "durability", "process", "what an accepted message `SURVIVES`: process, disk or replicated")
	f.IntVar(&o.replicas, "replicas", 1, "with replicated: `HOW MANY` replicas have to have a message")
	f.StringVar(&o.data, "data", "", "`DIRECTORY` for dev.json; without it a new one, which goes with the cluster")
	f.IntVar(&o.rooms, "rooms", 3, "`HOW MANY` nodes hold clients")
	f.IntVar(&o.centers, "centers", 2, "`HOW MANY` nodes answer product servers")
	f.DurationVar(&o.respawn, "respawn", 5*time.Second, "`HOW LONG` a node that died stays away")
	f.Usage = func() {
		fmt.Fprintf(f.Output(), "Runs Redis, rooms, centers and a balancer on this machine until it is interrupted. It needs redis-server.\n\n"+
			"Example:\n\n    make cluster ARGS='-redis sentinel -durability replicated'\n\n")
		f.PrintDefaults()
	}
	if err := f.Parse(os.Args[1:]); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("%q is no flag", f.Arg(0))
	}
	if o.rooms < 1 || o.centers < 1 {
		return o, errors.New("a cluster has at least one room and one center")
	}
	return o, nil
}

func run(ctx context.Context) (err error) {
	o, err := parse()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", o.listen)
	if err != nil {
		return fmt.Errorf("%w; name another address with -listen", err)
	}
	defer l.Close()
	raw, err := net.Listen("tcp", o.tcp)
	if err != nil {
		return fmt.Errorf("%w; name another address with -tcp", err)
	}
	defer raw.Close()
	if o.data == "" {
		if o.data, err = os.MkdirTemp("", "carillon-cluster-"); err != nil {
			return err
		}
		defer os.RemoveAll(o.data)
	}
	starting, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	say("starting Redis (%s)", o.form)
	var settings []redistest.Option
	if o.durability == "disk" {
		settings = append(settings, redistest.AppendFsync("always"))
	}
	r, err := redistest.Start(starting, redistest.Form(o.form), settings...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	say("starting %d rooms and %d centers", o.rooms, o.centers)
	f, err := fleet.Start(starting, fleet.Config{
		Binary: o.binary, Dir: o.data, Redis: r.Access(), Rooms: o.rooms, Centers: o.centers,
		Durability: o.durability, Replicas: o.replicas,
	})
	if err != nil {
		return err
	}
	defer func() {
		say("stopping; clients are sent away first")
		err = errors.Join(err, f.Close())
	}()
	if _, err := f.SetUp(starting, "http://"+l.Addr().String(), "tcp://"+raw.Addr().String()); err != nil {
		return err
	}
	explain(f, r, o, l.Addr().String(), raw.Addr().String())
	return serve(ctx, l, raw, f, o.respawn)
}

// serve runs the balancer and brings nodes back that died, until ctx ends.
func serve(ctx context.Context, l, raw net.Listener, f *fleet.Fleet, after time.Duration) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel()
	for _, n := range f.Nodes() {
		parts.Go(func() { respawn(ctx, n, after) })
	}
	b := fleet.NewBalancer(f)
	carried := make(chan error, 1)
	go func() {
		defer cancel() // one without the other would look as if all were well
		carried <- b.ServeTCP(ctx, raw)
	}()
	defer func() { cancel(); err = errors.Join(err, <-carried) }()
	return b.Serve(ctx, l, func(n *fleet.Node, ready bool) {
		state := "does not say that it is ready; it gets nothing more"
		if ready {
			state = "is ready"
		}
		say("%s (process %d) %s", n.Name(), n.PID(), state)
	})
}

// respawn starts a node again each time that it dies.
func respawn(ctx context.Context, n *fleet.Node, after time.Duration) {
	for {
		select {
		case <-n.Exited():
		case <-ctx.Done():
			return
		}
		say("%s is gone; it comes back in %v", n.Name(), after)
		for !n.Running() {
			select {
			case <-time.After(after):
			case <-ctx.Done():
				return
			}
			if err := n.Start(ctx); err != nil && ctx.Err() == nil {
				say("%s could not be started again: %v", n.Name(), err)
			}
		}
	}
}

func say(format string, args ...any) {
	fmt.Printf("%s  %s\n", time.Now().Format("15:04:05"), fmt.Sprintf(format, args...))
}

// explain prints what there is and what to try.
func explain(f *fleet.Fleet, r *redistest.Redis, o options, at, tcp string) {
	var b strings.Builder
	fmt.Fprintf(&b, "\n  %-12s %8s  %-22s %s\n", "node", "process", "public", "administration")
	for _, n := range f.Nodes() {
		fmt.Fprintf(&b, "  %-12s %8d  %-22s %s\n", n.Name(), n.PID(), n.Public(), n.Admin())
	}
	for _, n := range r.Nodes() {
		fmt.Fprintf(&b, "  %-12s %8d  %s\n", n.Name(), n.PID(), n.Addr())
	}
	room := f.Of(fleet.Room)[0]
	fmt.Fprintf(&b, `
The balancer is http://%[1]s, and tcp://%[7]s for raw TCP. In another terminal:

  %[2]s listen --data %[3]s --user alice --device phone
  %[2]s listen --data %[3]s --user alice --device watch --transport tcp
  %[2]s send --data %[3]s --user alice --body '{"text":"hello"}'

Then end a node and watch both:

  kill -9 %[4]d        # %[5]s; it comes back in %[6]v
  kill -TERM %[4]d     # the same in peace: its clients are sent to the others
  kill -STOP %[4]d     # it is silent; kill -CONT %[4]d wakes it

Product servers speak to http://%[1]s/v1 with the key in %[3]s/dev.json. Ctrl-C stops everything.

`, at, o.binary, f.Path(), room.PID(), room.Name(), o.respawn, tcp)
	fmt.Print(b.String())
}
