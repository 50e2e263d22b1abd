package proxytest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"carillon/server/clock"
)

// Config is how a proxy is made. The zero value is ready.
type Config struct {
	Seed  uint64      // of random delays
	Clock clock.Clock // for delays; clock.System
}

// Proxy accepts connections and forwards them to a target. All methods are safe for concurrent use.
type Proxy struct {
	// Static after construction.
	clock   clock.Clock
	l       net.Listener
	running sync.WaitGroup
	done    context.Context // ends with Close
	end     context.CancelFunc

	mu sync.Mutex
	// Guarded by mu.
	target   string
	rand     *rand.Rand
	links    []*Link // in the order of their connections
	changed  chan struct{}
	each     []func(*Link)
	refusing bool
	refused  int
}

// Start returns a proxy that runs until the test ends.
func Start(t testing.TB, target string, cfg Config) *Proxy {
	t.Helper()
	p, err := New(target, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// New returns a running proxy, to be closed by the caller.
func New(target string, cfg Config) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("proxytest: listen: %w", err)
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	p := &Proxy{
		target: target, clock: cfg.Clock, l: l, rand: rand.New(rand.NewPCG(cfg.Seed, 0)), changed: make(chan struct{}),
	}
	p.done, p.end = context.WithCancel(context.Background())
	p.running.Go(p.accept)
	return p, nil
}

// Addr returns where the proxy listens.
func (p *Proxy) Addr() string { return p.l.Addr().String() }

// Retarget has connections that come from now on go to another target, as one that was started again may listen elsewhere. Links stay.
func (p *Proxy) Retarget(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// Close resets every connection and waits for the end of all goroutines.
func (p *Proxy) Close() {
	p.end()
	p.l.Close()
	for _, l := range p.Links() {
		l.over()
	}
	p.running.Wait()
}

// Links returns the links so far, in the order in which they were accepted, those that are over included.
func (p *Proxy) Links() []*Link {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*Link(nil), p.links...)
}

// Link waits for the nth connection, counted from 0.
func (p *Proxy) Link(ctx context.Context, n int) (*Link, error) {
	for {
		p.mu.Lock()
		links, changed := p.links, p.changed
		p.mu.Unlock()
		if n < len(links) {
			return links[n], nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("proxytest: connection %d of %d: %w", n, len(links), context.Cause(ctx))
		}
	}
}

// Each applies f to every link that there is, and to every one that comes, before a byte of it is read.
func (p *Proxy) Each(f func(*Link)) {
	p.mu.Lock()
	p.each = append(p.each, f)
	links := p.links
	p.mu.Unlock()
	for _, l := range links {
		f(l)
	}
}

// Refuse says whether connections that are accepted from now on are reset at once and become no links.
func (p *Proxy) Refuse(yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refusing = yes
}

// Refused returns how many connections were reset at once.
func (p *Proxy) Refused() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refused
}

func (p *Proxy) accept() {
	for {
		nc, err := p.l.Accept()
		if err != nil {
			return // closed
		}
		p.mu.Lock()
		refuse := p.refusing || p.done.Err() != nil
		if refuse {
			p.refused++
		}
		p.mu.Unlock()
		if refuse {
			reset(nc.(*net.TCPConn))
			continue
		}
		p.join(nc.(*net.TCPConn))
	}
}

// join makes a link of a connection. Links are made one after the other, so that their order is that of the connections.
func (p *Proxy) join(client *net.TCPConn) {
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	var d net.Dialer
	nc, err := d.DialContext(p.done, "tcp", target)
	if err != nil {
		reset(client)
		p.mu.Lock()
		p.refused++
		p.mu.Unlock()
		return
	}
	l := newLink(p, client, nc.(*net.TCPConn))
	p.mu.Lock()
	each := p.each
	p.links = append(p.links, l)
	p.mu.Unlock()
	for _, f := range each {
		f(l)
	}
	l.start()
	p.mu.Lock()
	close(p.changed)
	p.changed = make(chan struct{})
	closed := p.done.Err() != nil
	p.mu.Unlock()
	if closed {
		l.over() // Close may have looked at the links before
	}
}

// between returns a random duration from min to max.
func (p *Proxy) between(min, max time.Duration) time.Duration {
	if max <= min {
		return min
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return min + time.Duration(p.rand.Int64N(int64(max-min)+1))
}

func reset(nc *net.TCPConn) {
	nc.SetLinger(0)
	nc.Close()
}
