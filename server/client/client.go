package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"carillon/server/clock"
	"carillon/server/push"
	"carillon/server/wire"
)

// Config is what a client is made of. URLs, Tokens, Storage and Callbacks.Message are required; the zero value of each
// other field means the default beside it.
type Config struct {
	// URLs are the addresses of the gateway (ws:, wss:, http: or https:, with their path). A failed attempt goes on to
	// the next one.
	URLs    []string
	Tokens  TokenSource
	Storage Storage
	Callbacks

	Name           string         // software name and version, for the server's statistics; "carillon-go"
	Dialer         Dialer         // a WebSocket dialer
	Clock          clock.Clock    // clock.System
	Random         func() float64 // in [0, 1), for jitter; a random source of the process
	Backoff        Backoff
	AckEvery       time.Duration // at most one acknowledgement in that time; 1 s
	ConnectTimeout time.Duration // from dialing to the welcome; 10 s
	WriteTimeout   time.Duration // of one frame; 10 s
}

// TokenSource returns a device token. renew is false at first; it is true when the server refused the last token, said
// that it ran out, or asks for a new one on the live session. An error fails that attempt to connect, and is tried again
// with backoff; [ErrNoOtherToken] ends [Client.Run].
type TokenSource func(ctx context.Context, renew bool) (string, error)

// ErrNoOtherToken is the error of a [TokenSource] that has only one token.
var ErrNoOtherToken = errors.New("client: the token does not hold any more, and there is no other one")

// StaticToken returns a source of that one token. When the server wants another, the client ends.
func StaticToken(token string) TokenSource {
	return func(_ context.Context, renew bool) (string, error) {
		if renew {
			return "", ErrNoOtherToken
		}
		return token, nil
	}
}

// Callbacks are how a client tells its application. All but Message may be nil. While one runs, no further frame is
// handled; heartbeats go on. What takes long holds up the connection, and in the end the server cuts it as slow.
type Callbacks struct {
	// Message handles a message. Its result decides: after nil the message counts as handled and does not come again; an
	// error ends Run, and the message comes again the next time. A message that is not persistent comes at most once.
	Message func(ctx context.Context, m *wire.Message) error
	// Recall says that the sender took a message back, whether it was handled before or never came. It may be repeated.
	Recall func(ctx context.Context, r *wire.Recall) error
	// Gap says that messages may be missing, and why.
	Gap func(ctx context.Context, g *wire.Gap)
	// Kick says that the server ends the session for good; Run returns right after it.
	Kick func(k *wire.Kick)
	// Tags says which tags this client has joined, in answer to each [Client.ChangeTags] that was granted.
	Tags func(tags []push.Tag)
	// Refused says that the server refused a frame, and why; the session goes on unless its end follows.
	Refused func(e *wire.Error)
	// Status follows the connection.
	Status func(s Status)
	// Repeat says that a message came again and was dropped.
	Repeat func(m *wire.Message)
	// Acked says that this cursor was acknowledged: written to the connection, which is all that a client learns.
	Acked func(cursor string)
}

// Phase is where a client stands.
type Phase uint8

// The phases.
const (
	Connecting Phase = iota // dialing, up to the welcome
	Online                  // welcomed
	CaughtUp                // everything that waited has come
	Waiting                 // the connection ended; the next attempt comes after Delay
)

// String returns the phase's name.
func (p Phase) String() string {
	return [...]string{"connecting", "online", "caught_up", "waiting"}[min(p, Waiting)]
}

// Status tells of a change of phase.
type Status struct {
	Phase   Phase
	URL     string
	Welcome *wire.Welcome // with Online
	Delay   time.Duration // with Waiting
	Err     error         // with Waiting: why the connection ended; a *ClosedError if the server said
}

