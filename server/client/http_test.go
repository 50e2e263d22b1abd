package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/wire"
)

// asked is a request that a fake gateway got.
type asked struct {
	method, path, token, body string
	query                     map[string]string
}

// askedBy reads a request.
func askedBy(r *http.Request) (asked, error) {
	b, err := io.ReadAll(r.Body)
	a := asked{
		method: r.Method, path: r.URL.Path, token: strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), body: string(b),
		query: map[string]string{},
	}
	for k, v := range r.URL.Query() {
		a.query[k] = strings.Join(v, "|")
	}
	return a, err
}

// fakeHTTP is a gateway whose streams and polls a test answers. Frames that are posted are noted.
type fakeHTTP struct {
	*httptest.Server
	t      *testing.T
	posted chan asked
	status int // of answers to posts; 204
}

// newFakeHTTP serves what is not a post with a function of the test's.
func newFakeHTTP(t *testing.T, serve func(w http.ResponseWriter, r *http.Request, a asked)) *fakeHTTP {
	t.Helper()
	f := &fakeHTTP{t: t, posted: make(chan asked, 100), status: http.StatusNoContent}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, err := askedBy(r)
		if err != nil {
			return
		}
		if a.path == "/connect/frames" {
			f.posted <- a
			w.WriteHeader(f.status)
			return
		}
		serve(w, r, a)
	}))
	t.Cleanup(f.Close)
	return f
}

// dial opens a connection and writes its connect frame.
func (f *fakeHTTP) dial(d Dialer) Conn {
	f.t.Helper()
	c, err := d.Dial(f.t.Context(), strings.Replace(f.URL, "http", "ws", 1)+"/connect")
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(c.Cut)
	if err := c.Write(f.t.Context(), &wire.Connect{Version: 1, Token: "token-1", Cursor: "presented", Client: "test/1"}); err != nil {
		f.t.Fatal(err)
	}
	return c
}

// overHTTP are the dialers whose connections are requests, without connections that outlive a test.
func overHTTP(t *testing.T) map[string]Dialer {
	hc := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(hc.CloseIdleConnections)
	return map[string]Dialer{"sse": &SSE{Client: hc}, "poll": &LongPoll{Client: hc}}
}

func TestHTTP_FirstRequestShowsTokenAndCursor(t *testing.T) {
	for name, d := range overHTTP(t) {
		t.Run(name, func(t *testing.T) {
			got := make(chan asked, 1)
			f := newFakeHTTP(t, func(w http.ResponseWriter, _ *http.Request, a asked) {
				got <- a
				w.WriteHeader(http.StatusServiceUnavailable)
			})
			f.dial(d).Read()
			a := <-got
			if a.method != "GET" || a.path != "/connect/"+name || a.token != "token-1" || a.body != "" {
				t.Errorf("asked with %+v", a)
			}
			if a.query["cursor"] != "presented" || a.query["client"] != "test/1" || a.query["version"] != "1" || a.query["token"] != "" {
				t.Errorf("the query is %v", a.query)
			}
		})
	}
}

func TestHTTP_FramesOfTheClientArePostedUnderTheTokenThatHolds(t *testing.T) {
	for name, d := range overHTTP(t) {
		t.Run(name, func(t *testing.T) {
			f := newFakeHTTP(t, func(http.ResponseWriter, *http.Request, asked) {})
			c := f.dial(d)
			for _, step := range []struct {
				frame       wire.Frame
				token, body string // empty: nothing is posted
			}{
				{&wire.Ping{}, "", ""},
				{&wire.Pong{}, "", ""},
				{&wire.Ack{Cursor: "1.2.3"}, "token-1", `{"type":"ack","cursor":"1.2.3"}`},
				{&wire.Refresh{Token: "token-2"}, "token-1", `{"type":"refresh","token":"token-2"}`},
				{&wire.Ack{Cursor: "1.2.4"}, "token-2", `{"type":"ack","cursor":"1.2.4"}`},
			} {
				if err := c.Write(t.Context(), step.frame); err != nil {
					t.Fatal(err)
				}
				if step.body == "" {
					continue
				}
				a := <-f.posted
				if a.method != "POST" || a.token != step.token || a.body != step.body {
					t.Errorf("posted %+v, want %s under %s", a, step.body, step.token)
				}
			}
			if n := len(f.posted); n != 0 {
				t.Errorf("%d more frames were posted", n)
			}
			if err := c.Write(t.Context(), &wire.Connect{}); err == nil {
				t.Error("a second connect frame is taken")
			}
		})
	}
}

func TestHTTP_APostThatIsRefusedIsAnError(t *testing.T) {
	for name, d := range overHTTP(t) {
		f := newFakeHTTP(t, func(http.ResponseWriter, *http.Request, asked) {})
		f.status = http.StatusUnauthorized
		err := f.dial(d).Write(t.Context(), &wire.Ack{Cursor: "1"})
		var closed *ClosedError
		if !errors.As(err, &closed) || closed.Code.Duty() != wire.RenewToken {
			t.Errorf("%s: got %v, want an error that asks for another token", name, err)
		}
	}
}

