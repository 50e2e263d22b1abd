package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"carillon/server/wire"
)

// line is what connections over plain HTTP have in common: requests below one address, under the token of the connect frame,
// and a way for the client's frames, each of which is a request of its own.
type line struct {
	// Static after construction.
	client *http.Client
	base   string          // http(s)://host/connect
	ctx    context.Context // ends with the connection
	cancel context.CancelFunc

	first chan *wire.Connect // from Write to Read; room for the only one

	mu sync.Mutex
	// Guarded by mu.
	token string // of the connect frame, or of the refresh that took its place
}

// maxAnswer bounds what is read of an answer that is no stream.
const maxAnswer = 16 << 20

func newLine(hc *http.Client, at string) (*line, error) {
	base, err := connectURL(at)
	if err != nil {
		return nil, err
	}
	if hc == nil {
		hc = http.DefaultClient
	}
	l := &line{client: hc, base: base, first: make(chan *wire.Connect, 1)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l, nil
}

// connectURL returns the address over HTTP that belongs to one that a client was given for any transport.
func connectURL(at string) (string, error) {
	u, err := url.Parse(at)
	if err != nil {
		return "", fmt.Errorf("client: address: %w", err)
	}
	switch u.Scheme {
	case "ws":
		u.Scheme = "http"
	case "wss":
		u.Scheme = "https"
	case "http", "https":
	default:
		return "", fmt.Errorf("client: an address of HTTP begins with http, https, ws or wss, not %q", u.Scheme)
	}
	path := strings.TrimRight(u.Path, "/")
	path = strings.TrimSuffix(strings.TrimSuffix(path, "/sse"), "/poll")
	return (&url.URL{Scheme: u.Scheme, User: u.User, Host: u.Host, Path: path}).String(), nil
}

// Write implements Conn. The connect frame is for Read, which makes a request of it; pings and pongs are the server's affair on
// these transports; everything else is posted.
func (l *line) Write(ctx context.Context, f wire.Frame) error {
	switch f := f.(type) {
	case *wire.Connect:
		l.setToken(f.Token)
		select {
		case l.first <- f:
			return nil
		default:
			return errors.New("client: a second connect frame")
		}
	case *wire.Ping, *wire.Pong:
		return nil
	case *wire.Refresh:
		if err := l.post(ctx, f); err != nil {
			return err
		}
		l.setToken(f.Token)
		return nil
	}
	return l.post(ctx, f)
}

func (l *line) setToken(token string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.token = token
}

// Close implements Conn. The server learns of it from the connection.
func (l *line) Close() { l.cancel() }

// Cut implements Conn.
func (l *line) Cut() { l.cancel() }

func (l *line) post(ctx context.Context, f wire.Frame) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()
	resp, err := l.do(ctx, http.MethodPost, "/frames", nil, wire.Append(nil, wire.JSON, f))
	if err != nil {
		l.cancel() // an answer that does not come may have been given: only another connection knows where it stands
		return fmt.Errorf("client: write %s: %w", f.Type(), err)
	}
	defer drain(resp)
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("client: write %s: %w", f.Type(), refusalOf(resp))
	}
	return nil
}

// do makes a request. Whoever calls it closes the answer's body, with drain where the connection is to be used again.
func (l *line) do(ctx context.Context, method, path string, query url.Values, body []byte) (*http.Response, error) {
	at := l.base + path
	if len(query) > 0 {
		at += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, at, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	req.Header.Set("Authorization", "Bearer "+l.token)
	l.mu.Unlock()
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := l.client.Do(req)
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err // without the address, whose query may be long
	}
	return resp, err
}

func drain(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	resp.Body.Close()
}

// awaitConnect waits for the client's connect frame.
func (l *line) awaitConnect() (*wire.Connect, error) {
	select {
	case c := <-l.first:
		return c, nil
	case <-l.ctx.Done():
		return nil, errEnded
	}
}

var errEnded = errors.New("client: the connection was ended")

// queryOf returns the query of a request that begins, or continues, a session.
func queryOf(c *wire.Connect, cursor string) url.Values {
	q := url.Values{"version": {strconv.FormatUint(uint64(c.Version), 10)}}
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	if c.Client != "" {
		q.Set("client", c.Client)
	}
	if c.After != 0 {
		q.Set("after", strconv.FormatUint(uint64(c.After), 10))
	}
	return q
}

// refusalOf returns what a server's refusal means: a *ClosedError if it is one that a close code stands for, so that a client
// does the same after it as on any transport, otherwise what refusal makes of the status.
func refusalOf(resp *http.Response) error {
	var p struct{ Code, Detail string }
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil || json.Unmarshal(b, &p) != nil {
		p.Code = "" // from a proxy, perhaps
	}
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		if p.Code == wire.CloseTokenExpired.String() {
			return &ClosedError{Code: wire.CloseTokenExpired, Reason: p.Code}
		}
		return &ClosedError{Code: wire.CloseTokenRefused, Reason: p.Code}
	case http.StatusBadRequest, http.StatusForbidden:
		if code, ok := closeCodeOf(p.Code); ok {
			return &ClosedError{Code: code, Reason: p.Code}
		}
	}
	return refusal(resp)
}

// closeCodeOf returns the close code of that name.
func closeCodeOf(name string) (wire.CloseCode, bool) {
	for code := wire.CloseCode(4000); code < 4300; code++ {
		if code.String() == name && name != wire.CloseCode(0).String() {
			return code, true
		}
	}
	return 0, false
}
