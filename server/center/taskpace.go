package center

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"carillon/server/saver"
)

// setPace has the task go as fast as it is to go now.
func (r *taskRun) setPace() {
	r.mu.Lock()
	p, users, reach, common, shards := r.t.Pace, r.t.Run.Users, r.t.Run.Reach, r.t.Run.Common, r.t.Run.Shards
	r.mu.Unlock()
	if common {
		users = max(users, reach, int64(shards))
	}
	rate := p.PerSecond
	if p.Over > 0 {
		rate = max(float64(users)/p.Over.Seconds(), minPerSecond)
	}
	r.pace.set(rate)
}

// pacer lets things happen at a rate.
type pacer struct {
	clock interface{ Now() time.Time }

	mu   sync.Mutex
	rate float64   // a second; 0: as fast as they come. Guarded by mu
	next time.Time // when the next may happen; guarded by mu
}

// set changes the rate. What is waited for is waited for at the new one.
func (p *pacer) set(rate float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := p.clock.Now(); rate > 0 && p.rate > 0 && p.next.After(now) {
		p.next = now.Add(time.Duration(float64(p.next.Sub(now)) * p.rate / rate))
	}
	p.rate = rate
}

// most returns how much at most is done in one step.
func (p *pacer) most() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rate == 0 {
		return callBatches * saver.BatchMost
	}
	return min(max(int(p.rate/paceStep), 1), callBatches*saver.BatchMost)
}

// width is how many batches go to the store in one call: so many that a call takes callShort to callLong. Others wait behind a call of a task, and a store that
// has much to do takes longer for each.
type width struct{ n atomic.Int32 } // 0: not begun

const (
	firstWidth = 4
	callShort  = 4 * time.Millisecond
	callLong   = 8 * time.Millisecond
)

func (w *width) get() int {
	if n := w.n.Load(); n > 0 {
		return int(n)
	}
	return firstWidth
}

// took notes how long a call of that many batches took.
func (w *width) took(batches int, d time.Duration) {
	switch n := w.get(); {
	case batches < n: // there were no more
	case d > callLong:
		w.n.Store(int32(max(n/2, 1)))
	case d < callShort:
		w.n.Store(int32(min(n+1, callBatches)))
	}
}

// paceLook is how often who waits looks whether the rate has changed.
const paceLook = 200 * time.Millisecond

// wait waits until n may happen.
func (p *pacer) wait(ctx context.Context, n int, sleep func(context.Context, time.Duration) error) error {
	for {
		p.mu.Lock()
		now := p.clock.Now()
		wait := p.next.Sub(now)
		if p.rate == 0 || wait <= 0 {
			if p.rate > 0 {
				if wait < -time.Second/paceStep {
					p.next = now // nobody catches up on what was not done while there was nothing to do
				}
				p.next = p.next.Add(time.Duration(float64(n) / p.rate * float64(time.Second)))
			}
			p.mu.Unlock()
			return ctx.Err()
		}
		p.mu.Unlock()
		if err := sleep(ctx, min(wait, paceLook)); err != nil {
			return err
		}
	}
}
