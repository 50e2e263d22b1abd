package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
)

type tagsCmd struct {
	Show   tagsShowCmd   `cmd:"" help:"Show the tags of a user or a device."`
	Set    tagsSetCmd    `cmd:"" help:"Set the tags of a user or a device."`
	Change tagsChangeCmd `cmd:"" help:"Add and remove tags of a user or a device."`
	Load   tagsLoadCmd   `cmd:"" help:"Change the tags of many users and devices from a file."`
}

// tagsFlags say whose tags are meant.
type tagsFlags struct {
	publicFlags
	User   string `arg:"" help:"The user."`
	Device string `placeholder:"DEVICE" help:"This device of the user, in place of the user."`
}

func (f *tagsFlags) path() string {
	path := "/v1/users/" + url.PathEscape(f.User)
	if f.Device != "" {
		path += "/devices/" + url.PathEscape(f.Device)
	}
	return path + "/tags"
}

// ask makes a request about the tags and prints those that there are then, one a line.
func (f *tagsFlags) ask(ctx context.Context, a *app, method string, body any) error {
	t, err := f.target(a)
	if err != nil {
		return err
	}
	b, err := t.call(ctx, method, f.path(), body, nil)
	if err != nil {
		return err
	}
	var of struct{ Tags, Joined []string }
	if err := json.Unmarshal(b, &of); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	for _, tag := range of.Tags {
		a.print("%s", printable(tag))
	}
	for _, tag := range of.Joined {
		a.print("%s (joined)", printable(tag))
	}
	return nil
}

type tagsShowCmd struct{ tagsFlags }

// Help is shown under --help.
func (tagsShowCmd) Help() string {
	return `Prints the tags that were set, one a line, and for a device behind them those that it joined by itself. The API key needs the
scope users:read.

Example:

    carillon tags show alice --device phone`
}

// Run executes the command.
func (c *tagsShowCmd) Run(ctx context.Context, a *app) error {
	return c.ask(ctx, a, http.MethodGet, nil)
}

type tagsSetCmd struct {
	tagsFlags
	Tag []string `arg:"" optional:"" help:"The tags; none clears them."`
}

// Help is shown under --help.
func (tagsSetCmd) Help() string {
	return `Sets the tags, in place of those that were set before, and prints them. The API key needs the scope users:write.

Example:

    carillon tags set alice vip beta`
}

// Run executes the command.
func (c *tagsSetCmd) Run(ctx context.Context, a *app) error {
	return c.ask(ctx, a, http.MethodPut, map[string][]string{"tags": append([]string{}, c.Tag...)})
}

type tagsChangeCmd struct {
	tagsFlags
	Add    []string `sep:"none" placeholder:"TAG" help:"Add this tag; may be repeated."`
	Remove []string `sep:"none" placeholder:"TAG" help:"Remove this tag; may be repeated."`
}

// Help is shown under --help.
func (tagsChangeCmd) Help() string {
	return `Adds and removes tags, leaves the others as they are, and prints all that are set then. The API key needs the scope users:write.

Example:

    carillon tags change alice --add vip --remove trial`
}

// Run executes the command.
func (c *tagsChangeCmd) Run(ctx context.Context, a *app) error {
	if len(c.Add)+len(c.Remove) == 0 {
		return usagef("nothing is changed: give --add or --remove")
	}
	body := make(map[string][]string)
	if len(c.Add) > 0 {
		body["add"] = c.Add
	}
	if len(c.Remove) > 0 {
		body["remove"] = c.Remove
	}
	return c.ask(ctx, a, http.MethodPatch, body)
}

type tagsLoadCmd struct {
	publicFlags
	File string `arg:"" help:"The file; - is standard input."`
}

// Help is shown under --help.
func (tagsLoadCmd) Help() string {
	return `Each line of the file is a change in JSON, with "user" and perhaps "device", and either "set", or "add" and "remove":

    {"user": "alice", "add": ["vip"], "remove": ["trial"]}
    {"user": "bob", "device": "phone", "set": ["kiosk"]}

Lines are sent in their order, many at a time. One that is refused is named, and does not keep the others from being made: mend it
and run the file again, which does no harm. The API key needs the scope users:write.

Example:

    carillon tags load changes.jsonl`
}

// The bounds of a request: what the server takes of changes, and less than it takes of bytes.
const (
	loadItems     = 500
	loadBytes     = 4 << 20
	loadLineBytes = 256 << 10
)

// Run executes the command.
func (c *tagsLoadCmd) Run(ctx context.Context, a *app) error {
	t, err := c.target(a)
	if err != nil {
		return err
	}
	in := a.stdin
	if c.File != "-" {
		f, err := os.Open(c.File)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	l := tagLoad{a: a, t: t}
	if err := l.run(ctx, in); err != nil {
		return fmt.Errorf("%w\n%s changed before that", err, plural(l.changed, "line"))
	}
	if l.refused > 0 {
		return fmt.Errorf("%s refused, %d changed", plural(l.refused, "line"), l.changed)
	}
	a.print("changed the tags of %s", plural(l.changed, "line"))
	return nil
}

// tagLoad is a file on its way to the server.
type tagLoad struct {
	a *app
	t target

	changes          []json.RawMessage // of the next request
	lines            []int             // their numbers
	bytes            int
	changed, refused int
}

func (l *tagLoad) run(ctx context.Context, in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, loadLineBytes)
	n := 0
	for lines.Scan() {
		n++
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		if !json.Valid(line) || line[0] != '{' {
			return fmt.Errorf("line %d holds no JSON object", n)
		}
		if len(l.changes) == loadItems || l.bytes+len(line) > loadBytes {
			if err := l.send(ctx); err != nil {
				return err
			}
		}
		l.changes, l.lines = append(l.changes, bytes.Clone(line)), append(l.lines, n)
		l.bytes += len(line)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("line %d: %w", n+1, err)
	}
	return l.send(ctx)
}

// send sends what was read and names the lines that were refused.
func (l *tagLoad) send(ctx context.Context) error {
	if len(l.changes) == 0 {
		return nil
	}
	b, err := l.t.call(ctx, http.MethodPost, "/v1/tags/batch", map[string]any{"changes": l.changes}, nil)
	if err != nil {
		return err
	}
	var answer struct {
		Results []struct {
			Status  int
			Problem *restError
		}
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if len(answer.Results) != len(l.changes) {
		return fmt.Errorf("the server answered %d of %d lines", len(answer.Results), len(l.changes))
	}
	for i, r := range answer.Results {
		if r.Problem == nil {
			l.changed++
			continue
		}
		l.refused++
		l.a.say("line %d: %s", l.lines[i], strings.ReplaceAll(printable(r.Problem.Error()), "\n", "\n  "))
	}
	l.changes, l.lines, l.bytes = l.changes[:0], l.lines[:0], 0
	return nil
}
