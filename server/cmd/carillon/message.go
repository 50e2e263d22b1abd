package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// audienceFlags say whom a message is for. What commands have beside them is in the group "to" too.
type audienceFlags struct {
	User       []string `short:"u" sep:"none" xor:"to" help:"To every device of this user; may be repeated."`
	Device     []string `sep:"none" xor:"to" placeholder:"USER/DEVICE" help:"To one device; may be repeated. A slash within the user is written %2F."`
	Tag        []string `sep:"none" xor:"tag" help:"To devices that have this tag; if repeated, all of them."`
	NotTag     []string `sep:"none" help:"With --tag or by itself: not to devices that have this tag; may be repeated."`
	Tags       string   `xor:"to,tag" placeholder:"JSON" help:"To devices by an expression over tags: {\"any\":[\"a\",{\"all\":[\"b\",\"c\"]}],\"not\":[\"d\"]}."`
	Everyone   bool     `xor:"to" help:"To every user of the product."`
	Membership string   `placeholder:"at_send|at_delivery" help:"With tags: when it is settled who has them; without it the size of the audience decides."`
	Platform   []string `sep:"none" help:"Of these, only devices on this platform; may be repeated."`
	Class      []string `sep:"none" help:"Of these, only devices of this class; may be repeated."`
}

// audience is whom a message is for, as requests have it.
type audience struct {
	Users     []string        `json:"users,omitempty"`
	Devices   []deviceRef     `json:"devices,omitempty"`
	Tags      json.RawMessage `json:"tags,omitempty"`
	Everyone  bool            `json:"everyone,omitempty"`
	List      string          `json:"list,omitempty"`
	Platforms []string        `json:"platforms,omitempty"`
	Classes   []string        `json:"classes,omitempty"`

	Membership string `json:"membership,omitempty"`
}

type deviceRef struct {
	User   string `json:"user"`
	Device string `json:"device"`
}

// audience returns what the flags say. list is an uploaded list, empty if the command has none; give names the flags that may say whom it is for.
func (f *audienceFlags) audience(list, give string) (to audience, err error) {
	tags, err := f.tags()
	if err != nil {
		return to, err
	}
	switch named := len(f.User) > 0 || len(f.Device) > 0 || f.Everyone || list != ""; {
	case !named && tags == nil:
		return to, usagef("whom is it for? give %s", give)
	case tags == nil && f.Membership != "":
		return to, usagef("--membership is for tags: give --tag, --not-tag or --tags")
	case named && tags != nil:
		return to, usagef("it is for tags or for others: --tag and --not-tag go without --user, --device and --everyone, and without a list")
	}
	to = audience{
		Users: f.User, Everyone: f.Everyone, Tags: tags, List: list, Platforms: f.Platform, Classes: f.Class, Membership: f.Membership,
	}
	for _, d := range f.Device {
		user, device, ok := strings.Cut(d, "/")
		if !ok || user == "" || device == "" {
			return to, usagef("--device %q: write user/device", d)
		}
		to.Devices = append(to.Devices, deviceRef{strings.ReplaceAll(user, "%2F", "/"), device})
	}
	return to, nil
}

// tags returns the expression over tags that is asked for, nil if none is.
func (f *audienceFlags) tags() (json.RawMessage, error) {
	switch {
	case f.Tags != "" && len(f.NotTag) > 0:
		return nil, usagef("--tags says all; write what --not-tag says as its \"not\"")
	case f.Tags != "" && !json.Valid([]byte(f.Tags)):
		return nil, usagef("--tags is not JSON")
	case f.Tags != "":
		return json.RawMessage(f.Tags), nil
	case len(f.Tag)+len(f.NotTag) == 0:
		return nil, nil
	}
	return json.Marshal(struct {
		All []string `json:"all,omitempty"`
		Not []string `json:"not,omitempty"`
	}{f.Tag, f.NotTag})
}

// messageFlags say what the message is.
type messageFlags struct {
	Body       string `xor:"body" placeholder:"JSON" help:"The message, any JSON value."`
	BodyFile   string `xor:"body" placeholder:"FILE" help:"File with the message, JSON; - is standard input."`
	BodyBase64 string `xor:"body" name:"body-base64" placeholder:"BASE64" help:"The message, any bytes in base64."`
	Binary     bool   `help:"The file holds any bytes, not JSON."`

	TTL         time.Duration `name:"ttl" placeholder:"168h" help:"How long it waits for devices, in whole seconds."`
	CollapseKey string        `placeholder:"KEY" help:"A newer message with this key takes the place of an older one that still waits."`
	Header      []string      `sep:"none" placeholder:"NAME=VALUE" help:"Travels beside the body; may be repeated."`
	Ref         string        `help:"Your own name for the message."`
	OnlineOnly  bool          `help:"Only to who is online now; not stored, at most once."`
}

// newMessage is a message, as requests have it.
type newMessage struct {
	Body        json.RawMessage   `json:"body,omitempty"`
	BodyBase64  *string           `json:"body_base64,omitempty"`
	Persistent  *bool             `json:"persistent,omitempty"`
	TTLSeconds  int64             `json:"ttl_seconds,omitempty"`
	CollapseKey string            `json:"collapse_key,omitempty"`
	Headers     map[string]string `json:"headers,omitempty"`
	Ref         string            `json:"ref,omitempty"`
}

// message returns what the flags say.
func (f *messageFlags) message(a *app) (m newMessage, err error) {
	if err := f.body(a, &m); err != nil {
		return m, err
	}
	if f.TTL%time.Second != 0 || f.TTL < 0 {
		return m, usagef("--ttl is a number of whole seconds, as in 90s or 2h")
	}
	m.TTLSeconds = int64(f.TTL / time.Second)
	m.CollapseKey, m.Ref = f.CollapseKey, f.Ref
	for _, h := range f.Header {
		name, value, ok := strings.Cut(h, "=")
		if !ok || name == "" {
			return m, usagef("--header: write name=value")
		}
		if _, twice := m.Headers[name]; twice {
			return m, usagef("--header: the name %q stands twice", name)
		}
		if m.Headers == nil {
			m.Headers = make(map[string]string)
		}
		m.Headers[name] = value
	}
	if f.OnlineOnly {
		no := false
		m.Persistent = &no
	}
	return m, nil
}

// bodyFileBytes is the most that is read of a body file. The server's own limit is lower.
const bodyFileBytes = 16 << 20

func (f *messageFlags) body(a *app, m *newMessage) error {
	var text []byte
	switch {
	case f.BodyBase64 != "":
		if _, err := base64.StdEncoding.DecodeString(f.BodyBase64); err != nil {
			return usagef("--body-base64 is not standard base64 with padding")
		}
		m.BodyBase64 = &f.BodyBase64
		return nil
	case f.BodyFile != "":
		in := a.stdin
		if f.BodyFile != "-" {
			file, err := os.Open(f.BodyFile)
			if err != nil {
				return err
			}
			defer file.Close()
			in = file
		}
		b, err := io.ReadAll(io.LimitReader(in, bodyFileBytes))
		if err != nil {
			return fmt.Errorf("read the body: %w", err)
		}
		if f.Binary {
			s := base64.StdEncoding.EncodeToString(b)
			m.BodyBase64 = &s
			return nil
		}
		text = b
	case f.Body != "":
		text = []byte(f.Body)
	default:
		return usagef("what is the message? give --body, --body-file or --body-base64")
	}
	if !json.Valid(text) {
		return usagef("the body is not JSON; a plain text is JSON in quotes: --body '\"hello\"'")
	}
	m.Body = text
	return nil
}
