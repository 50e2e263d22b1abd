package longpoll

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/transport/engine"
	"carillon/server/transport/transporttest"
	"carillon/server/wire"
)

// line is one connection of a client that writes its requests by hand.
type line struct {
	t  testing.TB
	nc net.Conn
	br *bufio.Reader
}

func dial(t testing.TB, addr string) *line {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetReadDeadline(time.Now().Add(2 * patience))
	return &line{t, nc, bufio.NewReader(nc)}
}

func (l *line) write(s string) {
	l.t.Helper()
	if _, err := io.WriteString(l.nc, s); err != nil {
		l.t.Fatal(err)
	}
}

// response reads an answer of any kind.
func (l *line) response() (*http.Response, string) {
	l.t.Helper()
	res, err := http.ReadResponse(l.br, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	return res, string(b)
}

// answer reads an answer 200 and decodes it.
func (l *line) answer() body {
	l.t.Helper()
	res, b := l.response()
	if res.StatusCode != http.StatusOK {
		l.t.Fatalf("got %d %s, want 200", res.StatusCode, b)
	}
	var a body
	if err := json.Unmarshal([]byte(b), &a); err != nil {
		l.t.Fatalf("%v in %s", err, b)
	}
	return a
}

// refused reads a problem.
func (l *line) refused() (*http.Response, string) {
	l.t.Helper()
	res, b := l.response()
	var p struct{ Code string }
	if res.Header.Get("Content-Type") != "application/problem+json" || json.Unmarshal([]byte(b), &p) != nil {
		l.t.Fatalf("got %d %v %s, want a problem", res.StatusCode, res.Header, b)
	}
	return res, p.Code
}

// ends reads to the end of the connection, which the server has to bring about, and returns what came.
func (l *line) ends() string {
	l.t.Helper()
	b, err := io.ReadAll(l.br)
	if isTimeout(err) {
		l.t.Fatal("the server does not close")
	}
	return string(b)
}

// begin sends a first poll and returns the session with its first answer.
func (l *line) begin(r *room) (*session, body) {
	l.t.Helper()
	l.write(request("", "", "", "alice", ""))
	s := r.session(l.t)
	s.connect(l.t)
	get(l.t, s.polls, "a poll")
	a := l.answer()
	get(l.t, s.overs, "the end of the poll")
	return s, a
}

// next sends the poll that follows an answer, and returns when the session knows of it.
func (l *line) next(s *session, a body) polled {
	l.t.Helper()
	l.write(request(a.Session, a.Cursor, "", "alice", ""))
	return get(l.t, s.polls, "the next poll")
}

func TestPoll_ThatFitsNoSessionSaysWhichOneItsClientHad(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		addr, r, _ := start(t, cfg)
		l := dial(t, addr)
		l.write(request("", "", "", "alice", ""))
		s := r.session(t)
		if got := s.connect(t).After; got != 0 {
			t.Errorf("the first poll of a client comes after session %d", got)
		}
		get(t, s.polls, "a poll")
		a := l.answer()
		get(t, s.overs, "the end of the poll")
		for _, tc := range []struct{ name, session, cursor string }{
			{"of another node", "4711", ""},
			{"with a cursor that is not that of the last answer", a.Session, cursorAt(s.number, 99)},
		} {
			l.write(request(tc.session, tc.cursor, "", "alice", ""))
			s := r.session(t)
			l.answer()
			if got := strconv.FormatUint(uint64(s.connect(t).After), 10); got != tc.session {
				t.Errorf("%s: comes after %s, want %s", tc.name, got, tc.session)
			}
			s.conn.Cut(wire.CloseLost)
		}
	})
}

