// Command pushes torments pushes to very many users and says whether each of them got the message once. `make pushes` is the way to call it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"

	"carillon/server/torture/pushes"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "pushes:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	var cfg pushes.Config
	form := ""
	f := flag.NewFlagSet("pushes", flag.ExitOnError)
	f.StringVar(&cfg.Binary, "binary", "./bin/carillon", "the gateway's `FILE`")
	f.StringVar(&form, "form", "standalone", "what it stands `ON`: embedded, or standalone (Redis)")
	f.IntVar(&cfg.Users, "users", 1_000_000, "`HOW MANY` users each task goes to")
	f.IntVar(&cfg.Kills, "kills", 30, "`HOW OFTEN` whoever runs the first task is killed")
	f.Uint64Var(&cfg.Seed, "seed", 0, "`NUMBER` that the times are drawn from; 0: another one each time")
	dir := f.String("dir", "", "`DIRECTORY` for what the nodes store; without it a temporary one")
	f.Usage = func() {
		fmt.Fprint(f.Output(), "Pushes to very many users while whoever does so is killed, frozen, paused and stopped, and reads all slots then.\n\n"+
			"Example:\n\n    make pushes USERS=1000000 KILLS=30 FORM=embedded\n\n")
		f.PrintDefaults()
	}
	if err := f.Parse(os.Args[1:]); err != nil {
		return err
	}
	if f.NArg() > 0 || form != "embedded" && form != "standalone" || cfg.Users < 1 || cfg.Users > 1_000_000 || cfg.Kills < 0 {
		f.Usage()
		return errors.New("the command line is wrong")
	}
	cfg.Embedded = form == "embedded"
	if cfg.Seed == 0 {
		cfg.Seed = rand.Uint64N(1_000_000) + 1
	}
	cfg.Say = func(s string) { fmt.Printf("%s  %s\n", time.Now().Format("15:04:05.0"), s) }
	if cfg.Dir = *dir; cfg.Dir == "" {
		if cfg.Dir, err = os.MkdirTemp("", "carillon-pushes-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(cfg.Dir)) }()
	}
	fmt.Printf("seed %d\n", cfg.Seed)
	rep, err := pushes.Run(ctx, cfg)
	if rep != nil {
		fmt.Printf("\n%s", rep)
	}
	if err == nil && len(rep.Violations) > 0 {
		err = fmt.Errorf("the promise was broken; the same times come with -seed %d", cfg.Seed)
	}
	return err
}
