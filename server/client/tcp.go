package client

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync"
	"time"

	"carillon/server/wire"
)

// TCP dials connections that carry binary frames, each behind its length, over TCP (tcp://host:port) or TLS
// (tcps://host:port). Its zero value is ready.
type TCP struct {
	DialContext func(ctx context.Context, network, address string) (net.Conn, error) // that of a net.Dialer
	TLS         *tls.Config                                                          // for tcps; the system's roots
	FrameBytes  int                                                                  // the largest frame taken from a server; 4 MiB
}

// Dial opens a connection, under TLS with its handshake.
func (t *TCP) Dial(ctx context.Context, at string) (Conn, error) {
	u, err := url.Parse(at)
	if err != nil {
		return nil, fmt.Errorf("client: address: %w", err)
	}
	if u.Scheme != "tcp" && u.Scheme != "tcps" || u.Port() == "" {
		return nil, fmt.Errorf("client: write tcp://host:port or tcps://host:port, not %q", at)
	}
	dial := t.DialContext
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	nc, err := dial(ctx, "tcp", u.Host)
	if err != nil {
		return nil, fmt.Errorf("client: dial: %w", err)
	}
	if u.Scheme == "tcps" {
		cfg := &tls.Config{}
		if t.TLS != nil {
			cfg = t.TLS.Clone()
		}
		if cfg.ServerName == "" {
			cfg.ServerName = u.Hostname()
		}
		s := tls.Client(nc, cfg)
		if err := s.HandshakeContext(ctx); err != nil {
			nc.Close()
			return nil, fmt.Errorf("client: dial: %w", err)
		}
		nc = s
	}
	return &tcpConn{nc: nc, in: bufio.NewReader(nc), most: mostBytes(t.FrameBytes), over: make(chan struct{})}, nil
}

// lengthBytes is the size of what stands in front of each frame: its length, big endian.
const lengthBytes = 4

// tcpConn is one connection.
type tcpConn struct {
	// Static after construction.
	nc   net.Conn
	most int           // bytes of one frame
	over chan struct{} // closed by the Read that found the end

	// Owned by Read.
	in    *bufio.Reader
	body  []byte
	ended sync.Once

	writing sync.Mutex // held for one frame
}

// Read implements Conn.
func (c *tcpConn) Read() (wire.Frame, error) {
	for {
		f, err := c.read()
		if err != nil {
			c.ended.Do(func() { close(c.over) })
			return nil, fmt.Errorf("client: read: %w", err)
		}
		if f != nil {
			return f, nil
		}
	}
}

// read reads a frame; nil is one of a later version.
func (c *tcpConn) read() (wire.Frame, error) {
	var length [lengthBytes]byte
	if _, err := io.ReadFull(c.in, length[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(length[:])
	if size == 0 || uint64(size) > uint64(c.most) {
		return nil, fmt.Errorf("a frame of %d bytes, and not 1 to %d", size, c.most)
	}
	if cap(c.body) < int(size) {
		c.body = make([]byte, size)
	}
	c.body = c.body[:size]
	if _, err := io.ReadFull(c.in, c.body); err != nil {
		return nil, io.ErrUnexpectedEOF
	}
	return decode(wire.Binary, c.body)
}

// Write implements Conn.
func (c *tcpConn) Write(ctx context.Context, f wire.Frame) error {
	b := wire.Append(make([]byte, lengthBytes, 256), wire.Binary, f)
	binary.BigEndian.PutUint32(b, uint32(len(b)-lengthBytes))
	c.writing.Lock()
	defer c.writing.Unlock()
	defer context.AfterFunc(ctx, c.Cut)()
	if _, err := c.nc.Write(b); err != nil {
		return fmt.Errorf("client: write %s: %w", f.Type(), errors.Join(err, context.Cause(ctx)))
	}
	return nil
}

// Close implements Conn: it ends its direction, and the server ends the other when it has read to the end.
func (c *tcpConn) Close() {
	defer c.Cut()
	w, ok := c.nc.(interface{ CloseWrite() error })
	if !ok || w.CloseWrite() != nil {
		return
	}
	patience := time.NewTimer(closePatience)
	defer patience.Stop()
	select {
	case <-c.over:
	case <-patience.C:
	}
}

// Cut implements Conn.
func (c *tcpConn) Cut() {
	nc := c.nc
	if s, ok := nc.(*tls.Conn); ok {
		nc = s.NetConn() // the goodbye of TLS could wait for a peer that does not read
	}
	_ = nc.Close()
}
