package redisdb

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// class says what units may share a pipeline with each other.
type class uint8

const (
	classRead  class = iota
	classPeek        // plain commands
	classLax         // writes that wait for no replica, so that leases are not behind a replica that is silent
	classWrite       // writes, and reads that are answered like writes
	classes
)

// lanesOf is how many lanes a primary has for each class: so many pipelines are under way at once.
var lanesOf = [classes]int{classRead: 2, classPeek: 2, classLax: 1, classWrite: 4}

// The most of one pipeline and of one call in it, so that none keeps the others waiting for long; and how much one batch adds to
// a pipeline before it is the next one's turn.
const (
	pipelineUnits = 512
	pipelineBytes = 512 << 10
	callUnits     = 64
	callBytes     = 128 << 10
	turnUnits     = 64
	laneBytes     = 64 << 20 // that wait
)

// lane sends what is waiting for it to one primary, one pipeline after the other: while one is under way the next one gathers. Units
// of one tag always take the same lane of their class, so they keep their order.
type lane struct {
	// Static after construction.
	to    *primary
	class class

	mu sync.Mutex
	// Guarded by mu.
	waiting []*batch // in turns
	bytes   int
	running bool
	retired bool

	// Owned by the goroutine that runs.
	calls []call
	args  []any
	last  map[Tag]int // in a cluster: the last call of the tag
}

// batch is what one caller wants of one lane.
type batch struct {
	// Static after construction.
	of    *request
	until time.Time // after which nothing is sent any more
	since time.Time // when it was first wanted

	// Owned by the lane that it waits in.
	units  []*unit
	asking bool // in a slot that is just coming to this node
	tries  int
}

// enqueue has the batch sent, and says no if the lane is no longer in use.
func (l *lane) enqueue(b *batch) bool {
	size := 0
	for _, u := range b.units {
		size += u.size
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.retired {
		return false
	}
	if l.bytes > 0 && l.bytes+size > laneBytes {
		b.fail(errBusy)
		return true
	}
	l.bytes += size
	l.waiting = append(l.waiting, b)
	if !l.running {
		l.running = true
		l.to.db.running.Go(l.run)
	}
	return true
}

// retire says that nothing more comes, and whether the lane is at rest.
func (l *lane) retire() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.retired = true
	return !l.running
}

// run sends until nothing is waiting.
func (l *lane) run() {
	for {
		p := l.gather()
		if p == nil {
			return
		}
		if len(p.calls) > 0 {
			l.to.send(p)
		}
		l.reuse(p)
	}
}

// reuse keeps the room that a pipeline had, and nothing that was in it.
func (l *lane) reuse(p *pipeline) {
	for i := range p.calls {
		c := &p.calls[i]
		clear(c.units[:cap(c.units)])
		clear(c.from[:cap(c.from)])
		clear(c.plain[:cap(c.plain)])
		clear(c.texts[:cap(c.texts)])
		*c = call{units: c.units[:0], from: c.from[:0], plain: c.plain[:0], texts: c.texts[:0]}
	}
	clear(p.args)
	l.calls, l.args = p.calls[:0], p.args[:0]
	clear(l.last)
}

// call is one call of a function.
type call struct {
	units  []*unit
	from   []*batch // of each unit
	frees  bool
	asking bool
	tag    Tag
	keys   int
	size   int
	cmd    *redis.RawCmd
	plain  []*redis.RawCmd         // of the one unit, in place of cmd
	texts  []*redis.StringSliceCmd // the same, if the unit's replies are lists of strings
}

// pipeline is what goes to a primary at once.
type pipeline struct {
	lane  *lane
	class class
	calls []call
	args  []any
	units int
}

