package room

import (
	"context"
	"sync"
	"time"
)

// An operator may bound what broadcasts take of a node and of the network behind it: Config.Pace is how many messages a second a room
// hands to its sessions in bulk. What is for one user, pongs, pings and what a session reads for itself are not counted, and do not
// wait: while a worker waits for its turn, it does what comes in directly.
//
// The pace is that of one room. Rooms do not agree with each other about it: a broadcast takes as long as the room with the most
// sessions needs, and a cluster hands out as much as all of its rooms together. So that they do not all begin at the moment at which
// they hear of it, each waits for a random part of paceTick first.

// paceTick is how much of a second goes out at once: a chunk is about what the pace allows in it, and so much can be saved up.
const paceTick = 100 * time.Millisecond

// pacer is a token bucket that all workers of a room share. It is kept as the moment at which all that was handed out is paid for. What a
// chunk brings is known afterwards, since sessions pass over what is not for them: so it goes out once all before it is paid for,
// and is paid for behind itself.
type pacer struct {
	perSecond int // static; 0: there is no pace

	mu   sync.Mutex
	paid moment // guarded by mu
}

// chunk returns how many sessions are handed that many messages each before the next look at the pace and at the direct inbox.
func (p *pacer) chunk(messages int) int {
	if p.perSecond == 0 {
		return bulkChunk
	}
	atOnce := int(int64(p.perSecond) * int64(paceTick) / int64(time.Second))
	return max(1, min(bulkChunk, atOnce/max(1, messages)))
}

// begin notes that a pass begins. After a pause it waits for the phase, which is below paceTick.
func (p *pacer) begin(now moment, phase time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.paid <= now.add(-paceTick) {
		p.paid = now.add(phase)
	}
}

// wait returns how long it takes until more may go out; at most zero: nothing.
func (p *pacer) wait(now moment) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Duration(p.paid - now)
}

// spend notes that so many messages went out.
func (p *pacer) spend(now moment, messages int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paid = max(p.paid, now.add(-paceTick)).add(time.Duration(int64(messages) * int64(time.Second) / int64(p.perSecond)))
}

// awaitPace waits until more may go out in bulk, and does meanwhile what comes in directly. It reports whether to go on.
func (f *fanout) awaitPace(ctx context.Context) bool {
	for ctx.Err() == nil {
		wait := f.room.pace.wait(f.room.now())
		if wait <= 0 {
			return true
		}
		f.deliverUntil(ctx, wait)
	}
	return false
}

// deliverUntil does what the direct inbox holds and what comes in, for so long or until ctx ends.
func (f *fanout) deliverUntil(ctx context.Context, wait time.Duration) {
	over := make(chan struct{})
	t := f.room.cfg.Clock.AfterFunc(wait, func() { close(over) })
	defer t.Stop()
	for {
		f.deliverDirect()
		select {
		case <-ctx.Done():
			return
		case <-over:
			return
		case <-f.ready: // or what came in is in bulk, and found when the pass is over
		}
	}
}
