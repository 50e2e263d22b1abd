package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"carillon/server/push"
)

type sendCmd struct {
	publicFlags
	audienceFlags
	messageFlags
	IdempotencyKey string `placeholder:"KEY" help:"Name of this request: repeating it stores the message once. One is made up if you give none."`
	ValidateOnly   bool   `help:"Judge the request and send nothing."`
	JSON           bool   `name:"json" help:"Print the answer as it came."`
}

// Help is shown under --help.
func (sendCmd) Help() string {
	return `When the command succeeds, the message is stored (unless --online-only). When it says that the outcome is
unknown, repeat it with the idempotency key that it names.

Example:

    carillon send --user alice --body '{"text":"Your parcel is on its way."}'
    carillon send --tag news.sport --not-tag trial --platform android --body '{"text":"Kick-off in ten minutes."}'`
}

// publishRequest is the body of POST /v1/messages.
type publishRequest struct {
	To           audience   `json:"to"`
	Message      newMessage `json:"message"`
	ValidateOnly bool       `json:"validate_only,omitempty"`
}

// published is what the command reads of the answer.
type published struct {
	ID      push.MsgID `json:"id,string"`
	Created string     `json:"created"`
	Expires string     `json:"expires"`
	Targets struct {
		Users    int  `json:"users"`
		Devices  int  `json:"devices"`
		Everyone bool `json:"everyone"`

		Tags      json.RawMessage `json:"tags"`
		Platforms []string        `json:"platforms"`
		Classes   []string        `json:"classes"`
	} `json:"targets"`
	Estimate *estimate `json:"estimate"`
}

// estimate is how large an audience by tags is.
type estimate struct {
	Users, Devices int
	Exact          bool
}

// String returns what is added to the sentence that says that a request is right.
func (e *estimate) String() string {
	switch {
	case e == nil:
		return ""
	case e.Exact:
		return fmt.Sprintf("; it would be for %s of %s, by the tags that are kept", plural(e.Devices, "device"), plural(e.Users, "user"))
	}
	return fmt.Sprintf("; it would be for about %s of %s, by the tags that are kept", plural(e.Devices, "device"), plural(e.Users, "user"))
}

// Run executes the command.
func (c *sendCmd) Run(ctx context.Context, a *app) error {
	req, err := c.request(a)
	if err != nil {
		return err
	}
	t, err := c.target(a)
	if err != nil {
		return err
	}
	header := make(http.Header)
	key := c.IdempotencyKey
	if key == "" && !c.ValidateOnly && !c.OnlineOnly {
		key = "cli-" + rand.Text()
	}
	if key != "" {
		header.Set("Idempotency-Key", key)
	}
	b, err := t.call(ctx, http.MethodPost, "/v1/messages", req, header)
	if err != nil {
		if key != "" && unknown(err) {
			err = fmt.Errorf("%w\nwhether the message was stored is unknown; repeat the command with --idempotency-key %s",
				err, key)
		}
		return err
	}
	return c.report(a, b)
}

func (c *sendCmd) report(a *app, answer []byte) error {
	if c.JSON {
		a.print("%s", strings.TrimSpace(string(answer)))
		return nil
	}
	var p published
	if c.ValidateOnly {
		_ = json.Unmarshal(answer, &p) // an answer without an estimate says the same
		a.print("the request is right; nothing was sent%s", p.Estimate)
		return nil
	}
	if err := json.Unmarshal(answer, &p); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	to := "everyone"
	switch {
	case p.Targets.Devices > 0:
		to = plural(p.Targets.Devices, "device")
	case p.Targets.Users > 0:
		to = plural(p.Targets.Users, "user")
	case p.Targets.Tags != nil:
		to = "who has the tags"
	}
	for _, only := range [][]string{p.Targets.Platforms, p.Targets.Classes} {
		if len(only) > 0 {
			to += " on " + strings.Join(only, ", ")
		}
	}
	if c.OnlineOnly {
		a.print("sent message %s to %s, as far as online now", p.ID, to)
		return nil
	}
	a.print("stored message %s for %s until %s", p.ID, to, printable(p.Expires))
	return nil
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (c *sendCmd) request(a *app) (*publishRequest, error) {
	to, err := c.audience("", "--user, --device, --tag, --tags or --everyone")
	if err != nil {
		return nil, err
	}
	m, err := c.message(a)
	return &publishRequest{To: to, Message: m, ValidateOnly: c.ValidateOnly}, err
}
