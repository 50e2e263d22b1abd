package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// sessionFlags say whose sessions or tokens are meant.
type sessionFlags struct {
	User    string `arg:"" help:"The user."`
	Device  string `placeholder:"DEVICE" help:"Only those of this device."`
	TokenID string `name:"token-id" placeholder:"ID" help:"Only those of the token with this id (jti)."`
}

// path returns the path of something about the user.
func (f *sessionFlags) path(what string) string {
	return "/v1/users/" + url.PathEscape(f.User) + "/" + what
}

// body returns what a request says beside the user.
func (f *sessionFlags) body(reason string) map[string]string {
	body := make(map[string]string)
	for name, value := range map[string]string{"device": f.Device, "token_id": f.TokenID, "reason": reason} {
		if value != "" {
			body[name] = value
		}
	}
	return body
}

// oneTarget judges the flags of what is about a device or a token, and not about both.
func (f *sessionFlags) oneTarget() error {
	if f.Device != "" && f.TokenID != "" {
		return usagef("--device or --token-id, not both")
	}
	return nil
}

// ended is what kick and revoke answer.
type ended struct {
	Status   string `json:"status"`
	Sessions int    `json:"sessions"`
	Certain  string `json:"certain"`
	Ends     string `json:"ends"`
}

// String says how many sessions are over, and whether that is certain.
func (e *ended) String() string {
	s := "ended " + plural(e.Sessions, "session")
	if e.Status != "confirmed" {
		s += ", and those of rooms that could not be told at " + printable(e.Certain) + " at the latest"
	}
	return s
}

// end asks for something that ends sessions.
func (f *sessionFlags) end(ctx context.Context, t target, what, reason string) (*ended, error) {
	b, err := t.call(ctx, http.MethodPost, f.path(what), f.body(reason), nil)
	if err != nil {
		return nil, err
	}
	var e ended
	if err := json.Unmarshal(b, &e); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return &e, nil
}

type kickCmd struct {
	publicFlags
	sessionFlags
	Reason string `placeholder:"TEXT" help:"Why, for people: the device is told."`
}

// Help is shown under --help.
func (kickCmd) Help() string {
	return `Ends the sessions that the user has now. Their clients stay away by themselves, and may come back when the application
asks for it: to keep them out, see "carillon revocation create". The API key needs the scope sessions:write.

Example:

    carillon kick alice --device phone --reason "You signed in on another phone."`
}

// Run executes the command.
func (c *kickCmd) Run(ctx context.Context, a *app) error {
	t, err := c.target(a)
	if err != nil {
		return err
	}
	e, err := c.end(ctx, t, "kick", c.Reason)
	if err != nil {
		return err
	}
	a.print("%s", e)
	return nil
}

type revocationCmd struct {
	Create revocationCreateCmd `cmd:"" help:"Refuse tokens, and end their sessions."`
	List   revocationListCmd   `cmd:"" help:"List what is refused."`
	Lift   revocationLiftCmd   `cmd:"" help:"Take tokens again."`
}

type revocationCreateCmd struct {
	publicFlags
	sessionFlags
	Reason string `placeholder:"TEXT" help:"Why, for people: the device is told, and lists show it."`
}

// Help is shown under --help.
func (revocationCreateCmd) Help() string {
	return `Refuses the tokens of the user that were issued up to now, or those of one device, or one token by its id, and ends the
sessions concerned. A token that is issued later is good. The API key needs the scope sessions:write.

Example:

    carillon revocation create alice --device phone --reason "The phone was reported as stolen."`
}

// Run executes the command.
func (c *revocationCreateCmd) Run(ctx context.Context, a *app) error {
	if err := c.oneTarget(); err != nil {
		return err
	}
	t, err := c.target(a)
	if err != nil {
		return err
	}
	e, err := c.end(ctx, t, "revoke", c.Reason)
	if err != nil {
		return err
	}
	a.print("revoked until %s; %s", printable(e.Ends), e)
	return nil
}

type revocationListCmd struct {
	publicFlags
	JSON bool `name:"json" help:"Print each revocation as it came, one a line."`
}

// Help is shown under --help.
func (revocationListCmd) Help() string {
	return `Lists the revocations of the product that hold now. One without a device and a token id is of the whole user. The API key
needs the scope sessions:write.

Example:

    carillon revocation list`
}

// Run executes the command.
func (c *revocationListCmd) Run(ctx context.Context, a *app) error {
	t, err := c.target(a)
	if err != nil {
		return err
	}
	return listed(ctx, a, t, "/v1/revocations", "revocations", c.JSON, []string{"user", "device", "token_id", "issued_until", "ends", "reason"})
}

type revocationLiftCmd struct {
	publicFlags
	sessionFlags
}

// Help is shown under --help.
func (revocationLiftCmd) Help() string {
	return `Lifts a revocation before it ends, named as it was created: a device stays refused while its user is. The API key needs
the scope sessions:write.

Example:

    carillon revocation lift alice --device phone`
}

// Run executes the command.
func (c *revocationLiftCmd) Run(ctx context.Context, a *app) error {
	if err := c.oneTarget(); err != nil {
		return err
	}
	t, err := c.target(a)
	if err != nil {
		return err
	}
	query := make(url.Values)
	for name, value := range c.body("") {
		query.Set(name, value)
	}
	at := strings.TrimSuffix(c.path("revoke")+"?"+query.Encode(), "?")
	if _, err := t.call(ctx, http.MethodDelete, at, nil, nil); err != nil {
		return err
	}
	a.print("lifted")
	return nil
}
