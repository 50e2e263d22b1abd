package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"carillon/server/client"
	"carillon/server/push"
	"carillon/server/wire"
)

// printer shows what a device is sent.
type printer struct {
	a      *app
	json   bool
	left   int    // messages until enough is called; 0: never
	enough func() // ends the client
}

func (p *printer) callbacks() client.Callbacks {
	return client.Callbacks{
		Message: p.message,
		Recall: func(_ context.Context, r *wire.Recall) error {
			return p.line(r, fmt.Sprintf("the sender took message %s back", r.ID))
		},
		Gap: func(_ context.Context, g *wire.Gap) {
			p.noteError(p.line(g, fmt.Sprintf("messages may be missing in the %s slot: %s", g.Slot, g.Reason)))
		},
		Kick: func(k *wire.Kick) {
			if k.Detail != "" {
				p.a.say("the server says: %s", printable(k.Detail))
			}
		},
		Status: p.status,
	}
}

// message prints a message. One that cannot be printed was not handled.
func (p *printer) message(_ context.Context, m *wire.Message) error {
	if err := p.line(m, messageText(m)); err != nil {
		return err
	}
	if p.left > 0 {
		if p.left--; p.left == 0 {
			p.enough()
		}
	}
	return nil
}

func (p *printer) line(f wire.Frame, text string) error {
	if p.json {
		text = string(wire.Append(nil, wire.JSON, f))
	}
	_, err := fmt.Fprintln(p.a.stdout, printable(text))
	return err
}

// messageText returns a message in one line: id, then its attributes, then its body.
func messageText(m *wire.Message) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", m.Created.Time().Local().Format(time.TimeOnly), m.ID)
	if m.Ref != "" {
		fmt.Fprintf(&b, " ref=%q", m.Ref)
	}
	for _, h := range m.Headers {
		fmt.Fprintf(&b, " %q=%q", h.Name, h.Value)
	}
	b.WriteByte(' ')
	if m.Kind == push.BodyBinary {
		b.WriteString("base64 ")
		b.WriteString(base64.StdEncoding.EncodeToString(m.Body))
	} else {
		b.Write(m.Body)
	}
	return b.String()
}

func (p *printer) status(s client.Status) {
	switch s.Phase {
	case client.Online:
		p.a.say("connected to %s (own messages: %s, everyone's: %s)", s.URL, s.Welcome.Own, s.Welcome.Common)
	case client.Waiting:
		p.a.say("%s; next attempt in %v", printable(reason(s.Err)), s.Delay.Round(time.Millisecond))
	}
}

func reason(err error) string {
	if err == nil {
		return "the connection ended"
	}
	var refused *push.Error
	if errors.As(err, &refused) && refused.Detail != "" {
		return refused.Detail
	}
	return err.Error()
}

func (p *printer) noteError(err error) {
	if err != nil {
		p.a.say("carillon: %v", err)
	}
}
