package sse

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/transport/web"
	"carillon/server/wire"
)

// Before the session has said anything, nothing of the answer is written: it may yet be a refusal.
func TestStream_TheHeadWaitsForTheFirstFrame(t *testing.T) {
	eachForm(t, func(t *testing.T, addr string, r *room) {
		c := dialRaw(t, addr, nil, request)
		s := r.session(t)
		get(t, s.frames, "connect")
		s.put(welcome, &wire.Ping{})
		s.put(&wire.Ping{})
		head := string(c.until(t, "\r\n\r\n"))
		for _, line := range []string{
			"HTTP/1.1 200 OK\r\n", "\r\nDate: ", "\r\nContent-Type: text/event-stream\r\n", "\r\nCache-Control: no-store, no-transform\r\n",
			"\r\nX-Accel-Buffering: no\r\n", "\r\nConnection: close\r\n",
		} {
			if !strings.Contains(head, line) {
				t.Errorf("the head lacks %q:\n%s", line, head)
			}
		}
		for _, name := range []string{"Content-Length", "Transfer-Encoding"} {
			if strings.Contains(head, name) {
				t.Errorf("the head has %s", name)
			}
		}
		if got := string(c.until(t, "\n\n")); !strings.HasPrefix(got, "event: welcome\nid: "+begin+"\n") {
			t.Errorf("first event: %q", got)
		}
		if got := string(c.next(t, 6)); got != ":\n\n:\n\n" {
			t.Errorf("pings: got %q", got)
		}
	})
}

// A session that ends before it welcomed is an answer of its own, with the status that says what the close code says.
func TestStream_ARefusalIsAnAnswer(t *testing.T) {
	cases := []struct {
		name   string
		frames []wire.Frame
		code   wire.CloseCode
		status int
		want   string
		detail string
		after  string
	}{
		{"a token refused", []wire.Frame{&wire.Kick{Code: wire.CloseTokenRefused, Detail: "no such key"}}, wire.CloseTokenRefused, 401, "token_refused", "no such key", ""},
		{"forbidden", []wire.Frame{&wire.Kick{Code: wire.CloseForbidden}}, wire.CloseForbidden, 403, "forbidden", "", ""},
		{"another version", []wire.Frame{&wire.Kick{Code: wire.CloseVersion}}, wire.CloseVersion, 400, "version", "", ""},
		{"overloaded", []wire.Frame{&wire.Goaway{Code: wire.CloseOverloaded, DelayMillis: 4001}}, wire.CloseOverloaded, 503, "overloaded", "", "5"},
		{"more behind it", []wire.Frame{&wire.Kick{Code: wire.CloseDeleted}, &wire.Ping{}, &wire.Kick{Code: wire.CloseSlow}}, wire.CloseDeleted, 403, "deleted", "", ""},
		{"a code without a frame", nil, wire.CloseSilent, 503, "silent", "", "1"},
	}
	eachForm(t, func(t *testing.T, addr string, r *room) {
		for _, tc := range cases {
			c := dialRaw(t, addr, nil, request)
			s := r.session(t)
			s.mu.Lock()
			for _, f := range tc.frames {
				s.queue = append(s.queue, wire.Out{Frame: f})
			}
			s.mu.Unlock()
			s.conn.Close(tc.code)
			resp, p := refused(t, c)
			if p.Status != tc.status || p.Code != tc.want || p.Detail != tc.detail || resp.Header.Get("Retry-After") != tc.after {
				t.Errorf("%s: got %+v, Retry-After %q", tc.name, p, resp.Header.Get("Retry-After"))
			}
			if !resp.Close {
				t.Errorf("%s: the answer does not say that the connection ends", tc.name)
			}
			if rest := c.all(t); len(rest) > 0 {
				t.Errorf("%s: behind the answer: %q", tc.name, rest)
			}
			if got := get(t, s.closed, "Closed"); got != tc.code {
				t.Errorf("%s: closed with %v, want %v", tc.name, got, tc.code)
			}
		}
	})
}

