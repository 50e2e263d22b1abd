package longpoll

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// DefaultWaiting is how many connections that came back may wait for an Accept, unless a [ListenerConfig] says otherwise.
const DefaultWaiting = 4096

// ListenerConfig sets up a [Listener].
type ListenerConfig struct {
	// Idle is how long a connection that came back may be silent before its next request begins; the server's IdleTimeout.
	// With 0 the server treats it as it treats a new one, which mostly has less time.
	Idle time.Duration
	// Again is told of a connection that came back, and whom it is of where that is not the socket's peer, before it is handed out.
	// What it returns is handed out in its place. nil: nobody is told.
	Again func(nc net.Conn, of net.Addr) net.Conn
	// Waiting bounds the connections that came back and wait for an Accept; one more is closed. Default DefaultWaiting.
	Waiting int
}

// Listener is a listener whose connections can come back. net/http gives a connection away for good when it is hijacked. A
// poll is hijacked while it waits, so that it costs no goroutine, and once it is answered its connection goes on serving
// requests, as a kept-alive connection does: the Listener hands it out once more, as if it were new.
//
// A server needs both, the Listener and its ConnContext, which tells the transport where a connection came from. Connections
// of another listener, and those that have no descriptor, wait in the goroutines of net/http.
//
// It is safe for concurrent use. Close ends it with all that wait.
type Listener struct {
	// Static after construction.
	inner net.Listener
	idle  time.Duration
	again func(net.Conn, net.Addr) net.Conn

	fresh chan accepted // from acceptAll; never closed
	back  chan net.Conn // what came back; never closed
	done  chan struct{} // closed by Close

	accepting sync.WaitGroup // acceptAll

	returned atomic.Int64
	turned   atomic.Int64

	mu sync.Mutex
	// Guarded by mu.
	started bool                       // acceptAll runs, or ran
	closed  bool                       // nothing is put into back any more
	quiet   map[*returnedConn]struct{} // those that came back and began no request yet
}

type accepted struct {
	nc  net.Conn
	err error
}

// NewListener returns a listener that hands out the connections of inner and those that come back. It owns inner.
func NewListener(inner net.Listener, cfg ListenerConfig) *Listener {
	if cfg.Waiting <= 0 {
		cfg.Waiting = DefaultWaiting
	}
	if cfg.Again == nil {
		cfg.Again = func(nc net.Conn, _ net.Addr) net.Conn { return nc }
	}
	return &Listener{
		inner: inner, idle: cfg.Idle, again: cfg.Again,
		fresh: make(chan accepted), back: make(chan net.Conn, cfg.Waiting), done: make(chan struct{}),
		quiet: make(map[*returnedConn]struct{}),
	}
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	if !l.start() {
		return nil, net.ErrClosed
	}
	select { // of several that are ready it takes any, so neither kind waits for the other
	case nc := <-l.back:
		return nc, nil
	case a := <-l.fresh:
		return a.nc, a.err
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// start has the inner listener asked; false once the listener is closed.
func (l *Listener) start() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	if !l.started {
		l.started = true
		l.accepting.Go(l.acceptAll)
	}
	return true
}

// acceptAll asks the inner listener for one connection after the other. Errors go to whoever accepts, who judges them.
func (l *Listener) acceptAll() {
	for {
		nc, err := l.inner.Accept()
		select {
		case l.fresh <- accepted{nc, err}:
		case <-l.done:
			if nc != nil {
				nc.Close()
			}
			return
		}
	}
}

// Close implements net.Listener. Connections that came back and began no request since are closed: a server that shuts down
// takes them for new ones and would give each five seconds.
func (l *Listener) Close() error {
	l.mu.Lock()
	first := !l.closed
	l.closed = true
	quiet := slices.Collect(maps.Keys(l.quiet))
	l.mu.Unlock()
	if !first {
		return net.ErrClosed
	}
	for _, c := range quiet {
		c.Close()
	}
	close(l.done)
	err := l.inner.Close()
	l.accepting.Wait()
	for {
		select {
		case nc := <-l.back:
			nc.Close()
		default:
			return err
		}
	}
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return l.inner.Addr() }

// Returned returns how many connections came back.
func (l *Listener) Returned() int64 { return l.returned.Load() }

// TurnedAway returns how many connections came back and were closed: the listener was closed, or too many waited.
func (l *Listener) TurnedAway() int64 { return l.turned.Load() }

// giveBack takes a connection and what was read of it, which becomes the beginning of what it reads. It does not block: one
// too many is closed.
//
// remote is whom it is of, if that is not the socket's peer; nil: it is.
func (l *Listener) giveBack(nc net.Conn, remote net.Addr, early []byte) {
	nc = l.again(nc, remote)
	c := &returnedConn{Conn: nc, l: l, remote: remote, early: early, began: len(early) > 0}
	l.returned.Add(1)
	l.mu.Lock()
	kept := !l.closed
	if kept {
		if len(early) == 0 {
			l.quiet[c] = struct{}{}
		}
		select {
		case l.back <- c: // whoever accepts owns it from here on
		default:
			kept = false
			delete(l.quiet, c)
		}
	}
	l.mu.Unlock()
	if !kept {
		l.turned.Add(1)
		nc.Close()
	}
}

// forget notes that a connection began a request, or ended.
func (l *Listener) forget(c *returnedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.quiet, c)
}

