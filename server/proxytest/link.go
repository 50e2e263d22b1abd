package proxytest

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// Direction is one way through a link, or both as Up|Down.
type Direction uint8

// The directions.
const (
	Up   Direction = 1 << iota // from who dialed to the target
	Down                       // from the target to who dialed
)

// Side is one end of a link, or both as Client|Server.
type Side uint8

// The sides.
const (
	Client Side = 1 << iota // who dialed
	Server                  // the target
)

// Counts is what happened on a link so far.
type Counts struct {
	Up, Down Flow
	Over     bool // both sockets are closed
}

// Flow is what happened in one direction, in bytes.
type Flow struct {
	Read    int64 // taken from the sender
	Written int64 // given to the receiver
	Dropped int64 // given to nobody
	Ended   bool  // the sender's stream ended, or its socket was closed by a cut
}

// Waiting returns what was read and is neither written nor dropped.
func (f Flow) Waiting() int64 { return f.Read - f.Written - f.Dropped }

// Link is one connection through the proxy. All methods are safe for concurrent use, and what they ask for is in effect
// when they return.
type Link struct {
	// Static after construction.
	p              *Proxy
	client, server *net.TCPConn
	up, down       *flow

	mu      sync.Mutex
	changed sync.Cond // of mu
	// Guarded by mu, and so is what each flow says is.
	gone   Side // the sides that a cut took
	ended  bool // both sockets are closed
	notify chan struct{}
}

func newLink(p *Proxy, client, server *net.TCPConn) *Link {
	for _, nc := range []*net.TCPConn{client, server} {
		nc.SetReadBuffer(inFlight) // so that a sender feels soon that nobody reads
	}
	l := &Link{p: p, client: client, server: server, notify: make(chan struct{})}
	l.changed.L = &l.mu
	l.up = &flow{l: l, from: Client, to: Server, src: client, dst: server, cutAfter: -1}
	l.down = &flow{l: l, from: Server, to: Client, src: server, dst: client, cutAfter: -1}
	return l
}

// start begins to forward.
func (l *Link) start() {
	for _, f := range []*flow{l.up, l.down} {
		l.p.running.Go(f.read)
		l.p.running.Go(f.write)
	}
}

// flows returns those of d.
func (l *Link) flows(d Direction) (fs []*flow) {
	if d&Up != 0 {
		fs = append(fs, l.up)
	}
	if d&Down != 0 {
		fs = append(fs, l.down)
	}
	return fs
}

// From returns who dialed.
func (l *Link) From() net.Addr { return l.client.RemoteAddr() }

// Delay holds each piece that is read from now on for a time between min and max, and never lets one overtake another.
func (l *Link) Delay(d Direction, min, max time.Duration) {
	l.set(d, func(f *flow) { f.delayMin, f.delayMax = min, max })
}

// Limit makes every write of the direction at most n bytes, each in a packet of its own. 0 lifts that.
func (l *Link) Limit(d Direction, n int) {
	l.set(d, func(f *flow) { f.limit = n })
}

// Drop loses what is read from now on, what waits, and the end of the stream: with Up|Down the link is half-open, alive
// to both sides and dead between them. It cannot be undone; the bytes are gone.
func (l *Link) Drop(d Direction) {
	l.set(d, func(f *flow) {
		f.dropping = true
		f.dropQueueLocked()
		f.dst.SetWriteDeadline(past)
	})
	l.quiet(d, func(f *flow) bool { return !f.writing })
}

// Stall stops reading, or goes on with it. What was read before is still written; the sender feels the rest.
func (l *Link) Stall(d Direction, yes bool) {
	l.set(d, func(f *flow) {
		f.stalled = yes
		if yes {
			f.src.SetReadDeadline(past)
		}
	})
	l.quiet(d, func(f *flow) bool { return !yes || !f.reading })
}

// Hold stops writing, or goes on with it. What is read waits, so the sender feels nothing: this is how one link's bytes
// come to arrive after another's that were sent later.
func (l *Link) Hold(d Direction, yes bool) {
	l.set(d, func(f *flow) {
		f.held = yes
		if yes {
			f.dst.SetWriteDeadline(past)
		}
	})
	l.quiet(d, func(f *flow) bool { return !yes || !f.writing })
}

// ResetAfter resets both sides once n further bytes of the direction are written, wherever in a frame that is; -1 lifts
// that.
func (l *Link) ResetAfter(d Direction, n int64) {
	l.set(d, func(f *flow) { f.cutAfter = n })
}

// Reset cuts sides with a RST. A side that is not cut learns nothing of it: what it sends is dropped.
func (l *Link) Reset(sides Side) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.resetLocked(sides)
}

// Finish cuts sides with a FIN. What such a side still sends is dropped, as is what a side sends that is not cut.
func (l *Link) Finish(sides Side) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone |= sides
	l.noteLocked()
	for _, f := range []*flow{l.up, l.down} {
		if sides&f.to == 0 {
			continue
		}
		f.dst.SetWriteDeadline(past)
		for f.writing { // a FIN goes behind what is being written
			l.changed.Wait()
		}
		f.dst.CloseWrite()
	}
}

func (l *Link) resetLocked(sides Side) {
	l.gone |= sides
	if sides&Client != 0 {
		reset(l.client)
	}
	if sides&Server != 0 {
		reset(l.server)
	}
	l.noteLocked()
}

// Counts returns what happened so far.
func (l *Link) Counts() Counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.countsLocked()
}

func (l *Link) countsLocked() Counts { return Counts{l.up.Flow, l.down.Flow, l.ended} }

// Await waits until ok says so of the link's counts. ok is called under a lock, and calls nothing of the link.
func (l *Link) Await(ctx context.Context, ok func(Counts) bool) error {
	for {
		l.mu.Lock()
		c, changed := l.countsLocked(), l.notify
		l.mu.Unlock()
		if ok(c) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("proxytest: the link stands at %+v: %w", c, context.Cause(ctx))
		}
	}
}

// set changes flows, and has them look at it.
func (l *Link) set(d Direction, f func(*flow)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, fl := range l.flows(d) {
		f(fl)
	}
	l.noteLocked()
}

// quiet waits until all flows of d are as they should, or the link is over.
func (l *Link) quiet(d Direction, ok func(*flow) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.flows(d) {
		for !l.ended && !ok(f) {
			l.changed.Wait()
		}
	}
}

func (l *Link) noteLocked() {
	l.changed.Broadcast()
	close(l.notify)
	l.notify = make(chan struct{})
}

// over closes both sockets.
func (l *Link) over() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.overLocked()
}

func (l *Link) overLocked() {
	if l.ended {
		return
	}
	l.ended = true
	l.resetLocked(Client | Server)
}