func TestPoll_FirstAnswerHoldsTheWelcomeAndComesAtOnce(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		addr, r, _ := start(t, cfg)
		l := dial(t, addr)
		l.write("GET /connect/poll?cursor=mine&client=curl%2F8&version=2&wait=0 HTTP/1.1\r\nHost: carillon.example\r\n" +
			"Authorization: Bearer token\r\nUser-Agent: curl/8\r\n\r\n")
		s := r.session(t)
		if got, want := *s.connect(t), (wire.Connect{Version: 2, Token: "token", Cursor: "mine", Client: "curl/8"}); got != want {
			t.Errorf("connect: got %+v, want %+v", got, want)
		}
		if got, want := get(t, s.polls, "a poll"), (polled{"", 0}); got != want {
			t.Errorf("poll: got %+v, want %+v", got, want)
		}
		if m := s.meta; m.Kind != transport.LongPoll || m.UserAgent != "curl/8" || !m.Remote.IsValid() ||
			m.Capabilities != (transport.Capabilities{Encoding: wire.JSON, Polls: true}) {
			t.Errorf("meta: got %+v", m)
		}
		res, b := l.response()
		want := fmt.Sprintf(`{"session":"1","cursor":"%s","frames":[%s]}`+"\n", cursorAt(1, 0), wire.Append(nil, wire.JSON, welcomeOf(1)))
		if res.StatusCode != http.StatusOK || b != want {
			t.Errorf("got %d %s, want %s", res.StatusCode, b, want)
		}
		h := res.Header
		if h.Get("Content-Type") != "application/json" || h.Get("Cache-Control") != "no-store" || h.Get("Date") == "" || res.Close ||
			res.ContentLength != int64(len(want)) || len(res.TransferEncoding) > 0 {
			t.Errorf("headers: %v, length %d, close %v", h, res.ContentLength, res.Close)
		}
	})
}

func TestPoll_WaitsAndIsAnsweredWithWhatComes(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		addr, r, _ := start(t, cfg)
		l := dial(t, addr)
		s, a := l.begin(r)
		if got := l.next(s, a); got != (polled{a.Cursor, 55 * time.Second}) {
			t.Errorf("poll: got %+v", got)
		}
		s.put(message(7, `"tea"`), message(8, `"cake"`))
		b := l.answer()
		get(t, s.overs, "the end of the poll")
		if b.Session != a.Session || b.Cursor != cursorAt(1, 8) || len(b.Frames) != 2 {
			t.Fatalf("got %+v, want two frames up to position 8", b)
		}
		for i, raw := range b.Frames {
			f, err := wire.DecodeServer(wire.JSON, raw)
			if m, ok := f.(*wire.Message); err != nil || !ok || int(m.Pos) != 7+i {
				t.Errorf("frame %d: %s, %v", i, raw, err)
			}
		}
		if got := l.next(s, b); got.cursor != b.Cursor {
			t.Errorf("the next poll acknowledges %q, want %q", got.cursor, b.Cursor)
		}
		s.put(wire.Out{Frame: &wire.Ping{}})
		c := l.answer()
		if c.Session != a.Session || c.Cursor != b.Cursor || c.Frames == nil || len(c.Frames) != 0 {
			t.Errorf("got %+v, want the same cursor and no frames", c)
		}
		if len(r.began) > 0 || len(s.closed) > 0 {
			t.Error("the session did not go on")
		}
	})
}

func TestPoll_WaitOfNothingAnswersAtOnce(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		addr, r, _ := start(t, cfg)
		l := dial(t, addr)
		s, a := l.begin(r)
		for range 3 {
			l.write(request(a.Session, a.Cursor, "0", "alice", ""))
			if b := l.answer(); b.Session != a.Session || b.Cursor != a.Cursor || b.Frames == nil || len(b.Frames) != 0 {
				t.Errorf("got %+v, want the same cursor and no frames", b)
			}
			if got := get(t, s.polls, "a poll"); got.wait != 0 {
				t.Errorf("wait: got %v, want 0", got.wait)
			}
			get(t, s.overs, "the end of the poll")
		}
	})
}

