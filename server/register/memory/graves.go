package memory

import (
	"sync"
	"sync/atomic"
)

// How many sessions of ended lives a call clears away. Two at each insert are enough to keep up: a device that comes
// back takes the place of its old session by itself.
const (
	clearAtInsert = 2
	clearAtRenew  = 4096
)

// graves are the lives that ended and still have sessions in the stripes.
type graves struct {
	some atomic.Bool // whether there is anything to clear; read without the lock

	mu     sync.Mutex
	lives  []*life // guarded by mu
	stripe int     // guarded by mu; stripes of lives[0] below it are clear
}

func (g *graves) add(l *life) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lives = append(g.lives, l)
	g.some.Store(true)
}

// clear takes up to n sessions of ended lives out of the stripes. It passes over a bounded number of empty stripes and
// leaves the rest to later calls; when somebody else is clearing it does nothing.
func (r *Register) clear(n int) {
	g := &r.graves
	if !g.some.Load() || !g.mu.TryLock() {
		return
	}
	defer g.mu.Unlock()
	for steps := n + 8; steps > 0 && len(g.lives) > 0; steps-- {
		done := r.clearStripe(g.lives[0], g.stripe, &n)
		if n == 0 {
			return
		}
		if !done {
			continue
		}
		if g.stripe++; g.stripe == stripeCount {
			g.lives[0] = nil
			g.lives, g.stripe = g.lives[1:], 0
		}
	}
	g.some.Store(len(g.lives) > 0)
}

// clearStripe clears up to n sessions of one stripe, counts n down, and reports whether the stripe is clear.
func (r *Register) clearStripe(l *life, i int, n *int) bool {
	st := &r.stripes[i]
	st.mu.Lock()
	defer st.mu.Unlock()
	for ; *n > 0 && l.lists[i] != nil; *n-- {
		e := l.lists[i]
		st.unlinkLocked(r.hash(e.counts.product, e.user), i, e)
	}
	return l.lists[i] == nil
}
