package longpoll

import (
	"crypto/sha256"
	"crypto/subtle"
	"sync"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/transport/ready"
	"carillon/server/transport/roster"
	"carillon/server/transport/web"
	"carillon/server/wire"
)

// conn is what the session of one client sees: a connection that goes on from poll to poll. Three kinds of goroutines work
// on it: those that bring a poll or its end; at most one that takes from the session (a worker, or the handler of a poll
// that just came); and whoever calls Wake, Close and Cut.
type conn struct {
	// Static after construction.
	t *Transport

	// Set when the Acceptor returned, static once the connection stands.
	session transport.PollSession

	entry roster.Entry[conn] // among all connections
	place ready.Entry[conn]  // in the ready list

	// calls is held over those calls of the session that come one after the other (Receive, Poll, PollOver, Closed) and
	// over the decision to make them. Nobody who holds it takes, writes or closes.
	calls sync.Mutex

	mu sync.Mutex
	// Guarded by mu.
	follower web.Follower      // behind the last answer
	proof    proof             // of the token that the last poll showed
	id       push.SessionEpoch // 0: not welcomed yet
	waits    *poll             // the poll that waits; nil: none does
	owes     *poll             // the poll whose answer is on its way; the session has not heard that it is over
	arriving bool              // the session has not heard of the poll that waits, so nothing may be taken
	drain    drainState
	asked    transport.Share // for whom it stands in the ready list
	stands   bool            // the session is there and has been told of its first poll
	woken    bool            // Wake was called, or a poll came, after the last Take began
	bulk     bool            // with nothing but bulk
	taking   bool            // a Take is under way, and what it gives is no poll's yet
	dead     bool            // it is over: no poll may begin, and none that waits goes on
	cut      bool            // nothing that is half written matters any more
	done     bool            // somebody calls, or called, Closed
	final    wire.CloseCode  // what Closed will say; 0: nothing decided yet
	closing  wire.CloseCode  // the session wants to say goodbye with it; 0: it does not
}

// drainState says who has a connection for taking from its session.
type drainState uint8

const (
	resting  drainState = iota // nobody: there is nothing to take, or nobody to answer
	queued                     // the ready list
	draining                   // a goroutine
)

// proof is what is kept of a token.
type proof [16]byte

func proofOf(token string) proof {
	h := sha256.Sum256([]byte(token))
	return proof(h[:])
}

// Wake implements transport.Conn.
func (c *conn) Wake(share transport.Share) {
	c.mu.Lock()
	c.bulk = share == transport.Bulk && (c.bulk || !c.woken)
	c.woken = true
	c.queueLocked(share)
	c.mu.Unlock()
}

// Close implements transport.Conn. Its goodbye is the answer of the poll that waits, or of the next one.
func (c *conn) Close(code wire.CloseCode) {
	c.mu.Lock()
	if c.final == 0 {
		c.final, c.closing = code, code
	}
	c.queueLocked(transport.Direct)
	c.mu.Unlock()
}

// Cut implements transport.Conn. A poll that waits is answered with nothing; an answer that is half written is cut.
func (c *conn) Cut(code wire.CloseCode) {
	c.mu.Lock()
	c.cut = true
	c.mu.Unlock()
	c.die(code)
}

// die notes the end. A worker makes the last call, unless somebody is taking from the session, who then does.
func (c *conn) die(code wire.CloseCode) {
	c.mu.Lock()
	if c.final == 0 {
		c.final = code
	}
	c.dead = true
	bury := c.stands && c.drain == resting && !c.done
	if bury {
		c.drain = queued
	}
	c.mu.Unlock()
	if bury {
		c.t.ready.Push(c, transport.Direct) // a dead one is not promoted, so this may come after the lock
	}
}

// queueLocked pushes c to the ready list if there is reason to, or to its more urgent part. Where no poll waits, the next one
// makes up for it.
func (c *conn) queueLocked(share transport.Share) {
	switch {
	case !c.stands || c.dead || c.waits == nil || c.arriving:
	case c.drain == resting:
		c.drain, c.asked = queued, share
		c.t.ready.Push(c, share)
	case c.drain == queued && c.asked == transport.Bulk && share == transport.Direct:
		c.asked = share
		c.t.ready.Promote(c)
	}
}

// wantsLocked reports whether the session has something to be taken, as far as is known.
func (c *conn) wantsLocked() bool { return c.woken || c.closing != 0 }