// homeKey is the key under which the context of a connection has its Listener.
type homeKey struct{}

// ConnContext is for the field of that name of the http.Server that serves the listener.
func (l *Listener) ConnContext(ctx context.Context, nc net.Conn) context.Context {
	inner := nc
	if back, ok := nc.(*returnedConn); ok {
		inner = back.Conn
	}
	if _, ok := inner.(syscall.Conn); !ok {
		return ctx // it cannot be parked, and need not come back
	}
	return context.WithValue(ctx, homeKey{}, l)
}

// homeOf returns the listener to which a connection can come back, nil if there is none.
func homeOf(ctx context.Context) *Listener {
	l, _ := ctx.Value(homeKey{}).(*Listener)
	return l
}

// returnedConn is a connection that came back.
type returnedConn struct {
	// Static after construction.
	net.Conn
	l      *Listener
	remote net.Addr // nil: the socket's peer

	// Owned by whoever reads.
	early []byte // was read before, and comes first

	// Owned by the server's goroutine until the first byte was read, and static from then on.
	began  bool          // a request has: something of it was read
	header time.Duration // from the first byte on; 0: nothing was said
}

// RemoteAddr implements net.Conn. What a listener has learned of the client (by the PROXY protocol) holds as long as the
// connection: the address of the proxy would be trusted where the client's is not.
func (c *returnedConn) RemoteAddr() net.Addr {
	if c.remote != nil {
		return c.remote
	}
	return c.Conn.RemoteAddr()
}

// remoteOf returns whom a connection is of, nil if it says so itself.
func remoteOf(nc net.Conn) net.Addr {
	if w, ok := nc.(interface{ NetConn() net.Conn }); ok {
		nc = w.NetConn() // what only watches it says of whom it is as the socket does
	}
	switch nc := nc.(type) {
	case *net.TCPConn:
		return nil
	case *returnedConn:
		return nc.remote
	}
	return nc.RemoteAddr()
}

// Read implements net.Conn.
func (c *returnedConn) Read(p []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(p, c.early)
		if c.early = c.early[n:]; len(c.early) == 0 {
			c.early = nil
		}
		return n, nil
	}
	n, err := c.Conn.Read(p)
	if n > 0 && !c.began {
		c.began = true
		c.l.forget(c)
		if c.header > 0 {
			if err := c.Conn.SetReadDeadline(time.Now().Add(c.header)); err != nil {
				return n, err
			}
		}
	}
	return n, err
}

// Close implements net.Conn.
func (c *returnedConn) Close() error {
	c.l.forget(c)
	return c.Conn.Close()
}

// SetReadDeadline implements net.Conn. A server allows a new connection the time of a header for its first request. One that
// came back is not new: it has the time of a kept-alive one until that request begins, and then the header's.
func (c *returnedConn) SetReadDeadline(t time.Time) error {
	if !c.began {
		c.header = 0
		if d := time.Until(t); d > 0 && c.l.idle > d {
			c.header = d
			t = t.Add(c.l.idle - d)
		}
	}
	return c.Conn.SetReadDeadline(t)
}

// SyscallConn implements syscall.Conn. While something has been read that nobody has seen, the descriptor would be missing it.
func (c *returnedConn) SyscallConn() (syscall.RawConn, error) {
	sc, ok := c.Conn.(syscall.Conn)
	if !ok || len(c.early) > 0 {
		return nil, errors.ErrUnsupported
	}
	return sc.SyscallConn()
}

// CloseWrite ends our direction, for a server that lingers.
func (c *returnedConn) CloseWrite() error {
	w, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return w.CloseWrite()
}

// SetLinger is that of net.TCPConn, for transports that reset.
func (c *returnedConn) SetLinger(seconds int) error {
	s, ok := c.Conn.(interface{ SetLinger(seconds int) error })
	if !ok {
		return errors.ErrUnsupported
	}
	return s.SetLinger(seconds)
}
