package torture

import (
	"sync"
	"time"
)

// meter says how many messages have come due, at a rate. What comes due while nothing can be sent is sent later, as far as it is no older
// than backlog. It is safe for concurrent use.
type meter struct {
	rate float64 // messages a second; 0: none ever come due

	mu    sync.Mutex
	since time.Duration // guarded by mu; what came due is counted from here
	taken float64       // guarded by mu; what was sent of it
}

// backlog is for how long messages may wait that could not be sent. What was not sent by then is not offered any more: a rate beyond what
// the gateway bears does not pile up until the end of the run.
const backlog = 20 * time.Second

// add notes messages that are sent whether they are due or not.
func (m *meter) add(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.taken += float64(n)
}

// take takes up to so many messages that are due.
func (m *meter) take(now time.Duration, most int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	due := m.rate*(now-m.since).Seconds() - m.taken
	if old := due - m.rate*backlog.Seconds(); old > 0 {
		m.taken += old
		due -= old
	}
	n := max(0, min(int(due), most))
	m.taken += float64(n)
	return n
}
