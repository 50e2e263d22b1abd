package simulation

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"carillon/server/client"
	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/wire"
)

// The delays of a network in good health. The checker's bounds are above what they can add up to.
const (
	leastDelay = time.Millisecond
	mostDelay  = 120 * time.Millisecond
)

var (
	errCut     = errors.New("simulation: the connection broke")
	errEnded   = errors.New("simulation: the server ended the connection")
	errRefused = errors.New("simulation: connection refused")
)

// end is a device's end of a connection, of whatever transport.
type end interface {
	client.Conn
	darken(server, device time.Duration)
	freeze(on bool)
}

// served is a connection as the room has it that accepted it.
type served interface {
	transport.Conn
	darken(server, device time.Duration)
	finish(code wire.CloseCode)
	events() *lane // the driver's
}

// kinds are the transports there are, as they stand in the real ones' packages.
var kinds = []transport.Meta{
	{Kind: transport.WebSocket, Capabilities: transport.Capabilities{Encoding: wire.JSON, Duplex: true, Close: true}},
	{Kind: transport.TCP, Capabilities: transport.Capabilities{Encoding: wire.Binary, Duplex: true}},
	{Kind: transport.SSE, Capabilities: transport.Capabilities{Encoding: wire.JSON}},
	{Kind: transport.LongPoll, Capabilities: transport.Capabilities{Encoding: wire.JSON, Polls: true}},
}

// caller is who connects: what a connection needs to know of it.
type caller struct {
	lane    *lane
	name    string // of the connection
	token   string
	blocked func() bool
	// late notes that since then the device took nothing, for reasons of its own. Driver.
	late func(since time.Duration)
	// acked is the cursor that its process acknowledged last, over whatever connection; nil: it acknowledges nothing by itself.
	acked func() string
}

// conn is one connection but those of long-poll: transport.Conn to the room's session, client.Conn to the device. Each
// direction is an ordered stream of encoded frames, each of which takes its own time; with SSE what the device has to say
// after its request goes to any room, in requests of their own. All that the session is told, it is told on the driver's
// goroutine, so never twice at once.
type conn struct {
	// Static after construction.
	w      *world
	caller caller
	room   *roomProc
	meta   transport.Meta

	// Lanes of the client's side, one for each that may ask at a time: by writing, by reading, and by ending.
	up, read, bye, posts *lane
	result               chan error

	near

	// Owned by the driver.
	lastDown time.Duration // when the last thing to the client arrives
	unread   bool          // the kernel waits for the client to acknowledge what was sent, and will give it up

	// Guarded by near.mu.
	closeSent bool
	lastUp    time.Duration // when the last frame of the client arrives
	flight    int           // bytes on their way to the client
	full      bool          // the server's side would write more
	dark      bool          // nothing passes any more, either way
	far
}

// item is one thing in the stream to the client.
type item struct {
	frame []byte
	code  wire.CloseCode // without a frame: the server's goodbye
}

// peer is the client's side of a connection.
type peer struct{ *conn }

var (
	_ transport.Conn = (*conn)(nil)
	_ end            = peer{}
	_ served         = (*conn)(nil)
)

// dial connects a device to a room, over any transport but the one to avoid, and returns which it took. It is called from the
// client's goroutine.
func (w *world) dial(ctx context.Context, by caller, r *roomProc, avoid int) (end, int, error) {
	i := by.lane.IntN(len(w.opt.kinds))
	if w.opt.kinds[i] == avoid {
		i = (i + 1) % len(w.opt.kinds)
	}
	kind := w.opt.kinds[i]
	meta := kinds[kind]
	meta.Remote = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, 1}), 1)
	meta.UserAgent = "simulation"
	if meta.Capabilities.Polls {
		return w.dialPoll(by, meta, r), kind, nil
	}
	c := &conn{w: w, caller: by, room: r, meta: meta, result: make(chan error, 1)}
	c.work, c.ready = c.write, make(chan struct{}, 1)
	for _, x := range []struct {
		l    **lane
		name string
	}{
		{&c.pump, "pump"}, {&c.end, "end"}, {&c.up, "up"}, {&c.read, "read"}, {&c.bye, "bye"}, {&c.posts, "posts"},
		{&c.down, "down"},
	} {
		*x.l = w.sched.lane("conn/" + by.name + "/" + x.name)
	}
	c.up.after(c.up.between(leastDelay, mostDelay), c.arrive)
	select {
	case err := <-c.result:
		return peer{c}, kind, err
	case <-ctx.Done():
		peer{c}.Cut()
		return nil, 0, fmt.Errorf("simulation: dial: %w", ctx.Err())
	}
}