// What a client sends behind its request is refused once, however it comes.
func TestStream_BytesBehindTheRequestAreABreach(t *testing.T) {
	breach := func(t *testing.T, s *session) {
		t.Helper()
		if err := get(t, s.refusals, "Refuse"); err.(*push.Error).Code != CodeUnexpected || push.KindOf(err) != push.KindInvalid {
			t.Errorf("refused with %v", err)
		}
	}
	eachForm(t, func(t *testing.T, addr string, r *room) {
		for name, early := range map[string]string{"a byte": "x", "an end of line": "\r\n", "a pipelined request": request} {
			c := dialRaw(t, addr, nil, request+early)
			s := r.session(t)
			breach(t, s)
			if _, p := refused(t, c); p.Status != 400 || p.Code != "protocol" {
				t.Errorf("%s: got %+v, want 400 protocol", name, p)
			}
			c.all(t)
			if got := get(t, s.closed, "Closed"); got != wire.CloseProtocol {
				t.Errorf("%s: closed with %v", name, got)
			}
			if len(r.began) > 0 {
				t.Fatalf("%s: a second session", name)
			}
		}

		c := dialRaw(t, addr, nil, request)
		s := r.session(t)
		s.put(welcome)
		c.until(t, "}\n\n")
		for range 10 {
			if _, err := c.nc.Write([]byte("GET / HTTP/1.1\r\n")); err != nil {
				break // the server has ended it by now
			}
		}
		breach(t, s)
		if got := string(c.all(t)); got != "event: kick\ndata: {\"type\":\"kick\",\"code\":4202,\"reason\":\"protocol\"}\n\n" {
			t.Errorf("got %q", got)
		}
		if got := get(t, s.closed, "Closed"); got != wire.CloseProtocol {
			t.Errorf("closed with %v", got)
		}
		if n := len(s.refusals); n != 0 {
			t.Errorf("%d further refusals", n)
		}
	})
}

// However the client's direction ends, the session is lost: there is no goodbye on this transport.
func TestStream_TheEndOfTheClientIsTheEnd(t *testing.T) {
	eachForm(t, func(t *testing.T, addr string, r *room) {
		for name, end := range map[string]func(c *rawClient) error{
			"close":      func(c *rawClient) error { return c.nc.Close() },
			"half-close": (*rawClient).HalfClose,
		} {
			for _, welcomed := range []bool{false, true} {
				c := dialRaw(t, addr, nil, request)
				s := r.session(t)
				if welcomed {
					s.put(welcome)
					c.until(t, "}\n\n")
				}
				if err := end(c); err != nil {
					t.Fatal(err)
				}
				if got := get(t, s.closed, "Closed"); got != wire.CloseLost {
					t.Errorf("%s, welcomed %v: closed with %v", name, welcomed, got)
				}
				if name == "half-close" {
					c.nc.SetReadDeadline(time.Now().Add(patience))
					if n, err := io.Copy(io.Discard, c.br); n > 0 || err != nil {
						t.Errorf("after the end: %d bytes, %v", n, err)
					}
				}
			}
		}
	})
}

// A client that reads a few bytes at a time gets every byte in its order, and nobody waits for it.
func TestStream_AReaderOfAFewBytesAtATime(t *testing.T) {
	const events, few = 200, 8 << 10
	eachForm(t, func(t *testing.T, addr string, r *room) {
		slow := dialRaw(t, addr, nil, request)
		s := r.session(t)
		outs := []wire.Out{{Frame: welcome}}
		body := `"` + strings.Repeat("x", 64<<10) + `"` // in all more than the kernel takes for a client that does not read
		for i := range events {
			outs = append(outs, message(push.Position(0x6955b90000001+i), body))
		}
		var at web.Follower
		var want []byte
		for i := range outs {
			want = appendEvent(want, &at, &outs[i])
		}
		s.mu.Lock()
		s.queue = outs
		s.mu.Unlock()
		s.conn.Wake(transport.Direct)

		quick := dialRaw(t, addr, nil, request)
		q := r.session(t)
		q.put(welcome)
		quick.until(t, "}\n\n")

		slow.until(t, "\r\n\r\n")
		got := make([]byte, 0, len(want))
		for len(got) < few {
			got = append(got, slow.next(t, min(16, few-len(got)))...)
			if len(got)%(1<<10) == 0 {
				q.put(&wire.Ping{})
				quick.next(t, 3)
			}
		}
		s.mu.Lock()
		if len(s.queue) == 0 {
			t.Error("everything was taken at once: the client was never slow")
		}
		s.mu.Unlock()
		got = append(got, slow.next(t, len(want)-few)...)
		if !bytes.Equal(got, want) {
			t.Error("the stream is not what the session said")
		}
	})
}
