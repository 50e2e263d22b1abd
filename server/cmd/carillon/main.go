// Command carillon is the push gateway and everything around it on the command line: the server, the tools of an
// operator, and a terminal client. It holds subcommands, flags, signals and exit codes; what it does lies in other
// packages.
//
// Exit codes: 0 all is well, 1 it failed, 2 the command line is wrong.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() { // ends with the process
		<-ctx.Done()
		stop() // a second signal ends the process at once
	}()
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, environ: os.Environ()}
	a.asks, a.draws = isTerminal(os.Stdin) && isTerminal(os.Stderr), isTerminal(os.Stdout)
	os.Exit(a.run(ctx, os.Args[1:]))
}
