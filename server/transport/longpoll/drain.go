package longpoll

import (
	"sync/atomic"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/transport/web"
	"carillon/server/wire"
)

const (
	answerOuts = 128       // frames in one Take, which are an answer but for goodbyes
	answerSize = 64 << 10  // bytes after which no further frame is taken into an answer
	keepSize   = 256 << 10 // a scratch buffer that grew beyond it is given back
)

// drain is what a goroutine needs to answer one poll after another.
type drain struct {
	batch   transport.Batch
	frames  []byte // of one answer, encoded
	wire    []byte // the answer as it is written
	scratch []byte // for what a client sends while it waits

	follower web.Follower
	id       push.SessionEpoch

	writes *atomic.Int64 // system calls that wrote, or tried to
}

func newDrain(writes *atomic.Int64) *drain {
	return &drain{
		batch:   transport.Batch{MaxOuts: answerOuts, MaxSize: answerSize},
		scratch: make([]byte, maxEarly),
		writes:  writes,
	}
}

// work is a worker.
func (t *Transport) work(writes *atomic.Int64) {
	d := newDrain(writes)
	t.ready.Work(func(c *conn) {
		if c.begin() {
			c.answer(d)
			c.release()
		}
	}, t.poller.Help)
}

// begin takes the connection from the ready list; false if there is nothing to do any more.
func (c *conn) begin() bool {
	c.mu.Lock()
	if c.dead {
		c.drain = resting
	} else {
		c.drain = draining
	}
	dead, last := c.dead, c.settleLocked()
	c.mu.Unlock()
	if last {
		c.finish()
	}
	return !dead
}

// ask has the session asked once for a poll that came, by the caller unless somebody is at it.
func (c *conn) ask() {
	c.mu.Lock()
	c.woken, c.bulk = true, false
	mine := c.stands && !c.arriving && !c.dead && c.drain == resting
	if mine {
		c.drain = draining
	}
	c.mu.Unlock()
	if mine {
		d := c.t.drains.Get().(*drain)
		c.answer(d)
		c.t.drains.Put(d)
		c.release()
	}
}

// release gives the connection back, to the end of the ready list if there is more to do.
func (c *conn) release() {
	c.mu.Lock()
	c.drain = resting
	if c.wantsLocked() {
		share := transport.Direct
		if c.bulk && c.closing == 0 {
			share = transport.Bulk
		}
		c.queueLocked(share)
	}
	last := c.settleLocked()
	c.mu.Unlock()
	if last {
		c.finish()
	}
}

// answer takes what the session has and answers the poll that waits, if there is anything to answer it with. The caller
// has the connection for draining.
func (c *conn) answer(d *drain) {
	closing, ok := c.look(d)
	if !ok {
		return
	}
	first, took, dry := d.take(c.session, closing != 0)

	var problem *web.Problem
	last := closing != 0 && dry
	if d.id == 0 {
		switch {
		case took:
			problem = web.RefusalOf(&first)
		case last:
			problem = web.ProblemOfClose(closing, "", 0)
		}
		last = last || problem != nil
	}

	c.mu.Lock()
	c.taking = false
	p := c.waits
	var gone *poll
	switch {
	case p == nil || c.dead:
	case p.gone: // its client left meanwhile, and no other poll came
		p.gone, gone = false, p
	case took || last || p.now && d.id != 0:
		welcomed := c.id == 0
		c.waits, c.owes = nil, p
		c.follower, c.id = d.follower, d.id
		p.answering, p.last = true, last
		if last && c.final == wire.CloseGoingAway {
			p.keep = false // its next request is another node's
		}
		c.mu.Unlock()
		if welcomed && d.id != 0 {
			c.t.enroll(c)
		}
		a := answer{problem: problem}
		p.send(d, &a)
		return
	}
	c.mu.Unlock()
	if gone != nil {
		c.left(gone)
	}
	if took { // nobody is there to have it
		c.die(wire.CloseLost)
	}
}

// look prepares a Take for the poll that waits; false if there is none, or its client has left.
func (c *conn) look(d *drain) (closing wire.CloseCode, ok bool) {
	c.mu.Lock()
	p := c.waits
	if p == nil || c.arriving || c.dead {
		c.mu.Unlock()
		return 0, false
	}
	c.woken, c.bulk = false, false
	if p.hand == nil && p.readLocked(d.scratch) {
		c.mu.Unlock()
		p.leave()
		return 0, false
	}
	c.taking = true
	d.follower, d.id = c.follower, c.id
	closing = c.closing
	c.mu.Unlock()
	return closing, true
}

// take takes what makes an answer, with all everything up to the answer's size. It returns the first frame, whether there
// was one, and whether the session has nothing more.
func (d *drain) take(s transport.Session, all bool) (first wire.Out, took, dry bool) {
	if cap(d.frames) > keepSize {
		d.frames = nil
	}
	d.frames = d.frames[:0]
	for {
		if !s.Take(&d.batch) {
			return first, took, true
		}
		for i := range d.batch.Outs {
			o := &d.batch.Outs[i]
			if !took {
				first, took = *o, true
			}
			d.follower.Pass(o)
			if w, ok := o.Frame.(*wire.Welcome); ok {
				d.id = w.Session
			}
			d.frames = appendFrame(d.frames, o)
		}
		d.batch.Reset()
		if !all || len(d.frames) >= answerSize {
			return first, took, false
		}
	}
}

// encode returns the answer as it goes over the wire. It belongs to d.
func (d *drain) encode(p *poll, a *answer) []byte {
	if cap(d.wire) > keepSize {
		d.wire = nil
	}
	d.wire = d.wire[:0]
	now := p.c.t.cfg.Now()
	if a.problem != nil {
		d.wire = a.append(d.wire, now, p.headers(), p.keep)
		return d.wire
	}
	var room [256]byte
	prefix := appendPrefix(room[:0], d.id, &d.follower)
	d.wire = appendHead(d.wire, now, p.headers(), p.keep, len(prefix)+len(d.frames)+len(suffix))
	d.wire = append(d.wire, prefix...)
	d.wire = append(d.wire, d.frames...)
	d.wire = append(d.wire, suffix...)
	return d.wire
}
