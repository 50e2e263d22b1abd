package simulation

import (
	"context"
	"sync"
	"time"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/wire"
)

// patienceToHandle is how long a client waits until everything of an answer is handled and acknowledged. Then it polls from
// where it stands, and is given a new session.
const patienceToHandle = 2 * time.Second

// poller is a client that polls: client.Conn over one session. An answer of another session, which it was given since its
// poll went elsewhere or showed another cursor, is the end of it: the client comes back from where it stands.
//
// The cursor of a poll acknowledges, so the next poll waits until the client has acknowledged what the last answer held.
type poller struct {
	// Static after construction.
	w      *world
	caller caller
	meta   transport.Meta
	room   *roomProc

	// Lanes: of writing, of reading, of ending, and the driver's.
	up, read, bye, down *lane

	// Owned by the driver.
	at       *hanging // the session that it continues
	sessions int      // that its polls opened

	mu sync.Mutex
	// Guarded by mu.
	connect *wire.Connect
	current *pollRequest // the poll under way
	session push.SessionEpoch
	said    string // the cursor that its client stands at and may acknowledge
	shown   string // behind the last answer
	answers int
	due     bool          // answered, and to poll again
	since   time.Duration // then
	far
}

var _ end = (*poller)(nil)

// dialPoll returns a client's end. Nothing happens before its first frame.
func (w *world) dialPoll(by caller, meta transport.Meta, r *roomProc) *poller {
	p := &poller{w: w, caller: by, meta: meta, room: r}
	p.ready = make(chan struct{}, 1)
	for _, x := range []struct {
		l    **lane
		name string
	}{{&p.up, "up"}, {&p.read, "read"}, {&p.bye, "bye"}, {&p.down, "down"}} {
		*x.l = w.sched.lane("poller/" + by.name + "/" + x.name)
	}
	return p
}

// Write sends what is the next poll's with it, and other things in requests of their own.
func (p *poller) Write(_ context.Context, f wire.Frame) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.gone:
		return errCut
	case p.err != nil:
		return p.err
	}
	switch f := f.(type) {
	case *wire.Connect:
		p.connect = f
		if p.caller.acked != nil {
			p.said = p.caller.acked()
		}
		p.pollLocked(p.up, f.Cursor)
	case *wire.Ping, *wire.Pong:
	case *wire.Ack:
		p.said = f.Cursor
		if !p.pollIfDoneLocked(p.up) {
			p.w.post(p.up, p.caller, f)
		}
	default:
		p.w.post(p.up, p.caller, f)
	}
	return nil
}

// pollIfDoneLocked polls if everything of the last answer is handled and acknowledged.
func (p *poller) pollIfDoneLocked(l *lane) bool {
	if !p.due || p.gone || p.err != nil || p.frozen || len(p.inbox) > 0 || p.said != p.shown {
		return false
	}
	p.pollLocked(l, p.said)
	return true
}

// pollLocked sends a poll, and now and then a second one right behind it.
func (p *poller) pollLocked(l *lane, cursor string) {
	p.due = false
	r := p.room
	strays := p.session != 0 && !p.w.healed
	if strays && l.chance(25) {
		r = p.w.rooms[l.IntN(len(p.w.rooms))]
	}
	n := 1
	if strays && l.chance(30) {
		n = 2
	}
	for range n {
		rq := &pollRequest{from: p, cursor: cursor, session: p.session, connect: p.connect}
		p.current = rq // what comes for the one before is passed over
		l.after(l.between(leastDelay, mostDelay), func() { p.w.arrived(rq, r, p.at) })
	}
}

// serve notes the session that a poll opened, if that is the client's first. Driver.
func (p *poller) serve(rq *pollRequest, h *hanging) {
	if rq.session == 0 {
		p.at = h
	}
}

