package ws

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carillon/server/transport/transporttest"
	"carillon/server/wire"
)

// rawClient is a WebSocket client that can do what no client should. It implements transporttest.Client.
type rawClient struct {
	nc   net.Conn
	br   *bufio.Reader
	code atomic.Uint32

	wmu sync.Mutex // frames are written whole
}

const handshake = "GET /connect HTTP/1.1\r\nHost: carillon.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nUser-Agent: raw/1\r\n\r\n"

// dialRaw connects, sends the handshake and early right behind it, and reads the answer.
func dialRaw(t testing.TB, addr string, config *tls.Config, early ...byte) *rawClient {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	nc.(*net.TCPConn).SetReadBuffer(32 << 10) // so that a frozen client freezes soon
	if config != nil {
		nc = tls.Client(nc, config)
	}
	c := &rawClient{nc: nc, br: bufio.NewReader(nc)}
	t.Cleanup(c.Kill)
	if _, err := nc.Write(append([]byte(handshake), early...)); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(c.br, nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("status: got %d, want 101", res.StatusCode)
	}
	return c
}

// frame returns a masked frame; first is fin and opcode.
func frame(first opcode, payload string) []byte {
	b := []byte{byte(first)}
	switch n := len(payload); {
	case n <= maxShort:
		b = append(b, masked|byte(n))
	case n <= maxMedium:
		b = binary.BigEndian.AppendUint16(append(b, masked|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, masked|127), uint64(n))
	}
	mask := [4]byte{0x5a, 0x01, 0xff, 0x80}
	b = append(b, mask[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^mask[i%4])
	}
	return b
}

func closeFrame(code uint16, reason string) []byte {
	return frame(fin|opClose, string(binary.BigEndian.AppendUint16(nil, code))+reason)
}

func (c *rawClient) write(b []byte) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	_, err := c.nc.Write(b)
	return err
}

// readFrame returns the next frame as it came.
func (c *rawClient) readFrame() (first opcode, payload []byte, err error) {
	var h [10]byte
	if _, err := io.ReadFull(c.br, h[:2]); err != nil {
		return 0, nil, err
	}
	n := uint64(h[1])
	switch n {
	case 126:
		_, err = io.ReadFull(c.br, h[2:4])
		n = uint64(binary.BigEndian.Uint16(h[2:]))
	case 127:
		_, err = io.ReadFull(c.br, h[2:10])
		n = binary.BigEndian.Uint64(h[2:])
	}
	if err != nil {
		return 0, nil, err
	}
	if n >= uint64(masked) && h[1] >= masked {
		return 0, nil, errors.New("client: the server masks")
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(c.br, payload)
	return opcode(h[0]), payload, err
}

// Send implements transporttest.Client.
func (c *rawClient) Send(f wire.Frame) error { return c.SendRaw(wire.Append(nil, wire.JSON, f)) }

// SendRaw implements transporttest.Client.
func (c *rawClient) SendRaw(b []byte) error { return c.write(frame(fin|opText, string(b))) }

// SendPart implements transporttest.Client.
func (c *rawClient) SendPart() error {
	b := frame(fin|opText, `{"type":"ping"}`)
	return c.write(b[:6]) // the header and nothing of the payload
}

// Recv implements transporttest.Client.
func (c *rawClient) Recv(ctx context.Context) (wire.Frame, error) {
	stop := context.AfterFunc(ctx, func() { c.nc.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		first, payload, err := c.readFrame()
		if err != nil {
			return nil, err
		}
		switch first {
		case fin | opText:
			return wire.DecodeServer(wire.JSON, payload)
		case fin | opPong:
		case fin | opClose:
			if len(payload) >= 2 {
				c.code.Store(uint32(binary.BigEndian.Uint16(payload)))
				c.write(closeFrame(binary.BigEndian.Uint16(payload), ""))
			}
			// The server closes the socket first (RFC 6455, 7.1.1), or at least its direction.
			io.Copy(io.Discard, c.br)
			c.nc.Close()
			return nil, io.EOF
		default:
			return nil, fmt.Errorf("client: frame begins with %#x", first)
		}
	}
}

// CloseCode implements transporttest.Client. Codes below 4000 are the answers to our own.
func (c *rawClient) CloseCode() wire.CloseCode { return wire.CloseCode(c.code.Load()) }

// Goodbye implements transporttest.Client.
func (c *rawClient) Goodbye() error { return c.write(closeFrame(1000, "")) }

// HalfClose implements transporttest.Client.
func (c *rawClient) HalfClose() error { return c.nc.(interface{ CloseWrite() error }).CloseWrite() }

// Kill implements transporttest.Client.
func (c *rawClient) Kill() {
	nc := c.nc
	if s, ok := nc.(*tls.Conn); ok {
		nc = s.NetConn()
	}
	nc.(*net.TCPConn).SetLinger(0)
	nc.Close()
}

// until reads frames up to one that begins with first, and returns how many came before it, and its payload.
func (c *rawClient) until(t *testing.T, first opcode) (before int, payload string) {
	t.Helper()
	c.nc.SetReadDeadline(time.Now().Add(patience))
	for {
		got, payload, err := c.readFrame()
		if err != nil {
			t.Fatalf("waiting for a frame that begins with %#x: %v", first, err)
		}
		if got == first {
			return before, string(payload)
		}
		before++
	}
}

// ends reads to the end of the stream.
func (c *rawClient) ends(t *testing.T) {
	t.Helper()
	c.nc.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, c.br); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Fatal("the server does not close")
	}
}

// next returns the next frame.
func (c *rawClient) next(t *testing.T) (first opcode, payload string) {
	t.Helper()
	c.nc.SetReadDeadline(time.Now().Add(patience))
	first, b, err := c.readFrame()
	if err != nil {
		t.Fatal(err)
	}
	return first, string(b)
}

// full reads as much as fits into b.
func (c *rawClient) full(t *testing.T, b []byte) {
	t.Helper()
	c.nc.SetReadDeadline(time.Now().Add(patience))
	if n, err := io.ReadFull(c.br, b); err != nil {
		t.Fatalf("after %d of %d bytes: %v", n, len(b), err)
	}
}

// rest writes b, if there is any, and returns what comes up to the end of the stream, which the server has to bring about.
func (c *rawClient) rest(t *testing.T, b []byte) []byte {
	t.Helper()
	c.nc.SetReadDeadline(time.Now().Add(patience))
	if len(b) > 0 {
		if err := c.write(b); err != nil {
			t.Fatal(err)
		}
	}
	rest, err := io.ReadAll(c.br)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the server does not close")
	}
	return rest
}

// patience is how long a test waits for what must happen before it fails.
const patience = transporttest.Patience