func TestHTTP_RefusalsAskForWhatTheirCloseCodesAskFor(t *testing.T) {
	cases := []struct {
		status int
		after  string
		body   string
		code   wire.CloseCode // 0: none, but a *push.Error
		kind   push.Kind
		wait   time.Duration
	}{
		{status: 401, body: `{"code":"token_refused"}`, code: wire.CloseTokenRefused},
		{status: 401, body: `{"code":"token_expired"}`, code: wire.CloseTokenExpired},
		{status: 401, body: `who are you?`, code: wire.CloseTokenRefused},
		{status: 403, body: `{"code":"deleted"}`, code: wire.CloseDeleted},
		{status: 403, body: `{"code":"replaced"}`, code: wire.CloseReplaced},
		{status: 400, body: `{"code":"version"}`, code: wire.CloseVersion},
		{status: 403, body: `{"code":"origin_forbidden"}`, kind: push.KindInvalid},
		{status: 403, body: `{"code":"unknown"}`, kind: push.KindInvalid},
		{status: 404, body: `nothing here`, kind: push.KindInvalid},
		{status: 503, after: "7", body: `{"code":"overloaded"}`, kind: push.KindUnavailable, wait: 7 * time.Second},
		{status: 429, after: "3", kind: push.KindLimited, wait: 3 * time.Second},
		{status: 502, body: `<html>`, kind: push.KindUnavailable},
	}
	for name, d := range overHTTP(t) {
		for _, c := range cases {
			f := newFakeHTTP(t, func(w http.ResponseWriter, _ *http.Request, _ asked) {
				if c.after != "" {
					w.Header().Set("Retry-After", c.after)
				}
				w.WriteHeader(c.status)
				io.WriteString(w, c.body)
			})
			_, err := f.dial(d).Read()
			var closed *ClosedError
			var refused *push.Error
			switch {
			case c.code != 0:
				if !errors.As(err, &closed) || closed.Code != c.code {
					t.Errorf("%s: %d %s: got %v, want close code %v", name, c.status, c.body, err, c.code)
				}
			case errors.As(err, &closed), !errors.As(err, &refused), refused.Kind != c.kind, refused.After != c.wait:
				t.Errorf("%s: %d %s: got %v, want kind %d after %v", name, c.status, c.body, err, c.kind, c.wait)
			}
		}
	}
}

func TestHTTP_CloseAndCutEndAReadUnderWay(t *testing.T) {
	for name, d := range overHTTP(t) {
		for ending, end := range map[string]func(Conn){"close": Conn.Close, "cut": Conn.Cut} {
			t.Run(name+" "+ending, func(t *testing.T) {
				reached := make(chan struct{})
				f := newFakeHTTP(t, func(w http.ResponseWriter, r *http.Request, _ asked) {
					if name == "sse" {
						w.Header().Set("Content-Type", "text/event-stream")
						w.(http.Flusher).Flush()
					}
					close(reached)
					<-r.Context().Done() // the server learns of it
				})
				c := f.dial(d)
				read := make(chan error, 1)
				go func() {
					_, err := c.Read()
					read <- err
				}()
				<-reached
				end(c)
				if err := <-read; err == nil {
					t.Error("Read returned a frame")
				}
			})
			t.Run(name+" "+ending+" before the connect frame", func(t *testing.T) {
				c, err := d.Dial(t.Context(), "http://127.0.0.1:1/connect")
				if err != nil {
					t.Fatal(err)
				}
				end(c)
				if _, err := c.Read(); err == nil {
					t.Error("Read returned a frame")
				}
			})
		}
	}
}

func TestHTTP_AddressesOfEveryKindLeadToTheSamePlace(t *testing.T) {
	for at, want := range map[string]string{
		"ws://push.example/connect":            "http://push.example/connect",
		"wss://push.example:8443/connect/":     "https://push.example:8443/connect",
		"https://push.example/connect/sse":     "https://push.example/connect",
		"http://push.example/a/connect/poll?x": "http://push.example/a/connect",
	} {
		if got, err := connectURL(at); err != nil || got != want {
			t.Errorf("%s leads to %s, %v, want %s", at, got, err, want)
		}
	}
	for name, d := range overHTTP(t) {
		for _, at := range []string{"tcp://push.example:8082", "push.example/connect", "://"} {
			if _, err := d.Dial(t.Context(), at); err == nil {
				t.Errorf("%s: %q is taken for an address", name, at)
			}
		}
	}
}

// pipes serves a handler in memory, for a bubble of virtual time, and returns a client that knows no other network.
func pipes(t *testing.T, h http.Handler) *http.Client {
	l := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
	srv := &http.Server{Handler: h}
	var serving sync.WaitGroup
	serving.Go(func() { srv.Serve(l) })
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		near, far := net.Pipe()
		select {
		case l.conns <- far:
			return near, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		srv.Close()
		serving.Wait()
	})
	return &http.Client{Transport: tr}
}

type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// answerOf writes the answer of a poll.
func answerOf(session string, frames ...wire.Frame) string {
	raws := make([]json.RawMessage, len(frames))
	for i, f := range frames {
		raws[i] = wire.Append(nil, wire.JSON, f)
	}
	b, err := json.Marshal(raws)
	if err != nil {
		panic(err) // frames are JSON
	}
	return fmt.Sprintf(`{"session":%q,"cursor":"not looked at","frames":%s}`, session, b)
}