// Client is one device's client. Make it with [New].
type Client struct {
	// Static after construction.
	cfg      Config
	taggings chan tagging // from ChangeTags to the session that is there; never closed

	// Owned by the goroutine that called Run.
	progress progress
	failed   int               // attempts in a row that did not catch up
	url      int               // index of the address in use
	detour   string            // an address that a goaway named, for one attempt
	renew    bool              // the next token has to be another one
	lastAck  time.Time         // of any connection; zero: none yet
	dirty    bool              // progress is not saved
	last     push.SessionEpoch // the session of the last welcome of this Run; 0: none yet
}

// New returns a client, or what is wrong with its configuration. It does not connect yet.
func New(cfg Config) (*Client, error) {
	switch {
	case len(cfg.URLs) == 0:
		return nil, errors.New("client: no address to connect to")
	case cfg.Tokens == nil || cfg.Storage == nil || cfg.Message == nil:
		return nil, errors.New("client: tokens, storage and a handler of messages are required")
	}
	if cfg.Name == "" {
		cfg.Name = "carillon-go"
	}
	if len(cfg.Name) > wire.MaxClient {
		return nil, fmt.Errorf("client: the name has at most %d bytes", wire.MaxClient)
	}
	if cfg.Dialer == nil {
		cfg.Dialer = &WebSocket{}
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Random == nil {
		cfg.Random = rand.Float64
	}
	cfg.Backoff = cfg.Backoff.withDefaults()
	for _, d := range []struct {
		value *time.Duration
		def   time.Duration
	}{{&cfg.AckEvery, time.Second}, {&cfg.ConnectTimeout, 10 * time.Second}, {&cfg.WriteTimeout, 10 * time.Second}} {
		if *d.value <= 0 {
			*d.value = d.def
		}
	}
	return &Client{cfg: cfg, taggings: make(chan tagging)}, nil
}

// Run holds the session until ctx is done, and then acknowledges what it owes, says goodbye and returns nil. It returns
// an error when coming back by itself would be wrong: a [*ClosedError] whose code's duty is to stay away, the error of a
// handler or of the storage, or [ErrNoOtherToken]. It may be called again after it returned, never twice at once.
func (c *Client) Run(ctx context.Context) error {
	state, err := c.cfg.Storage.Load(ctx)
	if err != nil {
		return err
	}
	c.progress.restore(state)
	c.failed, c.renew, c.detour, c.last = 0, false, "", 0
	c.dirty = false
	for {
		acked := c.lastAck
		err := c.connectOnce(ctx)
		if fatal := fatalOf(err); fatal != nil {
			if ctx.Err() != nil && errors.Is(fatal, ctx.Err()) {
				return nil // the handler was interrupted
			}
			return fatal
		}
		if ctx.Err() != nil {
			return nil
		}
		if c.lastAck != acked {
			c.progress.ackedKnown = false // it may have been lost with the connection
		}
		delay := c.plan(err)
		c.status(Status{Phase: Waiting, URL: c.cfg.URLs[c.url], Delay: delay, Err: err})
		if !c.sleep(ctx, delay) {
			return nil
		}
	}
}

// plan decides, after a connection ended with err, where to go next and when.
func (c *Client) plan(err error) time.Duration {
	c.failed++
	var after time.Duration
	var ended *ClosedError
	var refused *push.Error
	switch {
	case errors.As(err, &ended):
		c.renew = ended.Code.Duty() == wire.RenewToken
		c.detour = ended.Address
		after = ended.After
		if after > 0 && c.failed == 1 {
			return after // the server spread its clients already
		}
	case errors.As(err, &refused):
		after = refused.After
	}
	if ended == nil {
		c.url = (c.url + 1) % len(c.cfg.URLs)
	}
	return max(after, c.cfg.Backoff.delay(c.failed, c.cfg.Random()))
}

// sleep reports false if ctx was done first.
func (c *Client) sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	woken := make(chan struct{})
	t := c.cfg.Clock.AfterFunc(d, func() { close(woken) })
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-woken:
		return true
	}
}

func (c *Client) status(s Status) {
	if c.cfg.Status != nil {
		c.cfg.Status(s)
	}
}
