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
	User     []string `short:"u" sep:"none" xor:"to" help:"To every device of this user; may be repeated."`
	Device   []string `sep:"none" xor:"to" placeholder:"USER/DEVICE" help:"To one device; may be repeated. A slash within the user is written %2F."`
	Everyone bool     `xor:"to" help:"To every user of the product."`

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

    carillon send --user alice --body '{"text":"Your parcel is on its way."}'`
}

// publishRequest is the body of POST /v1/messages.
type publishRequest struct {
	To struct {
		Users    []string    `json:"users,omitempty"`
		Devices  []deviceRef `json:"devices,omitempty"`
		Everyone bool        `json:"everyone,omitempty"`
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
	} `json:"targets"`
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
	if c.ValidateOnly {
		a.print("the request is right; nothing was sent")
		return nil
	}
	var p published
	if err := json.Unmarshal(answer, &p); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	to := "everyone"
	switch {
	case p.Targets.Devices > 0:
		to = plural(p.Targets.Devices, "device")
	case p.Targets.Users > 0:
		to = plural(p.Targets.Users, "user")
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
	if len(c.User) == 0 && len(c.Device) == 0 && !c.Everyone {
		return nil, usagef("whom is it for? give --user, --device or --everyone")
	}
	r := &publishRequest{ValidateOnly: c.ValidateOnly}
	r.To.Users, r.To.Everyone = c.User, c.Everyone
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