// gather takes from the batches in turns until the pipeline is full. It returns nil, and has the lane at rest, if nothing waits.
func (l *lane) gather() *pipeline {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) == 0 {
		l.running, l.waiting = false, nil
		return nil
	}
	p := &pipeline{lane: l, class: l.class, calls: l.calls[:0], args: l.args[:0]}
	now, size := time.Now(), 0
	for len(l.waiting) > 0 && p.units < pipelineUnits && size < pipelineBytes {
		b := l.waiting[0]
		l.waiting[0] = nil
		l.waiting = l.waiting[1:]
		if err := l.refusal(b, now); err != nil {
			for _, u := range b.units {
				l.bytes -= u.size
			}
			b.fail(err)
			continue
		}
		n := 0
		for n < len(b.units) && n < turnUnits && (n == 0 || size < pipelineBytes) {
			u := b.units[n]
			size += u.size
			l.bytes -= u.size
			if err := l.to.refuses(u); err != nil {
				b.answer(u, err)
			} else {
				p.add(b, u)
			}
			n++
		}
		if b.units = b.units[n:]; len(b.units) > 0 {
			l.waiting = append(l.waiting, b)
		}
	}
	return p
}

// refusal returns why nothing of the batch is sent any more.
func (l *lane) refusal(b *batch, now time.Time) error {
	switch {
	case l.to.db.closed.Load():
		return errClosed()
	case b.of.abandoned.Load():
		return errUnknown(context.Canceled)
	case l.to.isDown():
		return errUnknown(errDown)
	case now.After(b.until):
		return errUnknown(context.DeadlineExceeded)
	}
	return nil
}

// add puts a unit into the call before it, or in a cluster into that before it which has its tag, or else, or if that is of another function, into a new
// one. So units of one tag keep their order.
func (p *pipeline) add(b *batch, u *unit) {
	last, ok := len(p.calls)-1, len(p.calls) > 0
	if p.lane.to.db.config.Mode == Cluster {
		last, ok = p.lane.last[u.tag]
	}
	p.units++
	if ok && p.class != classPeek {
		if c := &p.calls[last]; c.frees == u.frees && c.units[0].write == u.write && c.asking == b.asking && len(c.units) < callUnits && c.size+u.size < callBytes {
			c.add(b, u)
			return
		}
	}
	if len(p.calls) < cap(p.calls) {
		p.calls = p.calls[:len(p.calls)+1]
	} else {
		p.calls = append(p.calls, call{})
	}
	if p.lane.last != nil {
		p.lane.last[u.tag] = len(p.calls) - 1
	}
	c := &p.calls[len(p.calls)-1]
	*c = call{units: c.units[:0], from: c.from[:0], plain: c.plain[:0], texts: c.texts[:0], frees: u.frees, asking: b.asking, tag: u.tag}
	c.add(b, u)
}

func (c *call) add(b *batch, u *unit) {
	c.units, c.from = append(c.units, u), append(c.from, b)
	c.keys += len(u.keys)
	c.size += u.size
}

// arguments appends what the call says to args.
func (c *call) arguments(args []any, db *DB) []any {
	function := functionRead
	switch {
	case c.units[0].write && c.frees:
		function = functionFree
	case c.units[0].write:
		function = functionWrite
	}
	args = append(args, fcall, function, c.keys)
	for _, u := range c.units {
		for i := range u.keys {
			args = append(args, &u.keys[i])
		}
	}
	probe := ""
	if db.config.Mode == Cluster && !c.asking {
		probe = c.tag.nowhere()
	}
	args = append(args, db.now(), probe)
	for _, u := range c.units {
		args = append(args, &u.packed)
	}
	return args
}

var fcall any = "FCALL"

// fail answers all that is left of the batch.
func (b *batch) fail(err error) {
	for _, u := range b.units {
		b.answer(u, err)
	}
	b.units = nil
}

// answer gives one unit its error.
func (b *batch) answer(u *unit, err error) {
	u.answer.Err = err
	b.of.answered(1)
}

// now is what the functions take for the time: empty for the server's own.
func (db *DB) now() string {
	if db.config.Clock == nil {
		return ""
	}
	return strconv.FormatInt(db.config.Clock.Now().UnixMilli(), 10)
}
