package redisdb

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"carillon/server/planted"
	"carillon/server/push"
)

// unit is one read or write on its way. The caller packs it and takes its answer apart; between the two it is the lane's, so that a
// caller that does not wait any longer can do with what it passed whatever it likes.
type unit struct {
	tag    Tag
	keys   []string // in a cluster; otherwise they are in packed
	packed string
	size   int
	class  class
	frees  bool
	kept   bool    // a read that waits as writes do
	plain  [][]any // commands that go as they are, in place of keys and packed
	texts  bool    // whose replies are lists of strings
	write  bool

	part int // of a cluster, its tag's slot and one more; 0: nobody has asked yet

	raw    string     // what Redis answered
	lists  [][]string // with texts, in place of raw
	answer Answer
}

// slot returns the part of a cluster that the unit belongs to. Whoever has the unit asks several times.
func (u *unit) slot() int {
	if u.part == 0 {
		u.part = u.tag.slot() + 1
	}
	return u.part - 1
}

// request is what one caller wants at once.
type request struct {
	units     []unit
	left      atomic.Int64  // units without an answer
	done      chan struct{} // closed by whoever answers the last one
	abandoned atomic.Bool

	one [1]unit
}

func (q *request) answered(n int) {
	if q.left.Add(-int64(n)) == 0 {
		close(q.done)
	}
}

// encoders are kept, as most of what a caller packs is of one size.
var encoders = sync.Pool{New: func() any { return new(encoder) }}

const keptEncoder = 256 << 10 // bytes of one that goes back

// pack makes a request of n units out of what put writes.
func (db *DB) pack(n int, put func(e *encoder, i int, u *unit)) *request {
	q := &request{done: make(chan struct{})}
	if n == 1 {
		q.units = q.one[:]
	} else {
		q.units = make([]unit, n)
	}
	e := encoders.Get().(*encoder)
	e.named = db.config.Mode == Cluster
	ends := make([][2]int, 0, n)
	for i := range q.units {
		put(e, i, &q.units[i])
		q.units[i].answer.Err = e.err
		ends = append(ends, [2]int{len(e.buf), len(e.keys)})
	}
	packed, keys := string(e.buf), append([]string(nil), e.keys...)
	from := [2]int{}
	for i := range q.units {
		u := &q.units[i]
		u.packed = packed[from[0]:ends[i][0]]
		u.keys = keys[from[1]:ends[i][1]:ends[i][1]]
		u.size = len(u.packed) + 16
		for _, k := range u.keys {
			u.size += len(k) + 16
		}
		from = ends[i]
	}
	clear(e.keys)
	e.buf, e.keys = e.buf[:0], e.keys[:0]
	if cap(e.buf)+cap(e.strings) <= 2*keptEncoder {
		encoders.Put(e)
	}
	return q
}

// Read fills in the answers. Reads of one call share round trips with each other and with those of other callers, and are not of one
// moment with each other. The context ends the waiting alone.
func (db *DB) Read(ctx context.Context, rs ...*Read) {
	if len(rs) == 0 || planted.Is(planted.ReplicaRead) && db.askReplica(ctx, rs) {
		return
	}
	q := db.pack(len(rs), func(e *encoder, i int, u *unit) {
		r := rs[i]
		u.tag, u.kept = r.Tag, r.Kept
		if r.Kept && db.config.Durability != push.DurabilityDisk { // there it is flushed before anybody sees it
			u.class = classWrite
		}
		e.read(r)
		if r.Texts {
			e.refuse("lists of strings for a reply; they are for Peek")
		}
	})
	if err := db.run(ctx, q); err != nil {
		for _, r := range rs {
			r.Replies, r.Answer = nil, Answer{Err: err}
		}
		return
	}
	for i, r := range rs {
		r.Replies, _, r.Answer = q.units[i].take(r.Replies, r.Do)
		if r.Err == nil && r.Replies == nil {
			r.Err = errReply
		}
	}
}

// Peek fills in the answers as Read does, but the commands go as they are, at a third of what they cost the server in a function. Their
// replies are of no one moment, and lineage and time are those of the beginning of the pipeline that they were in. It is for asking about
// many, where nothing is written on the strength of the answer. Announcements and logs of changes are not asked for in this way.
func (db *DB) Peek(ctx context.Context, rs ...*Read) {
	if len(rs) == 0 || planted.Is(planted.ReplicaRead) && db.askReplica(ctx, rs) {
		return
	}
	q := &request{done: make(chan struct{}), units: make([]unit, len(rs))}
	commands, args := 0, 0
	for _, r := range rs {
		commands += len(r.Do)
		for i := range r.Do {
			args += 2 + len(r.Do[i].Args)
		}
	}
	room := plainRoom{make([][]any, 0, commands), make([]any, 0, args), make([]string, 0, args)}
	for i, r := range rs {
		u := &q.units[i]
		u.tag, u.class, u.texts = r.Tag, classPeek, r.Texts
		u.plain, u.size, u.answer.Err = room.take(r.Do)
	}
	if err := db.run(ctx, q); err != nil {
		for _, r := range rs {
			r.Replies, r.Answer = nil, Answer{Err: err}
		}
		return
	}
	for i, r := range rs {
		r.Replies, _, r.Answer = q.units[i].take(r.Replies, r.Do)
	}
}

