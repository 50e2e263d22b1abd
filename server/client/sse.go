package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"

	"carillon/server/wire"
)

// SSE dials connections over Server-Sent Events: one request whose answer is the stream of the server's frames, and a request
// for each frame of the client. Its zero value is ready. It takes the same addresses as [WebSocket].
type SSE struct {
	Client     *http.Client // http.DefaultClient; without a Timeout, which would cut the stream
	FrameBytes int          // the largest frame taken from a server; 4 MiB
}

// Dial prepares a connection. The request is made when the connect frame is written, since token and cursor stand in it; a
// refusal of the server is then the error of Read.
func (s *SSE) Dial(_ context.Context, url string) (Conn, error) {
	l, err := newLine(s.Client, url)
	if err != nil {
		return nil, err
	}
	return &sseConn{line: l, most: mostBytes(s.FrameBytes)}, nil
}

// sseConn is one stream.
type sseConn struct {
	*line
	most int // bytes of one event

	// Owned by Read.
	body io.ReadCloser // nil before the connect frame
	in   *bufio.Reader
	data []byte // of the event being read
}

// Read implements Conn. A comment, with which the server keeps the line warm, is a pong.
func (c *sseConn) Read() (wire.Frame, error) {
	f, err := c.read()
	if err != nil {
		c.cancel()
		if c.body != nil {
			c.body.Close()
		}
	}
	return f, err
}

func (c *sseConn) read() (wire.Frame, error) {
	if c.body == nil {
		if err := c.open(); err != nil {
			return nil, err
		}
	}
	for {
		line, err := c.readLine()
		if err != nil {
			return nil, fmt.Errorf("client: read: %w", err)
		}
		if len(line) > 0 {
			if line[0] == ':' {
				return &wire.Pong{}, nil
			}
			if err := c.field(line); err != nil {
				return nil, err
			}
			continue
		}
		if len(c.data) == 0 {
			continue
		}
		f, err := decode(wire.JSON, c.data)
		c.data = c.data[:0]
		if err != nil {
			return nil, fmt.Errorf("client: read: %w", err)
		}
		if f != nil {
			return f, nil
		}
	}
}

// open makes the request.
func (c *sseConn) open() error {
	first, err := c.awaitConnect()
	if err != nil {
		return err
	}
	resp, err := c.do(c.ctx, http.MethodGet, "/sse", queryOf(first, first.Cursor), nil)
	if err != nil {
		return fmt.Errorf("client: connect: %w", err)
	}
	c.body, c.in = resp.Body, bufio.NewReader(resp.Body)
	if resp.StatusCode != http.StatusOK {
		return refusalOf(resp)
	}
	if t, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || t != "text/event-stream" {
		return errors.New("client: connect: the answer is no event stream; is there a proxy that answers by itself?")
	}
	return nil
}

// readLine returns the next line without its end. It is good until the next call.
func (c *sseConn) readLine() ([]byte, error) {
	var long []byte
	for {
		part, err := c.in.ReadSlice('\n')
		if len(long)+len(part) > c.most {
			return nil, fmt.Errorf("an event has more than %d bytes", c.most)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			long = append(long, part...)
			continue
		case errors.Is(err, io.EOF):
			return nil, io.ErrUnexpectedEOF // streams do not end by themselves
		case err != nil:
			return nil, err
		}
		if long != nil {
			part = append(long, part...)
		}
		return bytes.TrimSuffix(part[:len(part)-1], []byte{'\r'}), nil
	}
}

// field takes a field of an event. The name of the event stands in its frame too, and the cursor follows from the frames.
func (c *sseConn) field(line []byte) error {
	name, value, _ := bytes.Cut(line, []byte{':'})
	if string(name) != "data" {
		return nil
	}
	value = bytes.TrimPrefix(value, []byte{' '})
	if len(c.data)+len(value)+1 > c.most {
		return fmt.Errorf("client: read: an event has more than %d bytes", c.most)
	}
	if len(c.data) > 0 {
		c.data = append(c.data, '\n')
	}
	c.data = append(c.data, value...)
	return nil
}
