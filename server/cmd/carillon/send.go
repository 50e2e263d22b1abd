package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"carillon/server/push"
)

type sendCmd struct {
	publicFlags
	User       []string `short:"u" sep:"none" xor:"to" help:"To every device of this user; may be repeated."`
	Device     []string `sep:"none" xor:"to" placeholder:"USER/DEVICE" help:"To one device; may be repeated. A slash within the user is written %2F."`
	Tag        []string `sep:"none" xor:"tag" help:"To devices that have this tag; if repeated, all of them."`
	NotTag     []string `sep:"none" help:"With --tag or by itself: not to devices that have this tag; may be repeated."`
	Tags       string   `xor:"to,tag" placeholder:"JSON" help:"To devices by an expression over tags: {\"any\":[\"a\",{\"all\":[\"b\",\"c\"]}],\"not\":[\"d\"]}."`
	Everyone   bool     `xor:"to" help:"To every user of the product."`
	Membership string   `placeholder:"at_send|at_delivery" help:"With tags: when it is settled who has them; without it the size of the audience decides."`
	Platform   []string `sep:"none" help:"Of these, only devices on this platform; may be repeated."`
	Class      []string `sep:"none" help:"Of these, only devices of this class; may be repeated."`

	Body       string `xor:"body" placeholder:"JSON" help:"The message, any JSON value."`
	BodyFile   string `xor:"body" placeholder:"FILE" help:"File with the message, JSON; - is standard input."`
	BodyBase64 string `xor:"body" name:"body-base64" placeholder:"BASE64" help:"The message, any bytes in base64."`
	Binary     bool   `help:"The file holds any bytes, not JSON."`

	TTL            time.Duration `name:"ttl" placeholder:"168h" help:"How long it waits for devices, in whole seconds."`
	CollapseKey    string        `placeholder:"KEY" help:"A newer message with this key takes the place of an older one that still waits."`
	Header         []string      `sep:"none" placeholder:"NAME=VALUE" help:"Travels beside the body; may be repeated."`
	Ref            string        `help:"Your own name for the message."`
	IdempotencyKey string        `placeholder:"KEY" help:"Name of this request: repeating it stores the message once. One is made up if you give none."`
	OnlineOnly     bool          `help:"Only to who is online now; not stored, at most once."`
	ValidateOnly   bool          `help:"Judge the request and send nothing."`
	JSON           bool          `name:"json" help:"Print the answer as it came."`
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
	To struct {
		Users     []string        `json:"users,omitempty"`
		Devices   []deviceRef     `json:"devices,omitempty"`
		Tags      json.RawMessage `json:"tags,omitempty"`
		Everyone  bool            `json:"everyone,omitempty"`
		Platforms []string        `json:"platforms,omitempty"`
		Classes   []string        `json:"classes,omitempty"`

		Membership string `json:"membership,omitempty"`
	} `json:"to"`
	Message struct {
		Body        json.RawMessage   `json:"body,omitempty"`
		BodyBase64  *string           `json:"body_base64,omitempty"`
		Persistent  *bool             `json:"persistent,omitempty"`
		TTLSeconds  int64             `json:"ttl_seconds,omitempty"`
		CollapseKey string            `json:"collapse_key,omitempty"`
		Headers     map[string]string `json:"headers,omitempty"`
		Ref         string            `json:"ref,omitempty"`
	} `json:"message"`
	ValidateOnly bool `json:"validate_only,omitempty"`
}

type deviceRef struct {
	User   string `json:"user"`
	Device string `json:"device"`
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
	tags, err := c.tags()
	if err != nil {
		return nil, err
	}
	switch named := len(c.User) > 0 || len(c.Device) > 0 || c.Everyone; {
	case !named && tags == nil:
		return nil, usagef("whom is it for? give --user, --device, --tag, --tags or --everyone")
	case tags == nil && c.Membership != "":
		return nil, usagef("--membership is for tags: give --tag, --not-tag or --tags")
	case named && tags != nil:
		return nil, usagef("it is for tags or for others: --tag and --not-tag go without --user, --device and --everyone")
	}
	r := &publishRequest{ValidateOnly: c.ValidateOnly}
	r.To.Users, r.To.Everyone, r.To.Tags = c.User, c.Everyone, tags
	r.To.Platforms, r.To.Classes, r.To.Membership = c.Platform, c.Class, c.Membership
	for _, d := range c.Device {
		user, device, ok := strings.Cut(d, "/")
		if !ok || user == "" || device == "" {
			return nil, usagef("--device %q: write user/device", d)
		}
		r.To.Devices = append(r.To.Devices, deviceRef{strings.ReplaceAll(user, "%2F", "/"), device})
	}
	m := &r.Message
	if err := c.body(a, r); err != nil {
		return nil, err
	}
	if c.TTL%time.Second != 0 || c.TTL < 0 {
		return nil, usagef("--ttl is a number of whole seconds, as in 90s or 2h")
	}
	m.TTLSeconds = int64(c.TTL / time.Second)
	m.CollapseKey, m.Ref = c.CollapseKey, c.Ref
	for _, h := range c.Header {
		name, value, ok := strings.Cut(h, "=")
		if !ok || name == "" {
			return nil, usagef("--header: write name=value")
		}
		if _, twice := m.Headers[name]; twice {
			return nil, usagef("--header: the name %q stands twice", name)
		}
		if m.Headers == nil {
			m.Headers = make(map[string]string)
		}
		m.Headers[name] = value
	}
	if c.OnlineOnly {
		no := false
		m.Persistent = &no
	}
	return r, nil
}

// tags returns the expression over tags that is asked for, nil if none is.
func (c *sendCmd) tags() (json.RawMessage, error) {
	switch {
	case c.Tags != "" && len(c.NotTag) > 0:
		return nil, usagef("--tags says all; write what --not-tag says as its \"not\"")
	case c.Tags != "" && !json.Valid([]byte(c.Tags)):
		return nil, usagef("--tags is not JSON")
	case c.Tags != "":
		return json.RawMessage(c.Tags), nil
	case len(c.Tag)+len(c.NotTag) == 0:
		return nil, nil
	}
	return json.Marshal(struct {
		All []string `json:"all,omitempty"`
		Not []string `json:"not,omitempty"`
	}{c.Tag, c.NotTag})
}

// bodyFileBytes is the most that is read of a body file. The server's own limit is lower.
const bodyFileBytes = 16 << 20

func (c *sendCmd) body(a *app, r *publishRequest) error {
	m := &r.Message
	var text []byte
	switch {
	case c.BodyBase64 != "":
		if _, err := base64.StdEncoding.DecodeString(c.BodyBase64); err != nil {
			return usagef("--body-base64 is not standard base64 with padding")
		}
		m.BodyBase64 = &c.BodyBase64
		return nil
	case c.BodyFile != "":
		in := a.stdin
		if c.BodyFile != "-" {
			f, err := os.Open(c.BodyFile)
			if err != nil {
				return err
			}
			defer f.Close()
			in = f
		}
		b, err := io.ReadAll(io.LimitReader(in, bodyFileBytes))
		if err != nil {
			return fmt.Errorf("read the body: %w", err)
		}
		if c.Binary {
			s := base64.StdEncoding.EncodeToString(b)
			m.BodyBase64 = &s
			return nil
		}
		text = b
	case c.Body != "":
		text = []byte(c.Body)
	default:
		return usagef("what is the message? give --body, --body-file or --body-base64")
	}
	if !json.Valid(text) {
		return usagef("the body is not JSON; a plain text is JSON in quotes: --body '\"hello\"'")
	}
	m.Body = text
	return nil
}
