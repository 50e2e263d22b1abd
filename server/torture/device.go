package torture

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"carillon/server/client"
	"carillon/server/fleet"
	"carillon/server/history"
	"carillon/server/push"
	"carillon/server/wire"
)

// The transports, in the names of addresses.
var transports = []string{"ws", "sse", "poll", "tcp"}

// device is a client whose storage outlives its connections. It keeps its transport over one life of the client, and then takes another.
type device struct {
	// Static after construction.
	w      *world
	name   history.Device
	direct bool // it goes to rooms by itself and not through the balancer
	caught chan struct{}

	// Owned by run.
	rng   *rand.Rand
	store client.Memory
	broke time.Duration    // when its connection did, 0: it stands, or was ended by the device
	over  int              // an index of transports
	acks  [2]push.Position // by slot, what is on record as acknowledged

	target  atomic.Pointer[fleet.Node] // of this attempt to connect, if it goes by itself
	session atomic.Uint64              // the epoch of the last welcome
	seen    atomic.Int64               // persistent messages
	gaps    atomic.Int64
	is      atomic.Bool // it was caught up once
	last    atomic.Pointer[client.Status]
	end     atomic.Pointer[context.CancelFunc] // of this life of its client
	lines   lines
}

// minLife and maxLife are how long a device keeps a client before it begins anew elsewhere.
const minLife, maxLife = 5 * time.Second, 40 * time.Second

// writeTimeout is how long an acknowledgement to a frozen room may hold up a client. What it had received before waits behind it.
const writeTimeout = 2 * time.Second

// run holds the device online until ctx is done. While restless is not, it goes away now and then and comes back over another transport.
func (d *device) run(ctx, restless context.Context) {
	defer d.lines.end()
	for ctx.Err() == nil {
		life, end := context.WithCancel(ctx)
		d.end.Store(&end)
		t := time.AfterFunc(between(d.rng, minLife, maxLife), func() {
			if restless.Err() == nil && d.is.Load() {
				end()
			}
		})
		d.broke = 0
		err := d.connect(life)
		t.Stop()
		end()
		var closed *client.ClosedError
		switch {
		case errors.As(err, &closed): // kicked: its application asks for it again
		case err != nil:
			d.w.breach("client", "%v ended: %v", d.name, err)
			return
		}
		if ctx.Err() == nil {
			sleep(ctx, between(d.rng, 0, 2*time.Second))
			d.over = (d.over + 1 + d.rng.IntN(len(transports)-1)) % len(transports)
		}
	}
}

// connect runs a client for one life.
func (d *device) connect(ctx context.Context) error {
	t := &http.Transport{DialContext: d.dial, MaxIdleConnsPerHost: 4}
	defer t.CloseIdleConnections()
	h := &http.Client{Transport: t}
	cfg := client.Config{
		URLs: []string{"http://" + d.w.balancer + "/connect"}, Tokens: d.w.token(d.name), Storage: &d.store,
		Backoff:  client.Backoff{Base: 50 * time.Millisecond, Max: time.Second},
		AckEvery: 100 * time.Millisecond, ConnectTimeout: 3 * time.Second, WriteTimeout: writeTimeout,
		Callbacks: client.Callbacks{Message: d.message, Gap: d.gap, Acked: d.acked, Status: func(s client.Status) {
			if s.Phase == client.Connecting {
				t.CloseIdleConnections() // so that the room can be another one
			}
			d.status(s)
		}},
	}
	switch transports[d.over] {
	case "ws":
		cfg.URLs[0], cfg.Dialer = "ws://"+d.w.balancer+"/connect", &client.WebSocket{Client: h}
	case "sse":
		cfg.Dialer = &client.SSE{Client: h}
	case "poll":
		cfg.Dialer = &client.LongPoll{Client: h, Wait: 5 * time.Second}
	case "tcp":
		cfg.URLs[0], cfg.Dialer = "tcp://carillon:1", &client.TCP{DialContext: d.dialTCP}
	}
	c, err := client.New(cfg)
	if err != nil {
		return err
	}
	return c.Run(ctx)
}