// answered is an answer at the client. Driver.
func (p *poller) answered(rq *pollRequest, a *pollAnswer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current != rq || p.gone {
		return
	}
	p.current = nil
	defer p.signal()
	if p.session != 0 && a.session != p.session {
		p.err = errEnded
		return
	}
	p.session, p.shown, p.since, p.due = a.session, a.cursor, p.w.sched.now(), true
	p.answers++
	for _, b := range a.frames {
		p.inbox = append(p.inbox, item{frame: b})
		if f, ok := p.decode(b).(*wire.Welcome); ok && p.caller.acked != nil && f.Cursor != p.connect.Cursor {
			p.said = f.Cursor // the server's own, which nobody has to acknowledge
		}
	}
	if len(a.frames) == 0 {
		p.inbox = append(p.inbox, item{frame: wire.Append(nil, wire.JSON, &wire.Pong{})}) // a sign of life
	}
	if a.last || a.session == 0 {
		p.err = errEnded
		return
	}
	n := p.answers
	p.down.after(patienceToHandle, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.due && p.answers == n && !p.gone && p.err == nil {
			p.lateLocked()
			if !p.frozen {
				p.pollLocked(p.down, p.said)
			}
		}
	})
}

// lateLocked notes that the client takes its time to poll again, so that what comes meanwhile comes late.
func (p *poller) lateLocked() {
	since := p.since
	p.down.after(patienceToHandle, func() { p.caller.late(since) })
}

func (p *poller) decode(b []byte) wire.Frame {
	f, err := wire.DecodeServer(wire.JSON, b)
	if err != nil {
		p.w.fault("a client cannot read what it was sent: %v", err)
	}
	return f
}

// broken is a poll whose connection broke: the client asks again. Driver.
func (p *poller) broken(rq *pollRequest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current == rq && !p.gone && p.err == nil {
		p.current = nil
		p.pollLocked(p.down, rq.cursor)
	}
}

// fail is a poll that was refused. Driver.
func (p *poller) fail(rq *pollRequest, err error) {
	p.down.after(p.down.between(leastDelay, mostDelay), func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.current == rq && p.err == nil {
			p.err = err
			p.signal()
		}
	})
}

// Read returns the next frame.
func (p *poller) Read() (wire.Frame, error) {
	for {
		it, ok, err := p.take()
		if err != nil {
			return nil, err
		}
		if ok {
			return p.decode(it.frame), nil
		}
		<-p.ready
	}
}

func (p *poller) take() (it item, ok bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if it, ok, err = p.takeLocked(); ok {
		p.pollIfDoneLocked(p.read)
	}
	return it, ok, err
}

// Close ends it: there is no goodbye, the client does not poll any more.
func (p *poller) Close() { p.Cut() }

// Cut ends it.
func (p *poller) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return
	}
	p.gone = true
	p.inbox = nil
	p.signal()
	if rq := p.current; rq != nil {
		p.bye.after(p.bye.between(leastDelay, mostDelay), func() { p.hungUp(rq) })
	}
}

// hungUp is a client's end of a connection at the server. Driver.
func (p *poller) hungUp(rq *pollRequest) {
	if !rq.dark && p.at != nil {
		p.at.left(rq)
	}
}

// darken ends the path of the poll under way. Each side learns of it after a time, or never, if that is below zero. Driver.
func (p *poller) darken(server, device time.Duration) {
	p.mu.Lock()
	rq := p.current
	p.mu.Unlock()
	if rq == nil || rq.dark {
		return
	}
	rq.dark = true
	since := p.w.sched.now()
	if server >= 0 && p.at != nil {
		h := p.at
		p.down.after(server, func() { h.left(rq) })
	}
	if device >= 0 {
		p.down.after(device, func() {
			p.broken(rq)
			p.down.after(patienceToHandle, func() { p.caller.late(since) })
		})
	}
}

// freeze has the client not read, and so not poll either, or read on.
func (p *poller) freeze(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen = on
	if !on && p.due && p.w.sched.now()-p.since > patienceToHandle {
		p.lateLocked()
		p.answers++
		p.pollLocked(p.down, p.said)
	}
	p.signal()
}
