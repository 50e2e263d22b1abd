package forwarded

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	// headerTime is how long a trusted proxy has for its header, which it sends at once.
	headerTime = 5 * time.Second
	// maxUnread is how many connections may be without their header at once; more wait in the kernel.
	maxUnread = 1024
)

// Listen returns l where no PROXY protocol is spoken. Otherwise it returns a listener whose connections from trusted proxies
// have given up their header, and have the address that it names; one without a header is closed. Connections of others
// are as they were. A connection passes its socket on (SyscallConn), since nothing is read ahead of what it carries.
func (p *Proxies) Listen(l net.Listener, log *slog.Logger) net.Listener {
	if p.source != ProxyV2 {
		return l
	}
	return &listener{
		Listener: l, proxies: p, log: log, ready: make(chan accepted), done: make(chan struct{}),
		unread: make(chan struct{}, maxUnread), pending: make(map[net.Conn]struct{}),
	}
}

// listener reads headers beside each other, so that a proxy that is slow holds up nobody.
type listener struct {
	// Static after construction.
	net.Listener
	proxies *Proxies
	log     *slog.Logger
	ready   chan accepted
	unread  chan struct{} // one token for each connection without its header
	done    chan struct{} // closed by Close

	start   sync.Once
	running sync.WaitGroup // added to by Accept's first call, and by the goroutine that it started

	mu sync.Mutex
	// Guarded by mu.
	pending map[net.Conn]struct{} // connections without their header; nil once closed
}

type accepted struct {
	conn net.Conn
	err  error
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	l.start.Do(l.begin)
	select {
	case a := <-l.ready:
		return a.conn, a.err
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// begin starts the goroutine that accepts, unless the listener was closed first.
func (l *listener) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending != nil {
		l.running.Go(l.serve)
	}
}

// Close implements net.Listener. It waits for the listener's goroutines.
func (l *listener) Close() error {
	l.mu.Lock()
	pending := l.pending
	l.pending = nil
	l.mu.Unlock()
	err := l.Listener.Close()
	if pending == nil {
		return err
	}
	close(l.done)
	for c := range pending {
		c.Close()
	}
	l.running.Wait()
	return err
}

func (l *listener) serve() {
	for {
		c, err := l.Listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			l.hand(accepted{err: err}) // http.Server waits a little after an error, and so do we
		case !l.proxies.Trusts(addrPortOf(c.RemoteAddr()).Addr()):
			l.hand(accepted{conn: c})
		default:
			select {
			case l.unread <- struct{}{}:
				l.running.Go(func() { l.read(c) })
			case <-l.done:
				c.Close()
			}
		}
	}
}

// hand gives a connection to Accept, or closes it.
func (l *listener) hand(a accepted) {
	select {
	case l.ready <- a:
	case <-l.done:
		if a.conn != nil {
			a.conn.Close()
		}
	}
}

// read takes the header off a connection.
func (l *listener) read(c net.Conn) {
	if !l.note(c) {
		<-l.unread
		c.Close()
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(headerTime)) // where it fails so does the read
	from, err := readProxyV2(c)
	if err == nil {
		err = c.SetReadDeadline(time.Time{})
	}
	l.forget(c)
	<-l.unread
	if err != nil {
		l.log.Debug("forwarded: a connection was closed", "proxy", c.RemoteAddr().String(), "error", err)
		c.Close()
		return
	}
	if !from.IsValid() {
		l.hand(accepted{conn: c})
		return
	}
	l.hand(accepted{conn: &conn{Conn: c, from: net.TCPAddrFromAddrPort(from)}})
}

// note reports false once the listener is closed.
func (l *listener) note(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending == nil {
		return false
	}
	l.pending[c] = struct{}{}
	return true
}

func (l *listener) forget(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pending, c)
}

// conn is a connection with the address that its proxy named. What transports ask of a socket it passes on.
type conn struct {
	net.Conn
	from *net.TCPAddr
}

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return c.from }

// SyscallConn implements syscall.Conn. The error is errors.ErrUnsupported where the connection has no descriptor.
func (c *conn) SyscallConn() (syscall.RawConn, error) {
	s, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("forwarded: socket of a %T: %w", c.Conn, errors.ErrUnsupported)
	}
	return s.SyscallConn()
}

// CloseWrite tells the peer that nothing more comes.
func (c *conn) CloseWrite() error {
	w, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return fmt.Errorf("forwarded: half of a %T: %w", c.Conn, errors.ErrUnsupported)
	}
	return w.CloseWrite()
}

// SetLinger says what becomes of bytes that were not delivered when the connection closes.
func (c *conn) SetLinger(seconds int) error {
	s, ok := c.Conn.(interface{ SetLinger(int) error })
	if !ok {
		return nil // nothing lingers
	}
	return s.SetLinger(seconds)
}
