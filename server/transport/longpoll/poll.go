package longpoll

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"time"
	"unique"

	"carillon/server/transport/poller"
)

// maxEarly is how much of a client is read that sends while it waits for an answer: one more request, mostly.
const maxEarly = 4 << 10

// poll is one request that waits for its answer.
type poll struct {
	// Static once the poll is attached.
	c *conn

	// Set when it is parked, static from then on.
	home  *Listener             // where the connection goes on
	extra unique.Handle[string] // headers of the answer that handlers in front of us have set; the zero value: none
	sock  poller.Socket

	// Guarded by c.mu.
	hand      *handler // the request while net/http has it; nil: it is parked
	rare      *rare    // nil almost always
	now       bool     // it does not wait, but for a welcome
	keep      bool     // the connection serves further requests
	answering bool     // its answer is being written, or was: nobody reads its connection
	gone      bool     // its client left while something was taken
	last      bool     // the answer is the session's goodbye
	abandoned bool     // nobody waits for the kernel to take its answer
	ended     bool
}

// rare is what most polls have not.
type rare struct {
	remote net.Addr // whom the connection's listener said it is of, if that is not the socket's peer

	// Guarded by c.mu.
	early []byte // what the client sent since its poll
	rest  []byte // what the kernel did not take of the answer
}

// rareLocked returns the poll's rare, and makes it for the first one who asks.
func (p *poll) rareLocked() *rare {
	if p.rare == nil {
		p.rare = new(rare)
	}
	return p.rare
}

// takeRestLocked returns what the kernel did not take of the answer, and forgets it.
func (p *poll) takeRestLocked() []byte {
	if p.rare == nil {
		return nil
	}
	rest := p.rare.rest
	p.rare.rest = nil
	return rest
}

// handler is a request in the hands of net/http.
type handler struct {
	w       http.ResponseWriter
	answers chan answer // has room for the one that there is; never closed

	// Guarded by the mu of the poll's connection.
	writing bool
}

func newHandler(w http.ResponseWriter) *handler { return &handler{w: w, answers: make(chan answer, 1)} }

// headers returns the headers that the answer has besides its own.
func (p *poll) headers() string {
	if p.extra == (unique.Handle[string]{}) {
		return ""
	}
	return p.extra.Value()
}

// send answers the poll with what d has. answering has been set.
func (p *poll) send(d *drain, a *answer) {
	h := p.handler()
	if h == nil {
		d.writes.Add(1)
		p.writeOn(d.encode(p, a), false)
		return
	}
	if a.problem == nil {
		a.body = appendBody(make([]byte, 0, 256+len(d.frames)), d.id, &d.follower, d.frames)
	}
	h.answers <- *a
}

// deliver answers a poll that nobody counts any more. answering has been set.
func (p *poll) deliver(a answer) {
	if h := p.handler(); h != nil {
		h.answers <- a
		return
	}
	p.abandon()
	p.write(&a)
}

// write writes an answer that is no worker's.
func (p *poll) write(a *answer) {
	p.c.t.others().Add(1)
	p.writeOn(a.append(nil, p.c.t.cfg.Now(), p.headers(), p.keep), true)
}

// handler returns the request if net/http has it still.
func (p *poll) handler() *handler {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	return p.hand
}

// writeOn writes b to a parked poll, as much as the kernel takes at once. The rest waits until it takes more, in b if that is
// owned.
func (p *poll) writeOn(b []byte, owned bool) {
	n, err := p.sock.Write(b)
	switch {
	case err != nil:
		p.fail()
	case n == len(b):
		p.sent()
	default:
		rest := b[n:]
		if !owned {
			rest = bytes.Clone(rest)
		}
		p.c.mu.Lock()
		abandoned := p.abandoned
		if !abandoned {
			p.rareLocked().rest = rest
		}
		p.c.mu.Unlock()
		if abandoned {
			p.fail()
			return
		}
		p.sock.Mute() // what the client sends now is net/http's to read
		p.sock.AwaitWrite()
	}
}

// sent gives the connection of an answered poll back.
func (p *poll) sent() {
	p.c.over(p, true)
	p.c.mu.Lock()
	var early []byte
	var remote net.Addr
	if p.rare != nil {
		early, remote = p.rare.early, p.rare.remote
	}
	keep := p.keep
	p.c.mu.Unlock()
	if keep {
		if nc, err := p.sock.Detach(); err == nil {
			p.home.giveBack(nc, remote, early)
			p.end()
			return
		}
	}
	p.discard()
	p.sock.Close(false)
	p.end()
}

// discard reads what a client sent beyond its last request: closing with something unread would reset the connection, and the
// answer with it. One that goes on sending has itself to blame.
func (p *poll) discard() {
	var dregs [4 << 10]byte
	for range 16 {
		if n, err := p.sock.Read(dregs[:]); n == 0 || err != nil {
			return
		}
	}
}

// fail ends a poll whose answer does not arrive.
func (p *poll) fail() {
	p.sock.Close(true)
	p.c.over(p, false)
	p.end()
}

// leave ends a parked poll whose client left.
func (p *poll) leave() {
	p.sock.Close(false)
	p.c.left(p)
	p.end()
}

// end is the end of a poll; it may come more than once.
func (p *poll) end() {
	p.c.mu.Lock()
	first := !p.ended
	p.ended = true
	parked := p.hand == nil
	p.c.mu.Unlock()
	if first {
		p.c.t.leavePoll(parked)
	}
}

// abandon ends the answering of a parked poll if it has to wait for the kernel, now or later.
func (p *poll) abandon() {
	p.c.mu.Lock()
	p.abandoned = true
	waiting := p.takeRestLocked() != nil
	p.c.mu.Unlock()
	if waiting {
		p.fail()
	}
}

// abort ends the answering of a poll that does not come to its end.
func (p *poll) abort() {
	p.abandon()
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	if p.hand != nil && p.hand.writing {
		_ = http.NewResponseController(p.hand.w).SetWriteDeadline(time.Unix(1, 0)) // where there is none, nothing can be cut
	}
}

// Ready implements poller.Handler.
func (p *poll) Ready(readable, writable bool, scratch []byte) {
	if writable {
		p.writable()
	}
	if !readable {
		return
	}
	p.c.mu.Lock()
	left := !p.answering && p.readLocked(scratch)
	p.c.mu.Unlock()
	if left {
		p.leave()
	}
}

// readLocked reads what a client sends that waits, and reports whether it left. More than maxEarly stays where it is, and
// the end of such a client is not noticed before it is answered.
func (p *poll) readLocked(scratch []byte) (left bool) {
	free := maxEarly
	if p.rare != nil {
		if free -= len(p.rare.early); free <= 0 {
			return false
		}
	}
	n, err := p.sock.Read(scratch[:min(free, len(scratch))])
	switch {
	case errors.Is(err, poller.ErrWouldBlock):
		return false
	case err != nil || n == 0:
		return true
	}
	p.rareLocked().early = append(p.rare.early, scratch[:n]...)
	if n == free {
		p.sock.Mute()
	}
	return false
}

// writable is the kernel's word that it takes more of an answer.
func (p *poll) writable() {
	p.sock.Wrote()
	p.c.mu.Lock()
	rest := p.takeRestLocked()
	p.c.mu.Unlock()
	if rest != nil {
		p.c.t.others().Add(1)
		p.writeOn(rest, true)
	}
}