// dial goes to the balancer, or to the room of this attempt. It may be frozen, or gone.
func (d *device) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	var dialer net.Dialer
	at := d.w.balancer
	if n := d.target.Load(); d.direct && n != nil {
		at = n.Public()
	}
	return d.line(dialer.DialContext(ctx, network, at))
}

// line makes a connection one of the device's.
func (d *device) line(nc net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	return d.lines.add(nc), nil
}

func (d *device) dialTCP(ctx context.Context, network, _ string) (net.Conn, error) {
	var dialer net.Dialer
	return d.line(dialer.DialContext(ctx, network, d.target.Load().TCP()))
}

func (d *device) status(s client.Status) {
	d.last.Store(&s)
	switch s.Phase {
	case client.Connecting:
		rooms := d.w.fleet.Of(fleet.Room)
		d.target.Store(rooms[d.rng.IntN(len(rooms))])
	case client.Online:
		d.session.Store(uint64(s.Welcome.Session))
		r := history.Record{Kind: history.Online, Device: d.name, Session: uint64(s.Welcome.Session)}
		for k, b := range [2]wire.Start{s.Welcome.Own, s.Welcome.Common} {
			switch b {
			case wire.Beginning:
				r.Begins[k] = history.FromStart
			case wire.AtHead:
				r.Begins[k] = history.FromHead
			}
		}
		d.w.seen.Add(r)
	case client.Waiting:
		if d.broke == 0 && d.is.Load() {
			d.broke = d.w.now()
		}
	case client.CaughtUp:
		if d.broke > 0 {
			d.w.mu.Lock()
			d.w.away = append(d.w.away, spell{transports[d.over], d.broke, d.w.now()})
			d.w.mu.Unlock()
			d.broke = 0
		}
		if d.is.CompareAndSwap(false, true) {
			close(d.caught)
		}
	}
}

func (d *device) message(_ context.Context, m *wire.Message) error {
	d.w.seen.Add(history.Record{
		Kind: history.Deliver, Device: d.name, Session: d.session.Load(), ID: m.ID.String(), Body: string(m.Body), Slot: int(m.Slot), Pos: uint64(m.Pos),
	})
	if m.Persistent { // of the others nobody knows how many come
		d.seen.Add(1)
	}
	return nil
}

func (d *device) gap(_ context.Context, g *wire.Gap) {
	d.gaps.Add(1)
	d.acks = [2]push.Position{} // what it acknowledges from here on counts anew
	d.w.say("%v is told of a gap in slot %d: %v", d.name, g.Slot, g.Reason)
	d.w.seen.Add(history.Record{Kind: history.Gap, Device: d.name, Slot: int(g.Slot), Reset: g.Reason == wire.GapReset})
}

func (d *device) acked(cursor string) {
	_, c, err := push.ParseCursor(cursor)
	if err != nil {
		d.w.breach("client", "%v acknowledged what is no cursor: %v", d.name, err)
		return
	}
	for k := range c {
		if c[k].Pos != d.acks[k] { // most often it is the one slot or the other
			d.acks[k] = c[k].Pos
			d.w.seen.Add(history.Record{Kind: history.Ack, Device: d.name, Slot: k, Pos: uint64(c[k].Pos)})
		}
	}
}

// want is how many persistent messages the device has to have seen.
func (d *device) want() int64 { return d.w.due[d.name.User].Load() + d.w.everyone.Load() }

// where tells how a device stands.
func (d *device) where() string {
	s := d.last.Load()
	if s == nil {
		return fmt.Sprintf("%v never connected", d.name)
	}
	return fmt.Sprintf("%v over %s is %v (%v), with %d messages of %d", d.name, transports[d.over], s.Phase, s.Err, d.seen.Load(), d.want())
}
