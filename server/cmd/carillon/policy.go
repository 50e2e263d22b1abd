package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
)

// policyFlags choose a session policy.
type policyFlags struct {
	Policy   string `placeholder:"NAME|FILE" help:"How many devices of an account may be online at once: one-session, one-per-platform, one-per-class, desktop-free-one-mobile, at-most-N (as in at-most-3), none, or a JSON file (- for standard input). \"carillon product policy\" says what the names stand for."`
	OnExcess string `placeholder:"WHAT" help:"With a named policy: kick_oldest (the new device comes in, which is the default) or reject_new (it is turned away)."`
}

// policyBytes bounds a policy that is read from a file. The largest there is takes a fraction of it.
const policyBytes = 16 << 10

// namedPolicy is a session policy that has a name, as the REST interface takes it.
type namedPolicy struct {
	name, meaning string
	policy        string // %s stands for what becomes of an excess
}

// named are the policies that products usually have. Each is a text to begin one's own with.
var named = []namedPolicy{
	{"one-session", "one device of an account at a time",
		`{"rules": [{"scope": "account", "max": 1, "on_excess": %q}]}`},
	{"one-per-platform", "one device on each platform: a phone with Android and one with iOS, a browser, ...",
		`{"rules": [{"scope": "platform", "max": 1, "on_excess": %q}]}`},
	{"one-per-class", "one mobile, one computer, one of whatever else",
		`{"classes": {"android": "mobile", "ios": "mobile", "tablet": "mobile", "desktop": "computer", "web": "computer"},
		"default_class": "rest", "rules": [{"scope": "class", "max": 1, "on_excess": %q}]}`},
	{"desktop-free-one-mobile", "one phone or tablet, and any number of the others",
		`{"classes": {"android": "mobile", "ios": "mobile", "tablet": "mobile"},
		"rules": [{"scope": "class", "of": "mobile", "max": 1, "on_excess": %q}]}`},
}

const (
	atMost        = "at-most-"
	atMostPolicy  = `{"rules": [{"scope": "account", "max": %d, "on_excess": %q}]}`
	atMostMeaning = "so many devices of an account, of whatever kind; N is 1 to 1000"
	noPolicy      = "none"
)

// request returns what a request holds for the policy; ok is false if none was chosen.
func (f *policyFlags) request(a *app) (policy json.RawMessage, ok bool, err error) {
	switch f.OnExcess {
	case "", "kick_oldest", "reject_new":
	default:
		return nil, false, usagef("--on-excess is kick_oldest or reject_new")
	}
	policy, isNamed := policyOf(f.Policy, first(f.OnExcess, "kick_oldest"))
	switch {
	case f.OnExcess != "" && (!isNamed || f.Policy == noPolicy):
		return nil, false, usagef("--on-excess belongs to a --policy that has a name; in a file each rule says it")
	case f.Policy == "":
		return nil, false, nil
	case isNamed:
		return policy, true, nil
	}
	policy, err = readPolicy(a, f.Policy)
	return policy, err == nil, err
}

// policyOf returns the policy of that name; ok is false if no policy has it.
func policyOf(name, excess string) (policy json.RawMessage, ok bool) {
	if name == noPolicy {
		return json.RawMessage("null"), true
	}
	for _, p := range named {
		if p.name == name {
			return json.RawMessage(fmt.Sprintf(p.policy, excess)), true
		}
	}
	number, ok := strings.CutPrefix(name, atMost)
	n, err := strconv.ParseUint(number, 10, 16)
	if !ok || err != nil {
		return nil, false
	}
	return json.RawMessage(fmt.Sprintf(atMostPolicy, n, excess)), true
}

// readPolicy reads a policy that somebody wrote. The server judges what it says.
func readPolicy(a *app, path string) (json.RawMessage, error) {
	in := a.stdin
	if path != "-" {
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, usagef("--policy: there is neither a policy nor a file of the name %q", path)
		}
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, policyBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read the policy: %w", err)
	}
	if len(b) > policyBytes {
		return nil, usagef("--policy %s: a policy has at most %d bytes", path, policyBytes)
	}
	if b = bytes.TrimSpace(b); !json.Valid(b) || b[0] != '{' {
		return nil, usagef("--policy %s: the file holds no JSON object", path)
	}
	return b, nil
}

type productPolicyCmd struct {
	Name     string `arg:"" optional:"" help:"The policy; left out, all of them are listed."`
	OnExcess string `placeholder:"WHAT" enum:"kick_oldest,reject_new" default:"kick_oldest" help:"kick_oldest or reject_new."`
}

// Help is shown under --help.
func (productPolicyCmd) Help() string {
	return `Lists the session policies that have a name, or prints one as the REST interface takes it: a text to change and to give
to "carillon product update --policy FILE".

Example:

    carillon product policy one-per-class --on-excess reject_new`
}

// Run executes the command.
func (c *productPolicyCmd) Run(_ context.Context, a *app) error {
	if c.Name == "" {
		w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "NAME\tMEANING")
		for _, p := range named {
			fmt.Fprintf(w, "%s\t%s\n", p.name, p.meaning)
		}
		fmt.Fprintf(w, "%sN\t%s\n%s\t%s\n", atMost, atMostMeaning, noPolicy, "any number of devices")
		return w.Flush()
	}
	policy, ok := policyOf(c.Name, c.OnExcess)
	if !ok {
		return usagef("there is no policy of the name %q; \"carillon product policy\" lists them", c.Name)
	}
	var shown bytes.Buffer
	if err := json.Indent(&shown, policy, "", "  "); err != nil {
		return err
	}
	a.print("%s", shown.Bytes())
	return nil
}