// stand begins a session with its first poll.
func (c *conn) stand(p *poll, rq *web.Request) {
	c.calls.Lock()
	defer c.calls.Unlock()
	c.mu.Lock()
	c.waits = p
	dead := c.dead
	c.mu.Unlock()
	if !dead {
		connect := rq.Connect // the session's to keep
		connect.After = max(connect.After, rq.Session)
		c.session.Receive(&connect)
		c.session.Poll("", rq.Wait)
	}
	c.mu.Lock()
	c.stands = true
	bury := c.dead
	if bury {
		c.drain = queued
	}
	c.mu.Unlock()
	if bury {
		c.t.ready.Push(c, transport.Direct)
	}
}

// admits reports whether the token is that of the poll before.
func (c *conn) admits(pr proof) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return subtle.ConstantTimeCompare(c.proof[:], pr[:]) == 1
}

// owner returns whose session it is.
func (c *conn) owner() push.CursorOwner {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.follower.Owner()
}

// attach makes p the poll that waits. It returns false if the session does not go on with it: it is over, or the cursor is
// not that of the last answer, which then was lost, and the session with it. refresh is a token that takes the place of
// the one before; nil: it is the same.
func (c *conn) attach(p *poll, rq *web.Request, refresh *wire.Refresh) bool {
	c.calls.Lock()
	c.mu.Lock()
	if c.dead {
		c.mu.Unlock()
		c.calls.Unlock()
		return false
	}
	if !c.follower.Is(rq.Connect.Cursor) {
		c.mu.Unlock()
		c.calls.Unlock()
		c.die(wire.CloseLost)
		return false
	}
	older, owed := c.waits, c.owes
	c.waits, c.owes, c.arriving = p, nil, true
	if older != nil {
		older.answering = true
	}
	if refresh != nil {
		c.proof = proofOf(refresh.Token)
	}
	empty := c.emptyLocked()
	c.mu.Unlock()
	if owed != nil { // the client has the answer, of which we have not heard yet that it is written
		c.session.PollOver()
	}
	if refresh != nil {
		c.session.Receive(refresh)
	}
	c.session.Poll(rq.Connect.Cursor, rq.Wait)
	c.mu.Lock()
	c.arriving = false // whoever brings a poll asks the session next
	c.mu.Unlock()
	c.calls.Unlock()
	if owed != nil {
		owed.abandon()
	}
	if older != nil {
		older.deliver(empty)
	}
	return true
}

// emptyLocked is the answer with nothing.
func (c *conn) emptyLocked() answer {
	if c.id == 0 { // there is no session that a client could continue
		return answer{problem: web.ProblemOfClose(c.final, "", 0)}
	}
	return answer{body: appendBody(nil, c.id, &c.follower, nil)}
}

// left notes that the client of a poll left while it waited.
func (c *conn) left(p *poll) {
	c.calls.Lock()
	c.mu.Lock()
	mine := c.waits == p
	if mine && c.taking { // whoever takes finds it
		p.gone = true
		mine = false
	}
	if mine {
		c.waits = nil
	}
	unborn, tell := c.id == 0, mine && !c.done
	c.mu.Unlock()
	if tell {
		c.session.PollOver()
	}
	c.calls.Unlock()
	if mine && unborn { // nobody knows its number
		c.die(wire.CloseLost)
	}
}

// over notes that an answer is in the kernel's hands, or, with arrived false, that it will not get there.
func (c *conn) over(p *poll, arrived bool) {
	c.calls.Lock()
	c.mu.Lock()
	mine := c.owes == p
	if mine {
		c.owes = nil
	}
	tell := mine && !c.done
	c.mu.Unlock()
	if tell {
		c.session.PollOver()
	}
	c.calls.Unlock()
	if mine && (p.last || !arrived) {
		c.die(wire.CloseLost) // unless the session has said with what it ends
	}
}

// settleLocked reports whether the caller is the one to call finish: it is over, and nobody takes from the session.
func (c *conn) settleLocked() bool {
	if !c.dead || c.drain == draining || c.done {
		return false
	}
	c.done = true
	return true
}

// finish answers who waits with nothing, and makes the session's last call.
func (c *conn) finish() {
	c.mu.Lock()
	waiting, writing, cut, code := c.waits, c.owes, c.cut, c.final
	c.waits, c.owes = nil, nil
	if waiting != nil {
		waiting.answering = true
	}
	empty := c.emptyLocked()
	c.mu.Unlock()
	switch {
	case writing == nil:
	case cut:
		writing.abort()
	default: // another poll of the client has shown that it does not count on this answer
		writing.abandon()
	}
	if waiting != nil {
		waiting.deliver(empty)
	}
	c.calls.Lock()
	c.session.Closed(code)
	c.calls.Unlock()
	c.t.leave(c)
}
