package tcp

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"carillon/server/transport/transporttest"
	"carillon/server/wire"
)

// patience is how long a test waits for what must happen before it fails.
const patience = transporttest.Patience

// client is a client that can do what no client should. It implements transporttest.Client.
type client struct {
	nc net.Conn
	br *bufio.Reader

	wmu sync.Mutex // frames are written whole
}

func dial(t testing.TB, addr string, config *tls.Config) *client {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	switch {
	case errors.Is(err, syscall.ECONNRESET): // it was accepted and cut before Dial looked
		near, far := net.Pipe()
		far.Close()
		nc = near
	case err != nil:
		t.Fatal(err)
	default:
		nc.(*net.TCPConn).SetReadBuffer(32 << 10) // so that a frozen client freezes soon
	}
	if config != nil {
		nc = tls.Client(nc, config)
	}
	c := &client{nc: nc, br: bufio.NewReader(nc)}
	t.Cleanup(c.Kill)
	return c
}

// frame returns a frame behind its length.
func frame(payload []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(payload))), payload...)
}

// encoded returns a frame of the protocol behind its length.
func encoded(f wire.Frame) []byte { return frame(wire.Append(nil, wire.Binary, f)) }

func (c *client) write(b []byte) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	_, err := c.nc.Write(b)
	return err
}

// Send implements transporttest.Client.
func (c *client) Send(f wire.Frame) error { return c.write(encoded(f)) }

// SendRaw implements transporttest.Client.
func (c *client) SendRaw(b []byte) error { return c.write(frame(b)) }

// SendPart implements transporttest.Client.
func (c *client) SendPart() error { return c.write(encoded(&wire.Ack{Cursor: "half"})[:6]) }

// Recv implements transporttest.Client.
func (c *client) Recv(ctx context.Context) (wire.Frame, error) {
	stop := context.AfterFunc(ctx, func() { c.nc.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	f, err := readFrame(c.br)
	if err == io.EOF {
		c.nc.Close() // the answer to a goodbye
	}
	return f, err
}

func readFrame(r io.Reader) (wire.Frame, error) {
	var h [prefix]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return nil, err
	}
	payload := make([]byte, binary.BigEndian.Uint32(h[:]))
	if _, err := io.ReadFull(r, payload); err != nil {
		return nil, err
	}
	return wire.DecodeServer(wire.Binary, payload)
}

// CloseCode implements transporttest.Client: this transport tells none.
func (*client) CloseCode() wire.CloseCode { return 0 }

// Goodbye implements transporttest.Client.
func (c *client) Goodbye() error { return c.HalfClose() }

// HalfClose implements transporttest.Client.
func (c *client) HalfClose() error { return c.nc.(interface{ CloseWrite() error }).CloseWrite() }

// Kill implements transporttest.Client.
func (c *client) Kill() {
	nc := c.nc
	if s, ok := nc.(*tls.Conn); ok {
		nc = s.NetConn()
	}
	if t, ok := nc.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
	nc.Close()
}

// next returns the next frame.
func (c *client) next(t *testing.T) wire.Frame {
	t.Helper()
	c.nc.SetReadDeadline(time.Now().Add(patience))
	f, err := readFrame(c.br)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// ends fails unless the server ends its direction now.
func (c *client) ends(t *testing.T) {
	t.Helper()
	c.nc.SetReadDeadline(time.Now().Add(patience))
	n, err := io.Copy(io.Discard, c.br)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the server does not end its direction")
	}
	if n > 0 {
		t.Errorf("%d bytes come before the end", n)
	}
}
