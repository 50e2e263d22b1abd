package room

import (
	"slices"
	"sync"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/wire"
)

// queue is what waits for one client. It is bounded in frames and bytes by its owner, which asks fits first; control
// frames (everything that is not a message) always fit, since their number is bounded by what causes them. An empty queue
// is one nil pointer: the memory is lent from a pool that all queues share, so that a broadcast to everyone makes no
// garbage. Guarded by session.mu.
type queue struct{ *pending }

// pending is what a queue that is not empty holds.
type pending struct {
	outs []wire.Out
	head int
	size int // bytes from head on
	one  [1]wire.Out
}

// pooledOuts is how many frames an idle pending keeps room for; with room for more it goes to the collector.
const pooledOuts = 16

var pendings = sync.Pool{New: func() any {
	p := &pending{}
	p.outs = p.one[:0] // most queues never hold two
	return p
}}

func (q queue) len() int {
	if q.pending == nil {
		return 0
	}
	return len(q.outs) - q.head
}

func (q queue) bytes() int {
	if q.pending == nil {
		return 0
	}
	return q.size
}

func (q queue) empty() bool { return q.pending == nil }

// fits reports whether n more bytes in one message stay within the limits. An empty queue takes anything.
func (q queue) fits(n, maxOuts, maxBytes int) bool {
	return q.empty() || q.len() < maxOuts && q.size+n <= maxBytes
}

// last returns the frame that was queued last, nil if the queue is empty.
func (q queue) last() *wire.Out {
	if q.empty() {
		return nil
	}
	return &q.outs[len(q.outs)-1]
}

// isGoodbye reports whether nothing waits but a goaway.
func (q queue) isGoodbye() bool {
	if q.len() != 1 {
		return false
	}
	_, ok := q.outs[q.head].Frame.(*wire.Goaway)
	return ok
}

// first returns the position of the oldest frame of a slot, 0 if there is none.
func (q queue) first(k push.SlotKind) push.Position {
	if q.empty() {
		return 0
	}
	for i := range q.outs[q.head:] {
		if o := &q.outs[q.head+i]; o.Pos > 0 && o.Slot == k {
			return o.Pos
		}
	}
	return 0
}

func (q *queue) push(o wire.Out) {
	if q.pending == nil {
		q.pending = pendings.Get().(*pending)
	}
	if q.head > 0 && len(q.outs) == cap(q.outs) { // make room at the front before growing
		n := copy(q.outs, q.outs[q.head:])
		clear(q.outs[n:])
		q.outs, q.head = q.outs[:n], 0
	}
	if len(q.outs) == cap(q.outs) && len(q.outs) < pooledOuts { // whoever gets a second message often gets many
		q.outs = slices.Grow(q.outs, 3*len(q.outs))
		clear(q.one[:]) // which they may have moved out of
	}
	q.outs = append(q.outs, o)
	q.size += o.Size()
}

// dropOldestLive gives up the oldest non-persistent message and returns it; nil: there was none.
func (q *queue) dropOldestLive() *push.Message {
	if q.empty() {
		return nil
	}
	for i := q.head; i < len(q.outs); i++ {
		o := &q.outs[i]
		if o.Shared == nil || o.Shared.Message().Persistent {
			continue
		}
		m := o.Shared.Message()
		q.size -= o.Size()
		copy(q.outs[q.head+1:i+1], q.outs[q.head:i]) // shift the ones before it
		q.outs[q.head] = wire.Out{}
		q.head++
		if q.head == len(q.outs) {
			q.drop()
		}
		return m
	}
	return nil
}

// take moves as much as the batch may hold, and gives the memory back when nothing is left.
func (q *queue) take(b *transport.Batch) {
	if q.empty() {
		return
	}
	from := q.head
	for ; q.head < len(q.outs) && !b.Full(); q.head++ {
		o := &q.outs[q.head]
		n := o.Size()
		b.Outs = append(b.Outs, *o)
		b.Size += n
		q.size -= n
	}
	clear(q.outs[from:q.head])
	if q.head == len(q.outs) {
		q.drop()
	}
}

// drop empties the queue.
func (q *queue) drop() {
	p := q.pending
	if p == nil {
		return
	}
	q.pending = nil
	clear(p.outs[p.head:])
	if p.outs, p.head, p.size = p.outs[:0], 0, 0; cap(p.outs) > pooledOuts {
		p.outs = p.one[:0]
	}
	pendings.Put(p)
}
