package longpoll

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"carillon/server/transport/transporttest"
	"carillon/server/wire"
)

// patience is how long a test waits for what must happen before it fails.
const patience = transporttest.Patience

// rawClient polls on one connection after the other, and always has a poll on its way: it sends the next one as soon as it
// has read an answer. It implements transporttest.Client.
type rawClient struct {
	addr   string
	config *tls.Config

	br *bufio.Reader

	mu sync.Mutex
	// Guarded by mu.
	nc     net.Conn
	killed bool

	session, cursor string
	frames          []wire.Frame // of the last answer, not returned yet
	over            error        // why there is no other
}

// body is an answer as a client reads it.
type body struct {
	Session string            `json:"session"`
	Cursor  string            `json:"cursor"`
	Frames  []json.RawMessage `json:"frames"`
}

// The User-Agent says whether a poll means to go on, so that a test's acceptor can refuse to begin anew for one that does.
const (
	agentFirst = "raw/first"
	agentNext  = "raw/next"
)

// dialRaw connects a client and reads its first answer.
func dialRaw(t testing.TB, addr string, config *tls.Config) *rawClient {
	t.Helper()
	c := &rawClient{addr: addr, config: config}
	t.Cleanup(c.Kill)
	if err := c.poll(); err != nil {
		t.Fatal(err)
	}
	c.more()
	return c
}

func (c *rawClient) connect() error {
	nc, err := net.Dial("tcp", c.addr)
	if err != nil {
		return err
	}
	nc.(*net.TCPConn).SetReadBuffer(32 << 10)
	if c.config != nil {
		nc = tls.Client(nc, c.config)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.killed {
		nc.Close()
		return net.ErrClosed
	}
	c.nc, c.br = nc, bufio.NewReader(nc)
	return nil
}

func (c *rawClient) conn() net.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nc
}

// request returns a poll.
func request(session, cursor, wait, token, more string) string {
	q := url.Values{}
	for name, v := range map[string]string{"session": session, "cursor": cursor, "wait": wait} {
		if v != "" {
			q.Set(name, v)
		}
	}
	return "GET /connect/poll?" + q.Encode() + " HTTP/1.1\r\nHost: carillon.example\r\nAuthorization: Bearer " + token + "\r\n" + more + "\r\n"
}

// poll sends a poll.
func (c *rawClient) poll() error {
	if c.conn() == nil {
		if err := c.connect(); err != nil {
			return err
		}
	}
	agent := agentNext
	if c.session == "" {
		agent = agentFirst
	}
	_, err := io.WriteString(c.conn(), request(c.session, c.cursor, "", "alice", "User-Agent: "+agent+"\r\n"))
	return err
}

// more reads an answer and sends the next poll.
func (c *rawClient) more() {
	if c.over != nil {
		return
	}
	var res *http.Response
	if res, c.over = http.ReadResponse(c.br, nil); c.over != nil {
		return
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		c.over = err
		return
	}
	if res.StatusCode != http.StatusOK {
		c.over = fmt.Errorf("client: %d %s: %w", res.StatusCode, b, io.EOF)
		return
	}
	if int64(len(b)) != res.ContentLength || res.Header.Get("Content-Type") != "application/json" {
		c.over = fmt.Errorf("client: an answer of %d bytes with %v", len(b), res.Header)
		return
	}
	if c.over = c.read(b); c.over != nil {
		return
	}
	if res.Close {
		c.conn().Close()
		c.mu.Lock()
		c.nc = nil
		c.mu.Unlock()
	}
	c.over = c.poll()
}

// read reads a body as it has to stand there. The package encoding/json takes a second for each ten megabytes under the race
// detector, and the script sends many.
func (c *rawClient) read(b []byte) error {
	rest, ok := strings.CutPrefix(string(b), `{"session":"`)
	session, rest, ok1 := strings.Cut(rest, `","cursor":"`)
	cursor, rest, ok2 := strings.Cut(rest, `","frames":[`)
	rest, ok3 := strings.CutSuffix(rest, "]}\n")
	if !ok || !ok1 || !ok2 || !ok3 || session == "" || cursor == "" {
		return fmt.Errorf("client: an answer that says nothing of session, cursor or frames: %.200s", b)
	}
	c.session, c.cursor = session, cursor
	for rest != "" {
		var raw string
		raw, rest = cutFrame(rest)
		f, err := wire.DecodeServer(wire.JSON, []byte(raw))
		if err != nil {
			return err
		}
		if _, ok := f.(*wire.Welcome); !ok {
			c.frames = append(c.frames, f)
		}
	}
	return nil
}

// cutFrame cuts the first object off a list.
func cutFrame(s string) (frame, rest string) {
	depth, quoted := 0, false
	for i := 0; i < len(s); i++ {
		if quoted { // most of a body
			n := strings.IndexAny(s[i:], `"\\`)
			if n < 0 {
				return s, ""
			}
			if i += n; s[i] == '"' {
				quoted = false
			} else {
				i++
			}
			continue
		}
		switch s[i] {
		case '"':
			quoted = true
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return s[:i+1], strings.TrimPrefix(s[i+1:], ",")
			}
		}
	}
	return s, ""
}

// Recv implements transporttest.Client.
func (c *rawClient) Recv(ctx context.Context) (wire.Frame, error) {
	stop := context.AfterFunc(ctx, func() {
		if nc := c.conn(); nc != nil {
			nc.SetReadDeadline(time.Unix(1, 0))
		}
	})
	defer stop()
	for len(c.frames) == 0 {
		if c.over != nil {
			return nil, c.over
		}
		c.more()
	}
	f := c.frames[0]
	c.frames = c.frames[1:]
	return f, nil
}

var errOneWay = errors.New("client: polls carry no frames")

// Send implements transporttest.Client.
func (c *rawClient) Send(wire.Frame) error { return errOneWay }

// SendRaw implements transporttest.Client.
func (c *rawClient) SendRaw([]byte) error { return errOneWay }

// SendPart implements transporttest.Client.
func (c *rawClient) SendPart() error { return errOneWay }

// CloseCode implements transporttest.Client.
func (c *rawClient) CloseCode() wire.CloseCode { return 0 }

// Goodbye implements transporttest.Client.
func (c *rawClient) Goodbye() error { return errOneWay }

// HalfClose implements transporttest.Client.
func (c *rawClient) HalfClose() error {
	return c.conn().(interface{ CloseWrite() error }).CloseWrite()
}

// Kill implements transporttest.Client.
func (c *rawClient) Kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.killed = true
	nc := c.nc
	if nc == nil {
		return
	}
	if s, ok := nc.(*tls.Conn); ok {
		nc = s.NetConn()
	}
	nc.(*net.TCPConn).SetLinger(0)
	nc.Close()
}

// get returns the channel's next value, or fails the test when none comes.
func get[T any](t testing.TB, ch <-chan T, what string) T {
	t.Helper()
	return transporttest.Get(t, ch, what)
}

func isTimeout(err error) bool { return err != nil && strings.Contains(err.Error(), "timeout") }