// arrive is the client's first packet at the server. Driver.
func (c *conn) arrive() {
	answer := func(err error) { c.down.after(c.down.between(leastDelay, mostDelay), func() { c.result <- err }) }
	c.mu.Lock()
	gone := c.gone
	c.mu.Unlock()
	switch {
	case c.caller.blocked() || gone:
		c.over = true // nobody answers
	case !c.room.up():
		c.over = true
		answer(errRefused)
	case !c.meta.Capabilities.Duplex:
		answer(nil) // what is asked for says the request
	default:
		answer(c.accept())
	}
}

// accept has the room make the session. Driver.
func (c *conn) accept() error {
	sess, err := c.room.room.Accept(c, c.meta)
	if err != nil {
		c.over = true
		return err
	}
	c.w.pass(string(c.meta.Kind))
	c.sess = sess
	c.room.conns = append(c.room.conns, c)
	return nil
}

// ---- the room's side ---------------------------------------------------------------------------------------------

// Cut ends the connection at once: the client finds it broken.
func (c *conn) Cut(code wire.CloseCode) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.code == 0 {
		c.code = code
	}
	c.end.after(0, func() {
		if !c.over {
			c.finish(code)
			c.down.after(c.down.between(leastDelay, mostDelay), func() {
				c.mu.Lock()
				dark := c.dark
				c.mu.Unlock()
				if !dark {
					c.lose(errCut)
				}
			})
		}
	})
}

// write is the transport's worker: it takes what the session has as long as the client's window is open. Driver.
func (c *conn) write() {
	c.mu.Lock()
	c.pumping = false
	c.mu.Unlock()
	if c.sess == nil {
		return
	}
	b := &transport.Batch{MaxOuts: 16, MaxSize: 4 << 10}
	for {
		c.mu.Lock()
		c.full = c.flight >= c.w.opt.window
		full := c.full
		c.mu.Unlock()
		if full {
			return
		}
		b.Reset()
		if !c.sess.Take(b) {
			break
		}
		settle() // what the room reads because of that comes in time for the next one, or not, but always the same way
		for i := range b.Outs {
			c.send(item{frame: wire.AppendOut(nil, c.meta.Capabilities.Encoding, &b.Outs[i])})
		}
	}
	c.mu.Lock()
	goodbye := c.code != 0 && !c.closeSent
	code := c.code
	c.closeSent = c.closeSent || goodbye
	c.mu.Unlock()
	if goodbye {
		c.send(item{code: code})
	}
}

// send puts something on its way to the client. Driver.
func (c *conn) send(it item) {
	c.mu.Lock()
	dark := c.dark
	c.flight += len(it.frame)
	c.mu.Unlock()
	if dark {
		// It never leaves the window, as in a socket that is not acknowledged. Where the session hears nothing of its client the
		// kernel judges that (TCP_USER_TIMEOUT).
		if !c.meta.Capabilities.Duplex && !c.unread {
			c.unread = true
			c.down.after(c.w.opt.grace, func() {
				if !c.over {
					c.w.pass(peerGivenUp)
				}
				c.finish(wire.CloseLost)
			})
		}
		return
	}
	c.lastDown = max(c.lastDown, c.w.sched.now()+c.down.between(leastDelay, mostDelay))
	c.down.after(c.lastDown-c.w.sched.now(), func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.dark && !c.gone {
			c.inbox = append(c.inbox, it)
			c.signal()
		}
	})
}

// ---- the client's side -------------------------------------------------------------------------------------------

// Read returns the next frame.
func (c peer) Read() (wire.Frame, error) {
	for {
		it, ok, err := c.take()
		if err != nil {
			return nil, err
		}
		if !ok {
			<-c.ready
			continue
		}
		if it.frame == nil {
			c.behind(c.read, func() { c.finish(it.code) })
			if !c.meta.Capabilities.Close {
				return nil, errEnded
			}
			return nil, &client.ClosedError{Code: it.code, Reason: it.code.String()}
		}
		f, err := wire.DecodeServer(c.meta.Capabilities.Encoding, it.frame)
		if err != nil {
			return nil, fmt.Errorf("simulation: a client cannot read what it was sent: %w", err)
		}
		return f, nil
	}
}

func (c *conn) take() (it item, ok bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if it, ok, err = c.takeLocked(); !ok {
		return it, false, err
	}
	c.flight -= len(it.frame)
	if c.full && c.flight < c.w.opt.window {
		c.full = false
		c.pumpLocked(c.read)
	}
	return it, true, nil
}