// A client that is let in by nobody reads so from the status.
func TestPoll_SessionThatBeginsWithItsEndIsAnHTTPRefusal(t *testing.T) {
	for _, tc := range []struct {
		frame  wire.Frame // nil: none
		code   wire.CloseCode
		status int
		name   string
		after  string
	}{
		{&wire.Kick{Code: wire.CloseTokenRefused}, wire.CloseTokenRefused, 401, "token_refused", ""},
		{&wire.Kick{Code: wire.CloseTokenExpired}, wire.CloseTokenExpired, 401, "token_expired", ""},
		{&wire.Kick{Code: wire.CloseForbidden}, wire.CloseForbidden, 403, "forbidden", ""},
		{&wire.Kick{Code: wire.CloseVersion}, wire.CloseVersion, 400, "version", ""},
		{&wire.Goaway{Code: wire.CloseOverloaded, DelayMillis: 2500}, wire.CloseOverloaded, 503, "overloaded", "3"},
		{nil, wire.CloseDeleted, 403, "deleted", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			engines(t, func(t *testing.T, cfg Config) {
				addr, r, tr := start(t, cfg)
				r.silent = true
				l := dial(t, addr)
				l.write(request("", "", "", "alice", ""))
				s := r.session(t)
				get(t, s.polls, "a poll")
				if tc.frame != nil {
					s.put(wire.Out{Frame: tc.frame})
				}
				s.conn.Close(tc.code)
				res, code := l.refused()
				if res.StatusCode != tc.status || code != tc.name || res.Header.Get("Retry-After") != tc.after {
					t.Errorf("got %d %s, Retry-After %q, want %d %s, %q",
						res.StatusCode, code, res.Header.Get("Retry-After"), tc.status, tc.name, tc.after)
				}
				// The refusal may have been written before the room said Close; then the room's own code counts for it.
				if got := get(t, s.closed, "Closed"); got != tc.code && got != wire.CloseLost {
					t.Errorf("Closed: got %v, want %v", got, tc.code)
				}
				if len(tr.known) > 0 {
					t.Error("a refused session can be continued")
				}
				l.write(request("", "", "0", "alice", "")) // a refusal ends no connection
				r.session(t)
			})
		})
	}
}

func TestPoll_NodeThatIsFullSaysWhenToComeBack(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		addr, r, tr := start(t, cfg)
		r.refusal = &push.Error{Kind: push.KindUnavailable, Code: "draining", After: 1500 * time.Millisecond}
		l := dial(t, addr)
		l.write(request("", "", "", "alice", ""))
		res, code := l.refused()
		if res.StatusCode != 503 || code != "draining" || res.Header.Get("Retry-After") != "2" {
			t.Errorf("got %d %s, Retry-After %q, want 503 draining, 2", res.StatusCode, code, res.Header.Get("Retry-After"))
		}
		checkEmpty(t, tr)
	})
}

// checkEmpty waits until nothing is counted any more.
func checkEmpty(t *testing.T, tr *Transport) {
	t.Helper()
	late := time.Now().Add(patience)
	for {
		tr.mu.Lock()
		known := len(tr.known)
		tr.mu.Unlock()
		if tr.live.Len() == 0 && known == 0 && tr.Waiting() == 0 {
			return
		}
		if time.Now().After(late) {
			t.Fatalf("left over: %d in all, %d known, %d parked", tr.live.Len(), known, tr.Waiting())
		}
		runtime.Gosched()
	}
}

func TestPoll_WhatIsNoPollIsRefused(t *testing.T) {
	addr, r, tr := start(t, Config{})
	for _, tc := range []struct {
		name, request string
		status        int
		code          string
	}{
		{"no token", "GET /?wait=0 HTTP/1.1\r\nHost: h\r\n\r\n", 401, "unauthenticated"},
		{"a token in the URL", "GET /?token=x HTTP/1.1\r\nHost: h\r\n\r\n", 400, "token_in_url"},
		{"too long a wait", request("", "", "56", "alice", ""), 400, "invalid_parameter"},
		{"no session's number", request("x", "", "", "alice", ""), 400, "invalid_parameter"},
		{"a ticket, and there are none", "GET /?ticket=x HTTP/1.1\r\nHost: h\r\n\r\n", 401, "ticket_refused"},
		{"another method", "PUT / HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer x\r\n\r\n", 405, "method_not_allowed"},
		{"a body", "POST / HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer x\r\nContent-Length: 2\r\n\r\n{}", 400, "unexpected_body"},
		{"a body of unknown length",
			"POST / HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "unexpected_body"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := dial(t, addr)
			l.write(tc.request)
			if res, code := l.refused(); res.StatusCode != tc.status || code != tc.code {
				t.Errorf("got %d %s, want %d %s", res.StatusCode, code, tc.status, tc.code)
			}
		})
	}
	if len(r.began) > 0 {
		t.Error("a refused request got a session")
	}
	checkEmpty(t, tr)
}

func TestPoll_PostWithoutABodyIsAPoll(t *testing.T) {
	addr, r, _ := start(t, Config{})
	l := dial(t, addr)
	for _, length := range []string{"", "Content-Length: 0\r\n"} {
		l.write("POST /connect/poll HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer x\r\n" + length + "\r\n")
		r.session(t)
		l.answer()
	}
}

