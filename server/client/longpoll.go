package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"carillon/server/wire"
)

// LongPoll dials connections that ask again and again: each answer holds what came since the one before, or nothing after a
// while, and each request acknowledges the answer before it. Its zero value is ready. It takes the same addresses as
// [WebSocket]. It is for networks in which nothing else gets through.
type LongPoll struct {
	Client *http.Client  // http.DefaultClient; without a Timeout, or one well above Wait
	Wait   time.Duration // how long the server may hold a request, 1 s to 55 s; 55 s
}

// pollGrace is how much longer than Wait an answer may take before the server counts as gone.
const pollGrace = 15 * time.Second

// Dial prepares a connection. The first request is made when the connect frame is written; a refusal of the server is then the
// error of Read.
func (p *LongPoll) Dial(_ context.Context, url string) (Conn, error) {
	l, err := newLine(p.Client, url)
	if err != nil {
		return nil, err
	}
	wait := p.Wait
	if wait <= 0 {
		wait = 55 * time.Second
	}
	wait = min(max(wait.Truncate(time.Second), time.Second), 55*time.Second)
	return &pollConn{line: l, wait: wait, handled: make(chan string, 1)}, nil
}

// pollConn is a row of polls.
type pollConn struct {
	*line
	wait    time.Duration
	handled chan string // what the next poll acknowledges; room for one

	// Owned by Read.
	connect *wire.Connect // nil before it was written
	session string        // of the last answer
	cursor  string        // up to where everything was handled
	queue   []wire.Frame  // of the last answer, its end included
	owing   bool          // the last answer is not known to be handled
	over    bool          // the server said goodbye
}

// Handled implements batched.
func (c *pollConn) Handled(cursor string) {
	select {
	case <-c.handled: // an older one that nobody has read
	default:
	}
	c.handled <- cursor
}

// Read implements Conn. An answer without frames is a pong.
func (c *pollConn) Read() (wire.Frame, error) {
	for len(c.queue) == 0 {
		if c.over {
			return nil, fmt.Errorf("client: read: %w", io.EOF)
		}
		if err := c.ready(); err != nil {
			return nil, err
		}
		if err := c.poll(); err != nil {
			c.cancel()
			return nil, err
		}
	}
	f := c.queue[0]
	c.queue = c.queue[1:]
	return f, nil
}

// ready waits until there is something to ask with: the connect frame, or that the last answer was handled.
func (c *pollConn) ready() (err error) {
	if c.connect == nil {
		if c.connect, err = c.awaitConnect(); err == nil {
			c.cursor = c.connect.Cursor
		}
		return err
	}
	if !c.owing {
		return nil
	}
	select {
	case c.cursor = <-c.handled:
		c.owing = false
		return nil
	case <-c.ctx.Done():
		return errEnded
	}
}

// poll asks once.
func (c *pollConn) poll() error {
	ctx, cancel := context.WithTimeout(c.ctx, c.wait+pollGrace)
	defer cancel()
	q := queryOf(c.connect, c.cursor)
	q.Set("wait", strconv.Itoa(int(c.wait/time.Second)))
	if c.session != "" {
		q.Set("session", c.session)
		q.Del("after")
	}
	resp, err := c.do(ctx, http.MethodGet, "/poll", q, nil)
	if err != nil {
		if ctx.Err() != nil && c.ctx.Err() == nil {
			return errSilent
		}
		return fmt.Errorf("client: poll: %w", err)
	}
	defer drain(resp)
	if resp.StatusCode != http.StatusOK {
		return refusalOf(resp)
	}
	var a struct {
		Session string
		Frames  []json.RawMessage
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fmt.Errorf("client: poll: %w", err)
	case len(b) > maxAnswer:
		return fmt.Errorf("client: poll: an answer has more than %d bytes", maxAnswer)
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return errors.New("client: poll: the answer is none of a gateway's")
	}
	c.session = a.Session
	return c.take(a.Frames)
}

// take queues the frames of an answer.
func (c *pollConn) take(frames []json.RawMessage) error {
	c.queue = c.queue[:0]
	for _, raw := range frames {
		f, err := decode(wire.JSON, raw)
		if err != nil {
			return fmt.Errorf("client: poll: %w", err)
		}
		if f == nil {
			continue
		}
		switch f.(type) {
		case *wire.Kick, *wire.Goaway:
			c.over = true
		}
		c.queue = append(c.queue, f)
	}
	if len(c.queue) == 0 {
		c.queue = append(c.queue, &wire.Pong{})
		return nil
	}
	if !c.over {
		c.queue, c.owing = append(c.queue, endOfBatch{}), true
	}
	return nil
}
