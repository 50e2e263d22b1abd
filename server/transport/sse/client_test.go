package sse

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"carillon/server/wire"
)

// request is what a client asks with, as curl would write it.
const request = "GET /connect/sse?client=raw%2F1 HTTP/1.1\r\nHost: carillon.example\r\nUser-Agent: raw/1\r\nAccept: */*\r\n" +
	"Authorization: Bearer a.b.c\r\n\r\n"

// rawClient reads a stream from a socket. It implements transporttest.Client.
type rawClient struct {
	nc net.Conn
	br *bufio.Reader

	// Owned by Recv.
	head *http.Response // nil until it was read
	last string         // the last id of an event, as EventSource keeps it
}

// dialRaw connects and sends a request, and whatever follows it.
func dialRaw(t testing.TB, addr string, config *tls.Config, request string) *rawClient {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	nc.(*net.TCPConn).SetReadBuffer(32 << 10) // so that a frozen client freezes soon
	if config != nil {
		nc = tls.Client(nc, config)
	}
	c := newRawClient(t, nc)
	if _, err := nc.Write([]byte(request)); err != nil {
		t.Fatal(err)
	}
	return c
}

func newRawClient(t testing.TB, nc net.Conn) *rawClient {
	c := &rawClient{nc: nc, br: bufio.NewReader(nc)}
	t.Cleanup(c.Kill)
	return c
}

// event is one event of the stream, as the standard has it dispatched; a comment is one with nothing but the comment.
type event struct {
	name, id, retry, data string
	comment               bool
}

// readEvent reads up to the empty line. It holds the stream to what this server writes, which is less than the standard
// allows: each field once, in one order, with one space behind the colon.
func (c *rawClient) readEvent() (e event, err error) {
	order := -1
	fields := []struct {
		prefix string
		value  *string
	}{{"event: ", &e.name}, {"id: ", &e.id}, {"retry: ", &e.retry}, {"data: ", &e.data}}
	for {
		line, err := c.br.ReadString('\n')
		if err != nil {
			if err == io.EOF && (line != "" || order >= 0 || e.comment) {
				return event{}, io.ErrUnexpectedEOF
			}
			return event{}, err
		}
		line = strings.TrimSuffix(line, "\n")
		if line == "" {
			if order < 0 && !e.comment || e.comment == (e.data != "") {
				return event{}, fmt.Errorf("client: an event without data: %+v", e)
			}
			return e, nil
		}
		if line == ":" && order < 0 {
			e.comment = true
			continue
		}
		known := false
		for i, f := range fields {
			if v, ok := strings.CutPrefix(line, f.prefix); ok && i > order {
				*f.value, order, known = v, i, true
			}
		}
		if !known {
			return event{}, fmt.Errorf("client: a line that is no field: %q", line)
		}
	}
}

// readHead reads the head of the answer, unless that was done.
func (c *rawClient) readHead() error {
	if c.head != nil {
		return nil
	}
	var err error
	c.head, err = http.ReadResponse(c.br, nil)
	return err
}

var errRefused = errors.New("client: the server answered with a problem")

// Recv implements transporttest.Client.
func (c *rawClient) Recv(ctx context.Context) (wire.Frame, error) {
	stop := context.AfterFunc(ctx, func() { c.nc.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	f, err := c.recv()
	if err != nil && ctx.Err() == nil {
		c.nc.Close() // whoever has read to the end goes
	}
	return f, err
}

func (c *rawClient) recv() (wire.Frame, error) {
	if err := c.readHead(); err != nil {
		return nil, err
	}
	if c.head.StatusCode != http.StatusOK {
		if _, err := io.Copy(io.Discard, c.head.Body); err != nil {
			return nil, err
		}
		return nil, errRefused
	}
	e, err := c.readEvent()
	switch {
	case err != nil:
		return nil, err
	case e.comment:
		return &wire.Ping{}, nil
	}
	if e.id != "" {
		c.last = e.id
	}
	f, err := wire.DecodeServer(wire.JSON, []byte(e.data))
	if err != nil {
		return nil, err
	}
	if want := f.Type().String(); e.name != want && (e.name != "" || want != "message") {
		return nil, fmt.Errorf("client: an event %q holds a frame %s", e.name, want)
	}
	return f, nil
}

// CloseCode implements transporttest.Client.
func (c *rawClient) CloseCode() wire.CloseCode { return 0 }

var errOneWay = errors.New("client: nothing is sent on this transport")

// Send implements transporttest.Client.
func (c *rawClient) Send(wire.Frame) error { return errOneWay }

// SendRaw implements transporttest.Client.
func (c *rawClient) SendRaw([]byte) error { return errOneWay }

// SendPart implements transporttest.Client.
func (c *rawClient) SendPart() error { return errOneWay }

// Goodbye implements transporttest.Client.
func (c *rawClient) Goodbye() error { return c.nc.Close() }

// HalfClose implements transporttest.Client.
func (c *rawClient) HalfClose() error { return c.nc.(interface{ CloseWrite() error }).CloseWrite() }

// Kill implements transporttest.Client.
func (c *rawClient) Kill() {
	nc := c.nc
	if s, ok := nc.(*tls.Conn); ok {
		nc = s.NetConn() // s.Close would wait to say goodbye
	}
	nc.Close()
}

// all reads everything that the server sends until the end.
func (c *rawClient) all(t testing.TB) []byte {
	t.Helper()
	c.nc.SetReadDeadline(time.Now().Add(patience))
	b, err := io.ReadAll(c.br)
	if err != nil {
		t.Fatalf("reading to the end: %v, after %q", err, b)
	}
	c.nc.Close()
	return b
}

// next reads that many bytes.
func (c *rawClient) next(t testing.TB, n int) []byte {
	t.Helper()
	c.nc.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, n)
	if k, err := io.ReadFull(c.br, b); err != nil {
		t.Fatalf("reading %d bytes: %v, after %q", n, err, b[:k])
	}
	return b
}

// until reads up to and including the end of what is given.
func (c *rawClient) until(t testing.TB, end string) []byte {
	t.Helper()
	c.nc.SetReadDeadline(time.Now().Add(patience))
	var b []byte
	for !bytes.HasSuffix(b, []byte(end)) {
		x, err := c.br.ReadByte()
		if err != nil {
			t.Fatalf("reading up to %q: %v, after %q", end, err, b)
		}
		b = append(b, x)
	}
	return b
}