func TestPoll_NewerTakesThePlaceOfTheOlder(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		addr, r, _ := start(t, cfg)
		older := dial(t, addr)
		s, a := older.begin(r)
		older.next(s, a)
		newer := dial(t, addr)
		newer.next(s, a)
		if b := older.answer(); b.Session != a.Session || b.Cursor != a.Cursor || len(b.Frames) != 0 {
			t.Errorf("the older: got %+v, want nothing", b)
		}
		s.put(message(1, `1`))
		if b := newer.answer(); len(b.Frames) != 1 {
			t.Errorf("the newer: got %d frames, want 1", len(b.Frames))
		}
		get(t, s.overs, "the end of the newer")
		if len(s.overs) > 0 {
			t.Error("the end of the older was reported")
		}
	})
}

// What was being taken when the newer came is what follows the cursor that the newer showed: it is the newer's answer.
func TestPoll_NewerGetsWhatIsBeingTakenForTheOlder(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		addr, r, _ := start(t, cfg)
		older := dial(t, addr)
		s, a := older.begin(r)
		older.next(s, a)
		s.waitTakes(t, 2)
		gate := make(chan struct{})
		s.mu.Lock()
		s.gate, s.taken = gate, make(chan struct{}, 16)
		s.mu.Unlock()
		s.put(message(1, `1`))
		get(t, s.taken, "a Take")
		newer := dial(t, addr)
		newer.next(s, a)
		if b := older.answer(); len(b.Frames) != 0 {
			t.Errorf("the older: got %d frames, want none", len(b.Frames))
		}
		close(gate)
		if b := newer.answer(); len(b.Frames) != 1 {
			t.Errorf("the newer: got %d frames, want 1", len(b.Frames))
		}
	})
}

// waitTakes waits until so many Takes have returned.
func (s *session) waitTakes(t testing.TB, n int) {
	t.Helper()
	transporttest.Eventually(t, fmt.Sprintf("%d Takes", n), func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.takes >= n
	})
}

func TestPoll_LostAnswerBeginsANewSessionAtTheCursorShown(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		addr, r, _ := start(t, cfg)
		lost := dial(t, addr)
		s, a := lost.begin(r)
		lost.next(s, a)
		s.put(message(1, `1`))
		get(t, s.overs, "the end of the poll") // its answer is on its way, and gets lost
		l := dial(t, addr)
		l.write(request(a.Session, a.Cursor, "", "alice", ""))
		if got := get(t, s.closed, "Closed"); got != wire.CloseLost {
			t.Errorf("Closed: got %v, want %v", got, wire.CloseLost)
		}
		s2 := r.session(t)
		if got := s2.connect(t).Cursor; got != a.Cursor {
			t.Errorf("the new session begins at %q, want %q", got, a.Cursor)
		}
		if b := l.answer(); b.Session == a.Session || len(b.Frames) != 1 {
			t.Errorf("got %+v, want the welcome of another session", b)
		}
	})
}

func TestPoll_UnknownSessionIsANewOne(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		addr, r, _ := start(t, cfg)
		l := dial(t, addr)
		l.write(request("4711", "some-cursor", "", "alice", ""))
		if got := r.session(t).connect(t).Cursor; got != "some-cursor" {
			t.Errorf("cursor: got %q, want the one shown", got)
		}
		if b := l.answer(); b.Session != "1" {
			t.Errorf("session: got %q, want another", b.Session)
		}
	})
}

// The number of a session and its cursor stand in logs. They open nothing.
func TestPoll_AnotherTokenSeesNothingOfTheSession(t *testing.T) {
	owners := map[string]push.CursorOwner{"renewed": 1, "mallory": 2}
	owner := func(_ context.Context, token string) (push.CursorOwner, error) {
		o, ok := owners[token]
		if !ok {
			return 0, errors.New("does not hold")
		}
		return o, nil
	}
	for _, tc := range []struct {
		name, token string
		owner       func(context.Context, string) (push.CursorOwner, error)
	}{
		{"nobody can say whose", "renewed", nil},
		{"of another device", "mallory", owner},
		{"that does not hold", "forged", owner},
	} {
		t.Run(tc.name, func(t *testing.T) {
			engines(t, func(t *testing.T, cfg Config) {
				cfg.Owner = tc.owner
				addr, r, _ := start(t, cfg)
				l := dial(t, addr)
				s, a := l.begin(r)
				l.next(s, a)
				stranger := dial(t, addr)
				stranger.write(request(a.Session, a.Cursor, "", tc.token, ""))
				if got := r.session(t).connect(t).Token; got != tc.token {
					t.Errorf("the new session is of %q", got)
				}
				if b := stranger.answer(); b.Session == a.Session {
					t.Error("the stranger goes on with the session")
				}
				s.put(message(1, `"for alice"`))
				if b := l.answer(); len(b.Frames) != 1 {
					t.Errorf("alice: got %d frames, want 1", len(b.Frames))
				}
				if len(s.frames) > 0 || len(s.closed) > 0 {
					t.Error("the stranger reached the session")
				}
			})
		})
	}
}

