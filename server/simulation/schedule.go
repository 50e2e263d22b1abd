package simulation

import (
	"container/heap"
	"hash/fnv"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing/synctest"
	"time"
)

// schedule is the only source of progress in a simulated world: everything that happens later (a frame arrives, a timer
// runs out, a store answers) is an event in it. The driver takes them one at a time and waits until nothing moves any
// more before it takes the next.
//
// Two events of one moment come in the order of their lanes, and within a lane in the order in which they were asked
// for: so it does not matter which of two goroutines that ran at once asked first, as long as they ask in different lanes.
type schedule struct {
	began time.Time // static
	seed  uint64    // static

	mu     sync.Mutex
	events eventHeap // guarded by mu

	// Owned by the driver.
	count       int           // events that happened
	interrupted int           // of them, those in whose middle another goroutine may have been given the processor
	wall        time.Duration // the real time when the last was over
}

// event is something that will happen.
type event struct {
	s     *schedule
	at    time.Duration // since the world began
	lane  uint64
	seq   uint64
	do    func()
	index int // in the heap; below 0: happened, or cancelled. Guarded by schedule.mu
}

// lane is one stream of events and of randomness: a direction of a connection, a device's clock, a sender. Its name, and
// nothing about the order of goroutines, decides what it draws. A lane is used by one goroutine at a time.
type lane struct {
	*rand.Rand
	s    *schedule
	name string
	id   uint64
	seq  uint64 // guarded by schedule.mu
}

func newSchedule(seed uint64) *schedule { return &schedule{began: time.Now(), seed: seed} }

// now is the time since the world began.
func (s *schedule) now() time.Duration { return time.Since(s.began) }

func (s *schedule) lane(name string) *lane {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	id := h.Sum64()
	return &lane{Rand: rand.New(rand.NewPCG(s.seed, id)), s: s, id: id, name: name}
}

// sub is a lane of the same owner.
func (l *lane) sub(name string) *lane { return l.s.lane(l.name + "/" + name) }

// after has f happen once d has passed. f runs on the driver's goroutine and must not wait for anything but locks.
func (l *lane) after(d time.Duration, f func()) *event {
	at := l.s.now() + max(d, 0)
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.seq++
	e := &event{s: l.s, at: at, lane: l.id, seq: l.seq, do: f}
	heap.Push(&l.s.events, e)
	return e
}

// between draws a duration from [lo, hi).
func (l *lane) between(lo, hi time.Duration) time.Duration {
	if hi <= lo {
		return lo
	}
	return lo + time.Duration(l.Int64N(int64(hi-lo)))
}

// chance reports true once in n draws on average; never if n is 0.
func (l *lane) chance(n int) bool { return n > 0 && l.IntN(n) == 0 }

// cancel keeps the event from happening and reports whether it could.
func (e *event) cancel() bool {
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	if e.index < 0 {
		return false
	}
	heap.Remove(&e.s.events, e.index)
	return true
}

// next takes the next event due until then; nil if there is none.
func (s *schedule) next(until time.Duration) (e *event, at time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.events) == 0 || s.events[0].at > until {
		return nil, until
	}
	if at := s.events[0].at; at > s.now() {
		return nil, at
	}
	return heap.Pop(&s.events).(*event), 0
}

// run lets everything happen that is due until then. What is overdue, after a jump, happens in its order, late.
func (s *schedule) run(until time.Duration) {
	for {
		e, at := s.next(until)
		switch {
		case e != nil:
			s.count++
			// Each step has a turn of its own. Goroutines that hand the processor to one another, as those of a step do, use up one turn
			// together, and so would step after step, until the runtime takes the processor from one in the middle.
			runtime.Gosched()
			e.do()
			synctest.Wait()
			s.noteInterruption()
		case at > s.now():
			time.Sleep(at - s.now()) // the bubble's own timers, such as deadlines of contexts, have their turn meanwhile
			synctest.Wait()
		default:
			return
		}
	}
}

// turn is how long the runtime lets a goroutine have its processor. One that was off the machine's processor for so long in the middle of a
// step counts as having had it, and waits behind the others that can run. Nothing can be done about that but know of it.
const turn = 8 * time.Millisecond

func (s *schedule) noteInterruption() {
	now := wallClock()
	if s.wall != 0 && now-s.wall > turn {
		s.interrupted++
	}
	s.wall = now
}

type eventHeap []*event

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	a, b := h[i], h[j]
	if a.at != b.at {
		return a.at < b.at
	}
	if a.lane != b.lane {
		return a.lane < b.lane
	}
	return a.seq < b.seq
}
func (h eventHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *eventHeap) Push(x any) {
	e := x.(*event)
	e.index = len(*h)
	*h = append(*h, e)
}
func (h *eventHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	e.index = -1
	return e
}
