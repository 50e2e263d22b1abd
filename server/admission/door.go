package admission

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
)

// DoorConfig says how many connections may be open, before anything is read of them. A limit of 0 is none.
type DoorConfig struct {
	// Connections are those of the node at a time, sessions included.
	Connections int
	// PerAddress are those of one address at a time that carry no session: handshakes, requests, and connections that are kept
	// for the next request. Sessions have their own limit (Config.PerAddress).
	PerAddress int
	// Spared says which addresses are those of proxies that speak for many: they are limited as a whole, in Connections alone.
	// nil: none.
	Spared func(netip.Addr) bool
}

// Door stands before the listeners of clients. What it does not let in is closed as soon as it is accepted. All methods are safe
// for concurrent use.
type Door struct {
	// Static after construction.
	cfg     DoorConfig
	gate    *Gate
	holders *holders // nil: no limit by address

	open atomic.Int64 // connections that carry no session
}

// NewDoor returns the door before a gate: what the gate knows of addresses holds here too.
func NewDoor(g *Gate, cfg DoorConfig) (*Door, error) {
	if cfg.Connections < 0 || cfg.PerAddress < 0 {
		return nil, errors.New("admission: a limit is negative")
	}
	if cfg.Spared == nil {
		cfg.Spared = func(netip.Addr) bool { return false }
	}
	d := &Door{cfg: cfg, gate: g}
	if cfg.PerAddress > 0 {
		d.holders = newHolders()
	}
	return d, nil
}

// Listen returns a listener of those connections of l that are let in. It goes below TLS, so that no handshake is spent on the
// others.
func (d *Door) Listen(l net.Listener) net.Listener { return &doorListener{l, d} }

type doorListener struct {
	net.Listener
	door *Door
}

// Accept implements net.Listener.
func (l *doorListener) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c := l.door.enter(nc); c != nil {
			return c, nil
		}
	}
}

// Open returns how many connections are open that carry no session.
func (d *Door) Open() int { return int(d.open.Load()) }

// Hears reports whether a connection from that address would be heard now.
func (d *Door) Hears(from netip.Addr) bool {
	a := d.addressOf(from)
	if a == 0 {
		return true
	}
	_, ok := d.gate.refusals.hears(a, d.gate.now())
	return ok
}

// addressOf returns whom limits by address concern, zero if they concern nobody.
func (d *Door) addressOf(from netip.Addr) Address {
	if d.cfg.Spared(from) {
		return 0
	}
	return AddressOf(from)
}

// enter counts a connection, or closes it and returns nil.
func (d *Door) enter(nc net.Conn) net.Conn {
	a := d.addressOf(addrOf(nc.RemoteAddr()))
	if why, ok := d.admit(a); !ok {
		d.gate.cfg.Metrics.closed(why)
		if s, ok := nc.(interface{ SetLinger(sec int) error }); ok {
			_ = s.SetLinger(0) // nothing was said, and the kernel is to keep nothing of it
		}
		_ = nc.Close() // what it may say is of no use to anybody
		return nil
	}
	return d.wrap(nc, a)
}

func (d *Door) admit(a Address) (why closing, ok bool) {
	if why, ok := d.gate.refusals.hears(a, d.gate.now()); !ok {
		return why, false
	}
	if n := d.open.Add(1) + d.gate.sessions.Load(); d.cfg.Connections > 0 && n > int64(d.cfg.Connections) {
		d.open.Add(-1)
		return closedFull, false
	}
	if a != 0 && d.holders != nil && !d.holders.enter(a, d.cfg.PerAddress) {
		d.open.Add(-1)
		return closedHolding, false
	}
	return 0, true
}

// Back counts a connection again that had become a session's and is none any more. Whoever it is of, nil for the socket's peer,
// was let in before: it is not asked again, and new ones have to wait for it.
func (d *Door) Back(nc net.Conn, of net.Addr) net.Conn {
	if of == nil {
		of = nc.RemoteAddr()
	}
	a := d.addressOf(addrOf(of))
	d.open.Add(1)
	if a != 0 && d.holders != nil {
		d.holders.add(a)
	}
	return d.wrap(nc, a)
}

func (d *Door) leave(a Address) {
	d.open.Add(-1)
	if a != 0 && d.holders != nil {
		d.holders.leave(a)
	}
}

func (d *Door) wrap(nc net.Conn, a Address) net.Conn {
	if sc, ok := nc.(syscall.Conn); ok {
		return &socket{conn{Conn: nc, door: d, of: a}, sc}
	}
	return &conn{Conn: nc, door: d, of: a}
}

// conn is a connection that the door counts, until it is closed or a session has it.
type conn struct {
	net.Conn
	door *Door
	of   Address
	left atomic.Bool
}

// socket is one with a descriptor of its own.
type socket struct {
	conn
	sc syscall.Conn
}

// SyscallConn implements syscall.Conn.
func (s *socket) SyscallConn() (syscall.RawConn, error) { return s.sc.SyscallConn() }

// Close implements net.Conn.
func (c *conn) Close() error {
	c.Seat()
	return c.Conn.Close()
}

// Seat tells the door that a session has the connection, which is counted as one from now on.
func (c *conn) Seat() {
	if !c.left.Swap(true) {
		c.door.leave(c.of)
	}
}

// NetConn returns what the connection is besides being counted.
func (c *conn) NetConn() net.Conn { return c.Conn }

// CloseWrite tells the peer that nothing more comes.
func (c *conn) CloseWrite() error {
	w, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return fmt.Errorf("admission: half of a %T: %w", c.Conn, errors.ErrUnsupported)
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

// addrOf returns the address of a socket, an invalid one if it is none of IP.
func addrOf(a net.Addr) netip.Addr {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort().Addr()
	}
	return netip.Addr{}
}