func TestPoll_NewTokenOfTheSameDeviceIsARefresh(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		cfg.Owner = func(context.Context, string) (push.CursorOwner, error) { return 1, nil }
		addr, r, _ := start(t, cfg)
		l := dial(t, addr)
		s, a := l.begin(r)
		l.write(request(a.Session, a.Cursor, "", "renewed", ""))
		if f, ok := get(t, s.frames, "a frame").(*wire.Refresh); !ok || f.Token != "renewed" {
			t.Errorf("got %+v, want a refresh", f)
		}
		get(t, s.polls, "the poll")
		s.put(wire.Out{Frame: &wire.Refresh{Expires: 5}})
		b := l.answer()
		l.write(request(b.Session, b.Cursor, "0", "renewed", ""))
		l.answer()
		if len(s.frames) > 0 {
			t.Error("the same token was taken for a newer one")
		}
	})
}

func TestPoll_OfAClientThatLeftNothingIsTaken(t *testing.T) {
	for _, half := range []bool{true, false} {
		t.Run(fmt.Sprintf("half-closed=%v", half), func(t *testing.T) {
			engines(t, func(t *testing.T, cfg Config) {
				addr, r, _ := start(t, cfg)
				l := dial(t, addr)
				s, a := l.begin(r)
				l.next(s, a)
				if half {
					l.nc.(*net.TCPConn).CloseWrite()
				} else {
					l.nc.(*net.TCPConn).SetLinger(0)
					l.nc.Close()
				}
				get(t, s.overs, "the end of the poll")
				s.put(message(1, `1`))
				if half {
					if got := l.ends(); got != "" {
						t.Errorf("a client that left is answered %q", got)
					}
				}
				if got := s.waiting(); got != 1 {
					t.Errorf("%d messages are left in the queue, want 1", got)
				}
				again := dial(t, addr)
				again.next(s, a)
				if b := again.answer(); b.Session != a.Session || len(b.Frames) != 1 {
					t.Errorf("got %+v, want the message of the same session", b)
				}
			})
		})
	}
}

// Nobody can go on with a session whose number nobody has heard.
func TestPoll_ClientThatLeavesBeforeItsWelcomeEndsTheSession(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		addr, r, tr := start(t, cfg)
		r.silent = true
		l := dial(t, addr)
		l.write(request("", "", "", "alice", ""))
		s := r.session(t)
		s.waitTakes(t, 1)
		l.nc.Close()
		if got := get(t, s.closed, "Closed"); got != wire.CloseLost {
			t.Errorf("Closed: got %v, want %v", got, wire.CloseLost)
		}
		checkEmpty(t, tr)
	})
}

func TestPoll_ClientThatLeavesDuringATakeLosesTheSessionAndNotTheMessage(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		addr, r, tr := start(t, cfg)
		l := dial(t, addr)
		s, a := l.begin(r)
		l.next(s, a)
		s.waitTakes(t, 2)
		gate := make(chan struct{})
		s.mu.Lock()
		s.gate, s.taken = gate, make(chan struct{}, 16)
		s.mu.Unlock()
		s.put(message(1, `1`))
		get(t, s.taken, "a Take")
		l.nc.(*net.TCPConn).SetLinger(0)
		l.nc.Close()
		waitGone(t, tr, s.number)
		close(gate)
		get(t, s.overs, "the end of the poll")
		if got := get(t, s.closed, "Closed"); got != wire.CloseLost {
			t.Errorf("Closed: got %v, want %v", got, wire.CloseLost)
		}
		again := dial(t, addr)
		again.write(request(a.Session, a.Cursor, "", "alice", ""))
		if got := r.session(t).connect(t).Cursor; got != a.Cursor {
			t.Errorf("the new session begins at %q, want %q", got, a.Cursor)
		}
	})
}

