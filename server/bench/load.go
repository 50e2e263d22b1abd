package bench

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"carillon/server/bench/swarm"
)

// load is requests that go out side by side for some time, or up to a number, as fast as they are answered and a window lets them,
// or at an even rate.
type load struct {
	senders  int
	duration time.Duration   // 0: until most are sent
	until    <-chan struct{} // closed when it is to end, in place of duration; nil: duration counts
	most     uint64          // requests; 0: as many as there is time for
	window   *window         // nil: an answer is all that is waited for
	each     int             // how much of the window a request takes
	every    time.Duration   // between two requests of a sender; 0: as soon as the one before is answered
	// send makes and sends a request; seq rises from 0.
	send func(ctx context.Context, seq uint64) error
}

// sent is what a load came to.
type sent struct {
	requests uint64
	answers  swarm.Latency // time to the answer
	meter                  // until the last message had arrived
}

// loaded runs a load and waits until what it sent has arrived. The first error ends it.
func (w *world) loaded(ctx context.Context, what string, l load) (sent, error) {
	var out sent
	before, err := w.read()
	if err != nil {
		return out, err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	sending, stop := context.WithCancel(ctx)
	if l.duration > 0 && l.until == nil {
		sending, stop = context.WithTimeout(ctx, l.duration)
	}
	defer stop()

	var seq atomic.Uint64
	var mu sync.Mutex // guards out.answers
	var senders sync.WaitGroup
	for range l.senders {
		senders.Go(func() {
			answers, err := l.loop(ctx, sending, &seq)
			if err != nil {
				fail(err)
			}
			mu.Lock()
			defer mu.Unlock()
			out.answers.Merge(answers)
		})
	}
	if l.until != nil {
		select {
		case <-l.until:
		case <-ctx.Done():
		}
		stop()
	} else if l.most > 0 {
		w.watch(&senders, what, l.most, &seq)
	} else {
		err = w.wait(ctx, l.duration, what)
	}
	senders.Wait()
	if err != nil {
		return out, err
	}
	if err := context.Cause(ctx); err != nil {
		return out, err
	}
	out.requests = out.answers.N
	if out.meter, err = w.since(before); err != nil || l.window == nil {
		return out, err
	}
	arrived, err := l.window.drain(ctx)
	if err != nil {
		return out, err
	}
	if n := l.window.stalls(); n > 0 || !arrived {
		w.note("%s: some messages never arrived; it was waited for them in vain, which is left out of the rate at its end only", what)
		return out, nil
	}
	out.meter, err = w.since(before)
	return out, err
}

// loop is one sender, until sending is over.
func (l *load) loop(ctx, sending context.Context, seq *atomic.Uint64) (answers swarm.Latency, err error) {
	var tick *time.Ticker
	if l.every > 0 {
		tick = time.NewTicker(l.every)
		defer tick.Stop()
	}
	for sending.Err() == nil {
		if tick != nil {
			select {
			case <-tick.C:
			case <-sending.Done():
				return answers, nil
			}
		}
		if l.window != nil {
			if err := l.window.acquire(sending, l.each); err != nil {
				break
			}
		}
		n := seq.Add(1) - 1
		if l.most > 0 && n >= l.most {
			break
		}
		began := time.Now()
		if err := l.send(ctx, n); err != nil {
			return answers, fmt.Errorf("request %d: %w", answers.N, err)
		}
		answers.Add(time.Since(began))
	}
	return answers, nil
}

// watch tells how many requests were sent until the senders are done.
func (w *world) watch(senders *sync.WaitGroup, what string, most uint64, seq *atomic.Uint64) {
	done := make(chan struct{})
	go func() {
		senders.Wait()
		close(done)
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		w.progress("%s, request %d of %d", what, min(seq.Load(), most), most)
		select {
		case <-done:
			return
		case <-tick.C:
		}
	}
}
