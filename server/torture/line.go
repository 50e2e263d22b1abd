package torture

import (
	"net"
	"sync"
	"time"
)

// past is a deadline that is over.
var past = time.Unix(1, 0)

// lines are the connections of a device. All methods are safe for concurrent use.
type lines struct {
	mu   sync.Mutex
	open map[*line]bool // guarded by mu
}

// line is one of them. A dead one loses what is sent over it either way, and closing it is not told to the server.
type line struct {
	net.Conn
	of   *lines
	gone chan struct{} // closed by Close

	// Guarded by of.mu.
	dead   bool
	closed bool
}

func (ls *lines) add(nc net.Conn) *line {
	l := &line{Conn: nc, of: ls, gone: make(chan struct{})}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.open == nil {
		ls.open = make(map[*line]bool)
	}
	ls.open[l] = true
	return l
}

// kill has the connections that there are go dead. Those that died before end now, so that a device has a few at most.
func (ls *lines) kill() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for l := range ls.open {
		if l.dead {
			_ = l.Conn.Close()
			delete(ls.open, l)
		}
		l.dead = true
	}
}

// end ends all connections.
func (ls *lines) end() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for l := range ls.open {
		_ = l.Conn.Close()
	}
	clear(ls.open)
}

func (l *line) isDead() bool {
	l.of.mu.Lock()
	defer l.of.mu.Unlock()
	return l.dead
}

// Read reads what comes while the line lives. Of a dead one nothing comes, not even its end; a deadline does.
func (l *line) Read(b []byte) (int, error) {
	for {
		n, err := l.Conn.Read(b)
		if !l.isDead() {
			return n, err
		}
		if t, ok := err.(net.Error); ok && t.Timeout() {
			return 0, err
		}
		if err != nil {
			<-l.gone
			return 0, net.ErrClosed
		}
	}
}

// Write writes, or makes believe that it did.
func (l *line) Write(b []byte) (int, error) {
	if l.isDead() {
		return len(b), nil
	}
	return l.Conn.Write(b)
}

// Close ends the line. What is dead stays open at the other side until the device is gone, or another one dies.
func (l *line) Close() error {
	l.of.mu.Lock()
	defer l.of.mu.Unlock()
	if l.closed {
		return net.ErrClosed
	}
	l.closed = true
	close(l.gone)
	if l.dead {
		return l.Conn.SetReadDeadline(past)
	}
	delete(l.of.open, l)
	return l.Conn.Close()
}