// waitGone waits until the transport has seen that the client of a session's poll left.
func waitGone(t *testing.T, tr *Transport, n push.SessionEpoch) {
	t.Helper()
	c := tr.lookup(n)
	transporttest.Eventually(t, "it is seen that the client left", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.waits != nil && c.waits.gone
	})
}

// A session's goodbye is the answer of the poll that waits, or of the next.
func TestPoll_GoodbyeIsAnAnswer(t *testing.T) {
	goodbye := []wire.Out{
		{Frame: &wire.Cursor{Cursor: cursorAt(1, 9), Reason: wire.CursorGoodbye}},
		{Frame: &wire.Kick{Code: wire.CloseReplaced, Reason: "replaced"}},
	}
	check := func(t *testing.T, l *line, s *session) {
		t.Helper()
		if b := l.answer(); b.Cursor != cursorAt(1, 9) || len(b.Frames) != 2 {
			t.Errorf("got %+v, want the goodbye", b)
		}
		if got := get(t, s.closed, "Closed"); got != wire.CloseReplaced {
			t.Errorf("Closed: got %v, want %v", got, wire.CloseReplaced)
		}
	}
	engines(t, func(t *testing.T, cfg Config) {
		t.Run("of the poll that waits", func(t *testing.T) {
			addr, r, _ := start(t, cfg)
			l := dial(t, addr)
			s, a := l.begin(r)
			l.next(s, a)
			s.waitTakes(t, 2)
			s.end(wire.CloseReplaced, goodbye...)
			check(t, l, s)
		})
		t.Run("of the next", func(t *testing.T) {
			addr, r, _ := start(t, cfg)
			l := dial(t, addr)
			s, a := l.begin(r)
			s.put(goodbye...)
			s.conn.Close(wire.CloseReplaced)
			l.next(s, a)
			check(t, l, s)
		})
		t.Run("where the node goes the connection does too", func(t *testing.T) {
			addr, r, _ := start(t, cfg)
			l := dial(t, addr)
			s, a := l.begin(r)
			l.next(s, a)
			s.waitTakes(t, 2)
			s.end(wire.CloseGoingAway, wire.Out{Frame: &wire.Goaway{Code: wire.CloseGoingAway, Reason: "going_away"}})
			get(t, s.closed, "Closed")
			if got := l.ends(); !strings.Contains(got, "going_away") {
				t.Errorf("got %q, want the goodbye", got)
			}
		})
	})
}

func TestPoll_CutAnswersAWaitingPollWithNothing(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		addr, r, tr := start(t, cfg)
		l := dial(t, addr)
		s, a := l.begin(r)
		l.next(s, a)
		s.conn.Cut(wire.CloseSilent)
		if b := l.answer(); b.Session != a.Session || b.Cursor != a.Cursor || len(b.Frames) != 0 {
			t.Errorf("got %+v, want nothing", b)
		}
		if got := get(t, s.closed, "Closed"); got != wire.CloseSilent {
			t.Errorf("Closed: got %v, want %v", got, wire.CloseSilent)
		}
		checkEmpty(t, tr)
		l.write(request(a.Session, a.Cursor, "", "alice", "")) // the connection goes on
		if got := r.session(t).connect(t).Cursor; got != a.Cursor {
			t.Errorf("the new session begins at %q, want %q", got, a.Cursor)
		}
	})
}

func TestPoll_AcceptorThatPanicsLeavesNothingBehind(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		addr, r, tr := start(t, cfg)
		r.accept = func(transport.Conn, *session) { panic("a bug of the room") }
		l := dial(t, addr)
		l.write(request("", "", "", "alice", ""))
		l.ends()
		checkEmpty(t, tr)
	})
}

