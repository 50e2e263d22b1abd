// Command torture torments a gateway for a while and says whether it kept its promise. `make torture` is the way to call it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"carillon/server/torture"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	var cfg torture.Config
	var form, durability, ledger, sum, planted string
	f := flag.NewFlagSet("torture", flag.ExitOnError)
	f.StringVar(&cfg.Binary, "binary", "./bin/carillon", "the gateway's `FILE`")
	f.StringVar(&form, "form", "standalone", "what it stands `ON`: embedded, standalone, sentinel or cluster")
	f.StringVar(&durability, "durability", "", "what an accepted message `SURVIVES`: process or replicated; without it the most that the form has")
	f.DurationVar(&cfg.Length, "length", time.Minute, "`HOW LONG` things are broken")
	f.Uint64Var(&cfg.Seed, "seed", 0, "`NUMBER` that the faults are drawn from; 0: another one each time")
	f.IntVar(&cfg.Rate, "rate", 0, "`HOW MANY` messages a second publishers offer in all, most of them in batches; 0: as many as one by one come through")
	f.IntVar(&cfg.Senders, "senders", 0, "`HOW MANY` publishers send one by one; 6")
	f.IntVar(&cfg.Users, "users", 0, "`HOW MANY` users there are, each with two devices; 8, or more by the rate")
	f.StringVar(&cfg.Dir, "dir", "", "`DIRECTORY` for histories, which stays; without it one that stays only if the promise was broken")
	f.StringVar(&ledger, "ledger", "", "`FILE` with a table that gets a line about the run")
	f.StringVar(&sum, "sum", "", "`FILE` that is such a ledger: what its lines come to is written into it, and nothing is run")
	f.StringVar(&planted, "planted", "", "`BUG` that nodes built with -tags planted have, and the run has to find")
	f.Usage = func() {
		fmt.Fprintf(f.Output(), "Runs the gateway on a real store, breaks both, and judges what publishers and devices saw. It needs redis-server.\n\n"+
			"Example:\n\n    make torture TORTURE=10m FORM=sentinel SEED=7\n\n")
		f.PrintDefaults()
	}
	if err := f.Parse(os.Args[1:]); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("%q is no flag", f.Arg(0))
	}
	if sum != "" {
		return addUp(sum)
	}
	cfg.Form, cfg.Durability = torture.Form(form), torture.Durability(durability)
	if cfg.Seed == 0 {
		cfg.Seed = rand.Uint64N(1_000_000) + 1
	}
	if planted != "" {
		cfg.Env = []string{"CARILLON_PLANTED=" + planted}
	}
	cfg.Say = func(s string) { fmt.Printf("%s  %s\n", time.Now().Format("15:04:05.0"), s) }
	temporary := cfg.Dir == ""
	cfg.Keep = !temporary
	if temporary {
		if cfg.Dir, err = os.MkdirTemp("", "carillon-torture-"); err != nil {
			return err
		}
	} else if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return err
	}
	rep, err := torture.Run(ctx, cfg)
	broken := rep != nil && len(rep.Violations) > 0
	if temporary && !broken {
		defer func() { err = errors.Join(err, os.RemoveAll(cfg.Dir)) }()
	}
	if rep != nil {
		fmt.Printf("\n%s", rep)
	}
	if err != nil {
		return err
	}
	if ledger != "" {
		if err := enter(ledger, rep); err != nil {
			return err
		}
	}
	if broken {
		return fmt.Errorf("the promise was broken; the histories are in %s, and the same faults come with -seed %d", cfg.Dir, cfg.Seed)
	}
	return nil
}

// addUp writes what a ledger comes to into it.
func addUp(ledger string) error {
	text, err := os.ReadFile(ledger)
	if err != nil {
		return err
	}
	summed, err := torture.Sum(string(text))
	if err != nil {
		return err
	}
	return os.WriteFile(ledger, []byte(summed), 0o644)
}

// enter adds a line about a run to a ledger, whose table is at its end.
func enter(ledger string, rep *torture.Report) (err error) {
	f, err := os.OpenFile(ledger, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	commit := "?"
	if out, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output(); err == nil {
		commit = strings.TrimSpace(string(out))
	}
	_, err = f.WriteString(rep.Row(time.Now(), commit))
	return err
}
