package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"carillon/server/failpoint"
	"carillon/server/planted"
)

// The exit codes, as the help states them.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// app is what a command may touch of the world.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	environ        []string // NAME=value

	asks  bool                                             // somebody reads stderr and writes stdin, and can be asked
	draws bool                                             // stdout is a terminal, whose lines can be drawn again
	sleep func(ctx context.Context, d time.Duration) error // in tests, in place of waiting
}

// wait waits, and returns the context's error if it ends before that.
func (a *app) wait(ctx context.Context, d time.Duration) error {
	if a.sleep != nil {
		return a.sleep(ctx, d)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// defaultWidth is how many columns a terminal has that does not say.
const defaultWidth = 80

// width returns how many columns lines may have.
func (a *app) width() int {
	if n, err := strconv.Atoi(a.env("COLUMNS")); err == nil && n >= 40 {
		return n
	}
	return defaultWidth
}

// env returns a variable's value, empty if it is not set.
func (a *app) env(name string) string {
	value := ""
	for _, e := range a.environ {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			value = v
		}
	}
	return value
}

// say writes a line for people; what programs read goes to stdout.
func (a *app) say(format string, args ...any) { fmt.Fprintf(a.stderr, format+"\n", args...) }

func (a *app) print(format string, args ...any) { fmt.Fprintf(a.stdout, format+"\n", args...) }

// The variables that commands read beside the server's configuration.
const (
	envConfig     = "CARILLON_CONFIG"
	envURL        = "CARILLON_URL"
	envAdminURL   = "CARILLON_ADMIN_URL"
	envAPIKey     = "CARILLON_API_KEY"
	envAPIKeyFile = "CARILLON_API_KEY_FILE"
	envProduct    = "CARILLON_PRODUCT"
	envToken      = "CARILLON_TOKEN"
	envTokenFile  = "CARILLON_TOKEN_FILE"
)

// ownEnv lists them, for the configuration to pass over, and in builds for tests the variables of packages failpoint and planted.
func ownEnv() []string {
	own := []string{envConfig, envURL, envAdminURL, envAPIKey, envAPIKeyFile, envProduct, envToken, envTokenFile}
	if failpoint.Enabled {
		own = append(own, "CARILLON_FAILPOINT")
	}
	if planted.Enabled {
		own = append(own, "CARILLON_PLANTED")
	}
	return own
}

// cli is the command line.
type cli struct {
	Serve      serveCmd      `cmd:"" help:"Run the gateway."`
	Config     configCmd     `cmd:"" help:"Look at the server's configuration."`
	Version    versionCmd    `cmd:"" help:"Say which version this is."`
	Token      tokenCmd      `cmd:"" help:"Make a device token for development."`
	Send       sendCmd       `cmd:"" help:"Send a message."`
	Listen     listenCmd     `cmd:"" help:"Be a device: print messages as they come."`
	Kick       kickCmd       `cmd:"" help:"End sessions of a user."`
	Revocation revocationCmd `cmd:"" help:"Refuse the tokens of a user."`
	Tags       tagsCmd       `cmd:"" help:"Manage the tags of users and devices."`
	Tasks      tasksCmd      `cmd:"" help:"Push to many, watch it, steer it."`
	Lists      listsCmd      `cmd:"" help:"Manage uploaded lists of users."`
	Product    productCmd    `cmd:"" help:"Manage products."`
	Key        keyCmd        `cmd:"" help:"Manage the keys of a product."`
	Backup     backupCmd     `cmd:"" help:"Write a backup of the embedded store."`
	Drain      drainCmd      `cmd:"" help:"Have a node send its clients elsewhere."`
	Bench      benchCmd      `cmd:"" help:"Measure what the gateway costs on this machine."`

	BenchClients benchClientsCmd `cmd:"" hidden:"" help:"Hold clients for bench."`
	BenchBare    benchBareCmd    `cmd:"" hidden:"" help:"Be a server that does nothing, for bench."`
}

const description = `Carillon carries messages from your servers to the devices of your users.

Start with "carillon serve --dev": the other commands then find addresses and keys in ./data/dev.json.

Exit codes: 0 all is well, 1 it failed, 2 the command line is wrong.`

// run executes one command line and returns the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	if len(args) == 0 {
		args = []string{"--help"}
	}
	exited := false
	parser, err := newParser(a, func(int) { exited = true })
	if err != nil {
		a.say("carillon: %v", err)
		return exitFailed
	}
	command, err := parser.Parse(args)
	if exited { // the help was shown
		return exitOK
	}
	if err != nil {
		a.say("carillon: %v", err)
		a.say("Run \"carillon%s --help\" for help.", commandPath(parser, args))
		return exitUsage
	}
	command.BindTo(ctx, (*context.Context)(nil))
	err = command.Run(a)
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		a.say("carillon: %v", err)
		return exitUsage
	}
	a.say("carillon: %v", err)
	return exitFailed
}

func newParser(a *app, exit func(int)) (*kong.Kong, error) {
	c := &cli{}
	c.Serve.configFlags = newConfigFlags()
	c.Config.Check.configFlags = newConfigFlags()
	c.Config.Print.configFlags = newConfigFlags()
	return kong.New(c,
		kong.Name("carillon"), kong.Description(description), kong.Writers(a.stdout, a.stderr), kong.Exit(exit),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
	)
}

// commandPath returns the commands among the arguments, each behind a blank, for "Run ... --help".
func commandPath(parser *kong.Kong, args []string) string {
	path, at := "", parser.Model.Node
	for _, arg := range args {
		i := slices.IndexFunc(at.Children, func(n *kong.Node) bool { return n.Name == arg })
		if i < 0 {
			break
		}
		at = at.Children[i]
		path += " " + arg
	}
	return path
}

// usageError is an error in how a command was called.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }
