package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/coder/websocket"

	"carillon/server/push"
	"carillon/server/wire"
)

// WebSocket dials WebSocket connections that carry JSON frames as text messages. Its zero value is ready.
type WebSocket struct {
	Client     *http.Client // http.DefaultClient; without a Timeout, which would cut the connection
	FrameBytes int64        // the largest frame taken from a server; 4 MiB
}

// Dial opens a connection. A refusal of the server is a *[push.Error]: of kind limited for 429 and unavailable for the
// 500s, with the server's Retry-After, and of kind invalid otherwise.
func (w *WebSocket) Dial(ctx context.Context, url string) (Conn, error) {
	conn, resp, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPClient: w.Client})
	if err != nil {
		if resp != nil {
			return nil, refusal(resp)
		}
		return nil, fmt.Errorf("client: dial: %w", err)
	}
	conn.SetReadLimit(mostBytes(w.FrameBytes))
	c := &wsConn{conn: conn}
	c.reading, c.cut = context.WithCancel(context.Background())
	return c, nil
}

func refusal(resp *http.Response) error {
	kind := push.KindInvalid
	switch {
	case resp.StatusCode == http.StatusTooManyRequests:
		kind = push.KindLimited
	case resp.StatusCode >= 500:
		kind = push.KindUnavailable
	}
	e := push.Errorf(kind, "connect_refused", "the server answered %d %s", resp.StatusCode,
		http.StatusText(resp.StatusCode))
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		e.After = min(time.Duration(s)*time.Second, time.Hour)
	}
	return e
}

// wsConn is one WebSocket. Cancelling reading cuts it: the library gives up a connection whose read was cancelled.
type wsConn struct {
	// Static after construction.
	conn    *websocket.Conn
	reading context.Context
	cut     context.CancelFunc
}

func (c *wsConn) Read() (wire.Frame, error) {
	for {
		typ, b, err := c.conn.Read(c.reading)
		if err != nil {
			return nil, readError(err)
		}
		if typ != websocket.MessageText {
			return nil, errors.New("client: the server sent a binary message")
		}
		f, err := decode(wire.JSON, b)
		if err != nil {
			return nil, fmt.Errorf("client: read: %w", err)
		}
		if f != nil {
			return f, nil
		}
	}
}

func readError(err error) error {
	var ce websocket.CloseError
	if errors.As(err, &ce) {
		return &ClosedError{Code: wire.CloseCode(ce.Code), Reason: ce.Reason}
	}
	return fmt.Errorf("client: read: %w", err)
}

func (c *wsConn) Write(ctx context.Context, f wire.Frame) error {
	if err := c.conn.Write(ctx, websocket.MessageText, wire.Append(nil, wire.JSON, f)); err != nil {
		return fmt.Errorf("client: write %s: %w", f.Type(), err)
	}
	return nil
}

// closePatience is how long Close waits for the peer's half of the closing handshake. The library waits five seconds,
// and can be cut short only while a Read is under way.
const closePatience = time.Second

func (c *wsConn) Close() {
	t := time.AfterFunc(closePatience, c.cut)
	defer t.Stop()
	_ = c.conn.Close(websocket.StatusNormalClosure, "")
	c.cut()
}

func (c *wsConn) Cut() {
	c.cut()
	_ = c.conn.CloseNow()
}