// Write puts a frame on its way to the server. It does not wait: what a client sends is little.
func (c peer) Write(_ context.Context, f wire.Frame) error {
	b := wire.Append(nil, c.meta.Capabilities.Encoding, f)
	c.mu.Lock()
	gone, lost := c.gone, c.err
	c.mu.Unlock()
	if gone {
		return errCut
	}
	if lost != nil {
		return lost
	}
	switch f.(type) {
	case *wire.Connect:
	case *wire.Ping, *wire.Pong:
		if !c.meta.Capabilities.Duplex {
			return nil // heartbeats are the server's
		}
	default:
		if !c.meta.Capabilities.Duplex {
			c.w.post(c.posts, c.caller, f)
			return nil
		}
	}
	c.upstream(func() { c.receive(b) })
	return nil
}

// post sends a frame in a request of its own to any room. Requests overtake one another. Nobody waits for the answer: what is
// lost is an acknowledgement, and the next one says more.
func (w *world) post(l *lane, by caller, f wire.Frame) {
	r := w.rooms[l.IntN(len(w.rooms))]
	l.after(l.between(leastDelay, mostDelay), func() {
		if by.blocked() || !r.up() {
			return
		}
		w.pass(framesPosted)
		room := r.room
		go func() {
			err := room.Post(context.Background(), by.token, []wire.Frame{f})
			// Tags are for the session, which may be in another room.
			k := push.KindOf(err)
			elsewhere := k == push.KindConflict && f.Type() == wire.TypeTags
			if err != nil && !elsewhere && k != push.KindUnavailable && k != push.KindForbidden && k != push.KindUnauthenticated {
				w.fault("%s posts %v: %v", by.name, f.Type(), err)
			}
		}()
	})
}

// receive is a frame of the client at the server. Driver.
func (c *conn) receive(b []byte) {
	if c.sess == nil && !c.over && !c.meta.Capabilities.Duplex { // the request, of which accept did not know yet
		err := errRefused
		if c.room.up() {
			err = c.accept()
		}
		if err != nil {
			c.over = true
			c.down.after(c.down.between(leastDelay, mostDelay), func() { c.lose(err) })
		}
	}
	if c.sess == nil {
		return
	}
	f, err := wire.DecodeClient(c.meta.Capabilities.Encoding, b)
	if err != nil {
		c.sess.Refuse(err)
		return
	}
	c.sess.Receive(f)
}

// upstream has a frame arrive at the server, unless the path is dark by then. Nothing overtakes within the stream.
func (c *conn) upstream(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastUp = max(c.lastUp, c.w.sched.now()+c.up.between(leastDelay, mostDelay))
	c.up.after(c.lastUp-c.w.sched.now(), func() { c.unlessDark(f) })
}

// behind has something happen at the server behind all frames that are on their way when its own time has come. That may be
// asked for by several goroutines in one step: none of them delays the others.
func (c *conn) behind(l *lane, f func()) {
	l.after(l.between(leastDelay, mostDelay), func() {
		c.mu.Lock()
		wait := c.lastUp - c.w.sched.now()
		c.mu.Unlock()
		if wait > 0 {
			l.after(wait, func() { c.unlessDark(f) })
			return
		}
		c.unlessDark(f)
	})
}

func (c *conn) unlessDark(f func()) {
	c.mu.Lock()
	dark := c.dark
	c.mu.Unlock()
	if !dark {
		f()
	}
}

// Close says goodbye, and does not wait for the answer. Where the client's direction carries nothing its end says as little.
func (c peer) Close() {
	if c.meta.Capabilities.Duplex {
		c.shut(wire.CloseNormal)
		return
	}
	c.shut(wire.CloseLost)
}

// Cut resets the connection.
func (c peer) Cut() { c.shut(wire.CloseLost) }

func (c *conn) shut(code wire.CloseCode) {
	c.mu.Lock()
	was := c.gone
	c.gone = true
	c.inbox = nil
	c.signal()
	c.mu.Unlock()
	if !was {
		c.behind(c.bye, func() { c.finish(code) })
	}
}

// ---- faults ------------------------------------------------------------------------------------------------------

// darken ends the path: nothing passes any more. Each side learns of it after a time, or never, if that is below zero.
// Driver.
func (c *conn) darken(server, device time.Duration) {
	c.mu.Lock()
	was := c.dark
	c.dark = true
	c.mu.Unlock()
	if was || c.over {
		return
	}
	if server >= 0 {
		c.down.after(server, func() { c.finish(wire.CloseLost) })
	}
	if device >= 0 {
		c.down.after(device, func() { c.lose(errCut) })
	}
}

// lose tells the client's reader that nothing more will come.
func (c *conn) lose(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
	c.signal()
}

// freeze has the client's side stop reading, or read on.
func (c *conn) freeze(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frozen = on
	c.signal()
}