// plainRoom is where commands go that are sent as they are, those of many reads in three pieces of memory. What is made of them is nothing
// that is the caller's.
type plainRoom struct {
	commands [][]any
	args     []any
	texts    []string // which args point at
}

// take returns commands as the client wants them.
func (p *plainRoom) take(cs []Command) (plain [][]any, size int, err error) {
	from := len(p.commands)
	for i := range cs {
		c := &cs[i]
		if c.log != nil {
			return nil, 0, push.Errorf(push.KindInternal, "store_unit", "a log of changes is asked by a function")
		}
		first := len(p.args)
		p.args = append(p.args, nameOf(c.Name))
		p.text(c.Key)
		size += len(c.Key) + 32
		for _, a := range c.Args {
			switch v := a.(type) {
			case []byte:
				p.text(string(v))
			case *[]byte:
				p.text(string(*v))
			case string:
				p.text(v)
			case *string:
				p.text(*v)
			case int, int64, uint64:
				p.args = append(p.args, a)
			default:
				return nil, 0, push.Errorf(push.KindInternal, "store_unit", "no command has an argument of type %T", a)
			}
			if s, ok := p.args[len(p.args)-1].(*string); ok {
				size += len(*s)
			}
			size += 16
		}
		p.commands = append(p.commands, p.args[first:len(p.args):len(p.args)])
	}
	return p.commands[from:len(p.commands):len(p.commands)], size, nil
}

func (p *plainRoom) text(s string) {
	p.texts = append(p.texts, s)
	p.args = append(p.args, &p.texts[len(p.texts)-1])
}

// nameOf returns a command's name as an argument; those that are asked in great numbers cost no allocation.
func nameOf(name string) any {
	switch name {
	case "HGET":
		return "HGET"
	case "HMGET":
		return "HMGET"
	case "GET":
		return "GET"
	}
	return name
}

// Write tries each write and fills in the answers. Writes share round trips and flushes with each other and with those of other callers, and
// succeed or fail each by itself. Those of one call that have the same tag are done in the order given, unless what one was sent with was
// refused and is sent again: what a write relies on belongs into its conditions. The context ends the waiting, not what is under way.
func (db *DB) Write(ctx context.Context, ws ...*Write) {
	if len(ws) == 0 {
		return
	}
	lax := true
	for _, w := range ws {
		lax = lax && w.Lax
	}
	q := db.pack(len(ws), func(e *encoder, i int, u *unit) {
		w := ws[i]
		u.tag, u.frees, u.write, u.class = w.Tag, w.Frees, true, classWrite
		if lax {
			u.class = classLax
		}
		e.write(w)
	})
	if err := db.run(ctx, q); err != nil {
		for _, w := range ws {
			w.Done, w.Replies, w.Answer = false, nil, Answer{Err: err}
		}
		return
	}
	conflicts := 0
	for i, w := range ws {
		w.Replies, w.Done, w.Answer = q.units[i].take(w.Replies, w.Do)
		if w.Err == nil && !w.Done {
			conflicts++
		}
	}
	db.config.Metrics.conflicts.Add(float64(conflicts))
}

// run sends a request and waits for its answers. An error is that of all units.
func (db *DB) run(ctx context.Context, q *request) error {
	if !db.enter() {
		return errClosed()
	}
	defer db.running.Done()
	if err := ctx.Err(); err != nil {
		return unavailable("store_unavailable", context.Cause(ctx))
	}
	now := time.Now()
	n := 0
	for i := range q.units {
		if q.units[i].answer.Err == nil {
			n++
		}
	}
	q.left.Store(int64(n))
	if n == 0 {
		return nil
	}
	if len(q.units) == 1 {
		u := &q.units[0]
		db.enqueue(&batch{of: q, units: []*unit{u}, since: now, until: now.Add(db.config.Timeout)})
	} else {
		var batches []*batch
		var lanes []*lane
	units:
		for i := range q.units {
			u := &q.units[i]
			if u.answer.Err != nil {
				continue
			}
			l := db.laneOf(u)
			for k, known := range lanes {
				if known == l {
					batches[k].units = append(batches[k].units, u)
					continue units
				}
			}
			lanes = append(lanes, l)
			b := &batch{of: q, units: make([]*unit, 0, len(q.units)/lanesOf[u.class]+4), since: now, until: now.Add(db.config.Timeout)}
			b.units = append(b.units, u)
			batches = append(batches, b)
		}
		for _, b := range batches {
			db.enqueue(b)
		}
	}
	select {
	case <-q.done:
		return nil
	case <-ctx.Done():
		q.abandoned.Store(true)
		return unavailable("store_unavailable", context.Cause(ctx))
	}
}

// enqueue hands a batch to the lane of its units, which all have the same one.
func (db *DB) enqueue(b *batch) {
	for {
		l := db.laneOf(b.units[0])
		if l == nil {
			db.again(b, fate{again: true, learn: true, err: errUnknown(errNobody)})
			return
		}
		if l.enqueue(b) {
			return
		}
	}
}