func TestPoll_WaitingClientsHoldNoGoroutine(t *testing.T) {
	const polls = 200
	addr, r, tr := start(t, Config{})
	if tr.Engine() != engine.Epoll {
		t.Skip("there is no epoll on this system")
	}
	before := runtime.NumGoroutine()
	var lines []*line
	var sessions []*session
	for range polls {
		l := dial(t, addr)
		s, a := l.begin(r)
		l.next(s, a)
		lines, sessions = append(lines, l), append(sessions, s)
	}
	late := time.Now().Add(patience)
	for tr.Waiting() < polls || runtime.NumGoroutine() > before+polls/10 {
		if time.Now().After(late) {
			t.Fatalf("%d polls are parked, and %d goroutines more run", tr.Waiting(), runtime.NumGoroutine()-before)
		}
		runtime.Gosched()
	}
	for i, s := range sessions {
		s.put(message(1, `1`))
		if b := lines[i].answer(); len(b.Frames) != 1 {
			t.Errorf("poll %d: got %d frames, want 1", i, len(b.Frames))
		}
	}
}

// parked brings a session whose poll is parked.
func parked(t *testing.T, cfg Config) (addr string, tr *Transport, s *session, c *conn, l *line, a body) {
	t.Helper()
	addr, r, tr := start(t, cfg)
	if tr.Engine() != engine.Epoll {
		t.Skip("there is no epoll on this system")
	}
	l = dial(t, addr)
	s, a = l.begin(r)
	l.next(s, a)
	s.waitTakes(t, 2)
	transporttest.Eventually(t, "the poll is parked", func() bool { return tr.Waiting() == 1 })
	return addr, tr, s, tr.lookup(s.number), l, a
}

// The client's next request is net/http's, from the moment on at which the client may send it.
func TestPoll_NobodyReadsItsConnectionOnceTheAnswerHasBegun(t *testing.T) {
	_, _, s, c, l, a := parked(t, Config{})
	c.mu.Lock()
	p := c.waits
	p.answering = true
	c.mu.Unlock()
	l.write(request(a.Session, cursorAt(1, 1), "0", "alice", ""))
	p.Ready(true, false, make([]byte, maxEarly))
	c.mu.Lock()
	if p.rare != nil {
		t.Errorf("%d bytes were read", len(p.rare.early))
	}
	p.answering = false
	c.mu.Unlock()
	s.put(message(1, `1`))
	l.answer()
	l.answer()
}

// The loop may be behind. Whoever takes looks first whether the client is there.
func TestPoll_ClientIsLookedForBeforeSomethingIsTaken(t *testing.T) {
	_, _, s, c, l, _ := parked(t, Config{})
	c.mu.Lock()
	p := c.waits
	c.mu.Unlock()
	p.sock.Mute() // the loop hears nothing
	l.nc.(*net.TCPConn).CloseWrite()
	d := newDrain(new(atomic.Int64))
	transporttest.Eventually(t, "it is seen that the client left", func() bool {
		_, there := c.look(d)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.taking = false
		return !there
	})
	get(t, s.overs, "the end of the poll")
}

// The session hears of a poll before it is asked for it, also where a worker was about to ask it for the one before.
func TestPoll_NothingIsTakenBeforeTheSessionKnowsOfThePoll(t *testing.T) {
	addr, r, tr := start(t, Config{Workers: 1})
	busy := dial(t, addr)
	other, b := busy.begin(r)
	busy.next(other, b)
	other.waitTakes(t, 2)
	gate := make(chan struct{})
	other.mu.Lock()
	other.gate, other.taken = gate, make(chan struct{}, 16)
	other.mu.Unlock()

	older := dial(t, addr)
	s, a := older.begin(r)
	older.next(s, a)
	s.waitTakes(t, 2)
	c := tr.lookup(s.number)
	transporttest.Eventually(t, "the poll waits", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.drain == resting })
	other.conn.Wake(transport.Direct)
	get(t, other.taken, "the worker") // the only one, which waits now
	s.put(message(1, `1`))            // and has this to do next
	takes := make(chan int, 1)
	s.mu.Lock()
	s.inPoll = func() {
		close(gate)
		transporttest.Eventually(t, "the worker is through", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.drain == resting })
		s.mu.Lock()
		takes <- s.takes
		s.mu.Unlock()
	}
	s.mu.Unlock()
	newer := dial(t, addr)
	newer.write(request(a.Session, a.Cursor, "", "alice", ""))
	if got := <-takes; got != 2 {
		t.Errorf("%d Takes before the session knew of the poll, want 2", got)
	}
	if b := newer.answer(); len(b.Frames) != 1 {
		t.Errorf("the newer: got %d frames, want 1", len(b.Frames))
	}
}
