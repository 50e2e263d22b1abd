package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"

	"carillon/server/auth"
	"carillon/server/bench/sample"
	"carillon/server/bench/swarm"
	"carillon/server/catalog"
	"carillon/server/push"
	"carillon/server/wire"
)

const (
	probeCount = 4
	// probeEvery is how often a probe looks: well below the frames a second that a client may send.
	probeEvery    = 100 * time.Millisecond
	probePatience = 30 * time.Second
)

// probes are a few ordinary clients beside the load. They measure what is left for whoever is not a part of it: how long a
// ping takes to its pong, and a message to one user from the request until it is read.
type probes struct {
	stop func()
	done sync.WaitGroup

	mu sync.Mutex
	// Guarded by mu.
	pings, messages swarm.Latency
	err             error
}

// probe connects the probes and has them look until stopped. They are users behind the clients of the load.
func (w *world) probe(ctx context.Context, behind int) (*probes, error) {
	ctx, cancel := context.WithCancel(ctx)
	ps := &probes{stop: cancel}
	for i := range probeCount {
		p, err := w.dialProbe(ctx, w.fleet.User(behind+i), &http.Transport{})
		if err != nil {
			cancel()
			ps.done.Wait()
			return nil, fmt.Errorf("probe: %w", err)
		}
		ps.done.Go(func() {
			defer p.ws.CloseNow()
			if err := p.run(ctx, ps); err != nil && ctx.Err() == nil {
				ps.mu.Lock()
				ps.err = errors.Join(ps.err, err)
				ps.mu.Unlock()
			}
		})
	}
	return ps, nil
}

// take returns how long pings took since it was called before. It fails if one of the probes did.
func (ps *probes) take() (swarm.Latency, error) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	pings := ps.pings
	ps.pings = swarm.Latency{}
	return pings, ps.err
}

// end stops the probes and returns what they measured.
func (ps *probes) end() (pings, messages swarm.Latency, err error) {
	ps.stop()
	ps.done.Wait()
	return ps.pings, ps.messages, ps.err
}

// probe is one of them.
type probe struct {
	w    *world
	user string
	ws   *websocket.Conn
	seq  uint64
}

// mint makes the token of a user who is no client of the fleet.
func (w *world) mint(user string) (string, error) {
	f := w.server.file
	now := time.Now()
	return auth.Mint(auth.SigningKey{ID: catalog.KeyID(f.KeyID), Alg: catalog.HS256, Private: f.Key}, auth.Claims{
		Product: push.ProductID(f.Product), User: push.UserID(user), Device: "probe", Platform: push.PlatformWeb,
		Issued: now, Expires: now.Add(time.Hour),
	})
}

// dialProbe connects a user. tr has no proxy: the server is on this machine.
func (w *world) dialProbe(ctx context.Context, user string, tr *http.Transport) (*probe, error) {
	token, err := w.mint(user)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, "ws://"+w.server.public+"/connect", &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: tr},
	})
	if err != nil {
		return nil, err
	}
	p := &probe{w: w, user: user, ws: ws}
	ws.SetReadLimit(1 << 20)
	if err = p.send(ctx, &wire.Connect{Version: wire.Version, Token: token}); err == nil {
		_, err = p.until(ctx, func(f wire.Frame) bool { return f.Type() == wire.TypeWelcome })
	}
	if err != nil {
		ws.CloseNow()
		return nil, err
	}
	return p, nil
}

// run looks, again and again.
func (p *probe) run(ctx context.Context, ps *probes) error {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		ping, err := p.ping(ctx)
		if err != nil {
			return fmt.Errorf("probe: a ping: %w", err)
		}
		message, err := p.message(ctx)
		if err != nil {
			return fmt.Errorf("probe: a message: %w", err)
		}
		ps.mu.Lock()
		ps.pings.Add(ping)
		ps.messages.Add(message)
		ps.mu.Unlock()
	}
}

func (p *probe) ping(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	if err := p.send(ctx, &wire.Ping{}); err != nil {
		return 0, err
	}
	return p.took(ctx, began, func(f wire.Frame) bool { return f.Type() == wire.TypePong })
}

// message has a message sent to the probe's own user.
func (p *probe) message(ctx context.Context) (time.Duration, error) {
	p.seq++
	mark := swarm.Mark{Seq: p.seq, Sent: sample.Monotonic()} // of no phase
	body := swarm.AppendBody(nil, mark, swarm.MinBody)
	began := time.Now()
	if err := p.w.pub.send(ctx, 1, func(int) message { return message{user: p.user, mark: mark, size: swarm.MinBody} }); err != nil {
		return 0, err
	}
	return p.took(ctx, began, func(f wire.Frame) bool {
		m, ok := f.(*wire.Message)
		return ok && bytes.Equal(m.Body, body)
	})
}

func (p *probe) took(ctx context.Context, began time.Time, what func(wire.Frame) bool) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	at, err := p.until(ctx, what)
	return at.Sub(began), err
}

// until reads up to a frame and returns when it came.
func (p *probe) until(ctx context.Context, what func(wire.Frame) bool) (time.Time, error) {
	for {
		f, err := p.next(ctx)
		if err != nil {
			return time.Time{}, err
		}
		if at := time.Now(); what(f) {
			return at, nil
		}
	}
}

// next reads a frame.
func (p *probe) next(ctx context.Context) (wire.Frame, error) {
	_, b, err := p.ws.Read(ctx)
	if err != nil {
		return nil, err
	}
	return wire.DecodeServer(wire.JSON, b)
}

func (p *probe) send(ctx context.Context, f wire.Frame) error {
	return p.ws.Write(ctx, websocket.MessageText, wire.Append(nil, wire.JSON, f))
}
