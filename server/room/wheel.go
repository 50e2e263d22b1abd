package room

import (
	"sync"
	"time"
)

// wheel is a hashed timing wheel: arming and firing cost the same whatever is armed, and a session that waits owns no
// timer. An entry fires on the first tick at or after its deadline, so up to one tick late and never early.
//
// Deadlines are moments of the room, which began when the wheel did.
//
// Fire functions run on the wheel's goroutine, without its lock; they may arm the entry again.
type wheel struct {
	tick  time.Duration
	start time.Time
	fire  func(*session, time.Time)

	mu    sync.Mutex
	now   int32 // the tick that was fired last
	slots []*session
}

// wheelEntry is a session's place in the wheel. Guarded by wheel.mu.
type wheelEntry struct {
	prev, next *session
	at         int32 // tick to fire at; 0: not armed
}

const wheelSlots = 1024

func newWheel(start time.Time, tick time.Duration, fire func(*session, time.Time)) *wheel {
	return &wheel{tick: tick, start: start, fire: fire, slots: make([]*session, wheelSlots)}
}

// arm sets the session's deadline, in place of an earlier one. Callers hold session.mu and have seen that it is not closed,
// so that none is armed after its end.
func (w *wheel) arm(s *session, at moment) {
	w.mu.Lock()
	w.unlinkLocked(s)
	w.linkLocked(s, at)
	w.mu.Unlock()
}

// disarm forgets the session. A fire that is under way may still run once.
func (w *wheel) disarm(s *session) {
	w.mu.Lock()
	w.unlinkLocked(s)
	w.mu.Unlock()
}

func (w *wheel) linkLocked(s *session, at moment) {
	n := int32((time.Duration(at) + w.tick - 1) / w.tick)
	n = max(n, w.now+1)
	e := &s.timer
	e.at = n
	head := &w.slots[n%wheelSlots]
	e.prev, e.next = nil, *head
	if *head != nil {
		(*head).timer.prev = s
	}
	*head = s
}

func (w *wheel) unlinkLocked(s *session) {
	e := &s.timer
	if e.at == 0 {
		return
	}
	if e.prev != nil {
		e.prev.timer.next = e.next
	} else {
		w.slots[e.at%wheelSlots] = e.next
	}
	if e.next != nil {
		e.next.timer.prev = e.prev
	}
	*e = wheelEntry{}
}

// advance fires everything that is due at now. Only one goroutine calls it.
func (w *wheel) advance(now time.Time, due []*session) []*session {
	target := int32(now.Sub(w.start) / w.tick)
	for {
		due = due[:0]
		w.mu.Lock()
		if w.now >= target {
			w.mu.Unlock()
			return due
		}
		// After a long stop of the process one round over all slots is enough: entries compare their own tick.
		if target-w.now > wheelSlots {
			w.now = target - wheelSlots
		}
		w.now++
		for s := w.slots[w.now%wheelSlots]; s != nil; {
			next := s.timer.next
			if s.timer.at <= target {
				w.unlinkLocked(s)
				due = append(due, s)
			}
			s = next
		}
		w.mu.Unlock()
		for _, s := range due {
			w.fire(s, now)
		}
		clear(due)
	}
}

// count returns how many sessions are armed, by walking: for tests.
func (w *wheel) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, s := range w.slots {
		for ; s != nil; s = s.timer.next {
			n++
		}
	}
	return n
}
