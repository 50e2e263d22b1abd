package simulation

import (
	"sync"
	"time"

	"carillon/server/transport"
	"carillon/server/wire"
)

// near is what every connection has of the room's side: the session, and what it asks for. Its mutex is that of the whole
// connection.
type near struct {
	// Static after construction.
	pump, end *lane  // of Wake, and of Close and Cut: each is called by one goroutine at a time
	down      *lane  // driver only
	work      func() // writes what the session has. Driver.

	// Owned by the driver.
	sess transport.Session // nil before it is accepted and after Closed
	over bool              // the session was told Closed, or never existed

	mu sync.Mutex
	// Guarded by mu.
	pumping bool           // work is due
	code    wire.CloseCode // the session wants to end with it
}

// Wake has the server's side write soon.
func (n *near) Wake(transport.Share) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pumpLocked(n.pump)
}

func (n *near) pumpLocked(l *lane) {
	if !n.pumping {
		n.pumping = true
		l.after(l.between(0, 2*time.Millisecond), n.work)
	}
}

// Close has it write what is queued, and then say goodbye.
func (n *near) Close(code wire.CloseCode) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.code == 0 {
		n.code = code
	}
	n.pumpLocked(n.end)
}

// finish tells the session that it is over. Driver.
func (n *near) finish(code wire.CloseCode) {
	if n.over {
		return
	}
	n.over = true
	sess := n.sess
	n.sess = nil
	n.mu.Lock()
	if n.code != 0 {
		code = n.code
	}
	n.mu.Unlock()
	if sess != nil {
		sess.Closed(code)
	}
}

func (n *near) events() *lane { return n.down }

// far is what every connection has of the client's side: what came, for the client's reader to take. It is guarded by the
// connection's mutex, but for ready.
type far struct {
	frozen bool // the client's side does not read
	inbox  []item
	err    error         // the last word to the client's reader
	gone   bool          // the client's side ended it
	ready  chan struct{} // room for one
}

func (f *far) signal() {
	select {
	case f.ready <- struct{}{}:
	default:
	}
}

// takeLocked takes the next thing that came; ok is false while there is none.
func (f *far) takeLocked() (it item, ok bool, err error) {
	switch {
	case f.gone:
		return it, false, errCut
	case f.frozen:
		return it, false, nil
	case len(f.inbox) == 0:
		return it, false, f.err
	}
	it = f.inbox[0]
	f.inbox = f.inbox[1:]
	return it, true, nil
}
