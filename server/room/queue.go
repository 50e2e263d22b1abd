package room

import (
	"carillon/server/transport"
	"carillon/server/wire"
)

// queue is what waits for one client. It is bounded in frames and bytes by its owner, which asks fits first; control
// frames (everything that is not a message) always fit, since their number is bounded by what causes them. An empty queue
// holds no memory. Guarded by session.mu.
type queue struct {
	outs  []wire.Out
	head  int
	bytes int
}

func (q *queue) len() int    { return len(q.outs) - q.head }
func (q *queue) empty() bool { return q.head == len(q.outs) }

// fits reports whether n more bytes in one message stay within the limits. An empty queue takes anything.
func (q *queue) fits(n, maxOuts, maxBytes int) bool {
	return q.empty() || q.len() < maxOuts && q.bytes+n <= maxBytes
}

func (q *queue) push(o wire.Out) {
	if q.head > 0 && len(q.outs) == cap(q.outs) { // make room at the front before growing
		n := copy(q.outs, q.outs[q.head:])
		clear(q.outs[n:])
		q.outs, q.head = q.outs[:n], 0
	}
	q.outs = append(q.outs, o)
	q.bytes += o.Size()
}

// dropOldestLive gives up the oldest non-persistent message and reports whether there was one.
func (q *queue) dropOldestLive() bool {
	for i := q.head; i < len(q.outs); i++ {
		o := &q.outs[i]
		if o.Shared == nil || o.Shared.Message().Persistent {
			continue
		}
		q.bytes -= o.Size()
		copy(q.outs[q.head+1:i+1], q.outs[q.head:i]) // shift the ones before it
		q.outs[q.head] = wire.Out{}
		q.head++
		if q.empty() {
			*q = queue{}
		}
		return true
	}
	return false
}

// take moves as much as the batch may hold, calling each for every frame, and frees the memory when nothing is left.
func (q *queue) take(b *transport.Batch, each func(*wire.Out)) {
	for !q.empty() && !b.Full() {
		o := &q.outs[q.head]
		n := o.Size()
		b.Outs = append(b.Outs, *o)
		b.Size += n
		q.bytes -= n
		each(o)
		*o = wire.Out{}
		q.head++
	}
	if q.empty() {
		*q = queue{}
	}
}
