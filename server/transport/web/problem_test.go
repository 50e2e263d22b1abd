package web

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/wire"
)

func TestProblem_ReadsTheSameFromNetHTTPAndFromATakenConnection(t *testing.T) {
	now := time.Date(2026, 11, 26, 23, 1, 2, 0, time.FixedZone("", 3600))
	cases := []struct {
		p      Problem
		header map[string]string
	}{
		{Problem{Status: 401, Code: "token_expired", Detail: "the token ran out"}, map[string]string{"Www-Authenticate": `Bearer realm="carillon"`}},
		{Problem{Status: 403, Code: "replaced"}, nil},
		{Problem{Status: 400, Code: "invalid_parameter", Parameter: "wait", Detail: "a \"quoted\" word"}, nil},
		{Problem{Status: 405, Code: "method_not_allowed", Allow: "GET"}, map[string]string{"Allow": "GET"}},
		{Problem{Status: 429, Code: "connecting_too_fast", After: 4 * time.Second}, map[string]string{"Retry-After": "4"}},
		{Problem{Status: 503, Code: "overloaded"}, map[string]string{"Retry-After": "1"}},
		{Problem{Status: 503, Code: "going_away", After: 2001 * time.Millisecond}, map[string]string{"Retry-After": "3"}},
	}
	for _, c := range cases {
		w := httptest.NewRecorder()
		c.p.Write(w)
		first := w.Result()
		for _, keep := range []bool{true, false} {
			raw := c.p.Append(nil, now, []byte("Vary: Origin\r\n"), keep)
			second, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(raw)), get(""))
			if err != nil {
				t.Fatalf("%s: %v in %q", c.p.Code, err, raw)
			}
			if second.Close == keep {
				t.Errorf("%s: the answer says that the connection ends: %v, want %v", c.p.Code, second.Close, !keep)
			}
			if got, want := second.Header.Get("Date"), "Thu, 26 Nov 2026 22:01:02 GMT"; got != want {
				t.Errorf("%s: date %q, want %q", c.p.Code, got, want)
			}
			if got := second.Header.Get("Vary"); got != "Origin" {
				t.Errorf("%s: the extra header reads %q", c.p.Code, got)
			}
			holds(t, &c.p, second, c.header)
		}
		holds(t, &c.p, first, c.header)
	}
}

// holds compares an answer with the problem that it tells.
func holds(t *testing.T, p *Problem, resp *http.Response, header map[string]string) {
	t.Helper()
	if resp.StatusCode != p.Status {
		t.Errorf("%s: got status %d, want %d", p.Code, resp.StatusCode, p.Status)
	}
	for _, name := range []string{"Www-Authenticate", "Allow", "Retry-After"} {
		if got := resp.Header.Get(name); got != header[name] {
			t.Errorf("%s: %s is %q, want %q", p.Code, name, got, header[name])
		}
	}
	if got := resp.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("%s: type %q", p.Code, got)
	}
	if got := resp.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("%s: Cache-Control %q", p.Code, got)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var got problemBody
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatalf("%s: %v in %q", p.Code, err, b)
	}
	want := problemBody{"about:blank", http.StatusText(p.Status), p.Status, p.Code, p.Detail, p.Parameter}
	if got != want {
		t.Errorf("%s: got %+v, want %+v", p.Code, got, want)
	}
}

// Every close code has a status, and it asks of a client the same as the code does.
func TestProblemOfClose_StatusSaysTheDutyOfTheCode(t *testing.T) {
	duty := map[int]wire.Duty{400: wire.StayAway, 401: wire.RenewToken, 403: wire.StayAway, 503: wire.ComeBack}
	known := 0
	for code := wire.CloseCode(4000); code < 4300; code++ {
		p := ProblemOfClose(code, "why", time.Second)
		d, ok := duty[p.Status]
		if !ok || d != code.Duty() {
			t.Errorf("%d %s: status %d", code, code, p.Status)
		}
		if p.Code != code.String() || p.Detail != "why" || p.After != time.Second {
			t.Errorf("%d: got %+v", code, p)
		}
		if code.String() != "unknown" {
			known++
		}
	}
	if known < 17 {
		t.Errorf("%d codes have a name", known)
	}
	for code, want := range map[wire.CloseCode]int{
		wire.CloseTokenExpired: 401, wire.CloseTokenRefused: 401,
		wire.CloseForbidden: 403, wire.CloseDeleted: 403, wire.CloseRevoked: 403, wire.CloseReplaced: 403,
		wire.CloseProtocol: 400, wire.CloseVersion: 400, wire.CloseFlood: 400,
		wire.CloseGoingAway: 503, wire.CloseOverloaded: 503, wire.CloseInternal: 503,
	} {
		if got := ProblemOfClose(code, "", 0).Status; got != want {
			t.Errorf("%s: got %d, want %d", code, got, want)
		}
	}
}

func TestRefusalOf_OnlyAKickAGoawayOrAnErrorRefuses(t *testing.T) {
	cases := []struct {
		o    wire.Out
		want *Problem
	}{
		{wire.Out{Frame: &wire.Welcome{}}, nil},
		{wire.Out{Frame: &wire.Ping{}}, nil},
		{wire.Out{Frame: &wire.Cursor{}}, nil},
		{wire.Out{Shared: wire.NewShared(&push.Message{ID: 1})}, nil},
		{wire.Out{Frame: &wire.Kick{Code: wire.CloseTokenRefused, Detail: "no"}}, &Problem{Status: 401, Code: "token_refused", Detail: "no"}},
		{wire.Out{Frame: &wire.Goaway{Code: wire.CloseOverloaded, DelayMillis: 1500}}, &Problem{Status: 503, Code: "overloaded", After: 1500 * time.Millisecond}},
		{wire.Out{Frame: &wire.Error{Code: "malformed_frame", Detail: "no"}}, &Problem{Status: 400, Code: "malformed_frame", Detail: "no"}},
	}
	for _, c := range cases {
		got := RefusalOf(&c.o)
		if (got == nil) != (c.want == nil) || got != nil && *got != *c.want {
			t.Errorf("%T: got %+v, want %+v", c.o.Frame, got, c.want)
		}
	}
}

func TestProblemOf_TellsNothingOfWhatIsInternal(t *testing.T) {
	const inside = "disk /dev/sda"
	limited := push.Errorf(push.KindLimited, "limited", "too many")
	limited.After = time.Minute
	cases := []struct {
		err  error
		want Problem
	}{
		{errors.New(inside), Problem{Status: 503, Code: "internal"}},
		{push.Errorf(push.KindInternal, "storage", inside), Problem{Status: 503, Code: "internal"}},
		{fmt.Errorf("%s: %w", inside, limited), Problem{Status: 429, Code: "limited", Detail: "too many", After: time.Minute}},
		{push.Errorf(push.KindUnavailable, "overloaded", "no"), Problem{Status: 503, Code: "overloaded", Detail: "no"}},
		{push.Errorf(push.KindUnauthenticated, "token_refused", "no"), Problem{Status: 401, Code: "token_refused", Detail: "no"}},
		{push.Errorf(push.KindForbidden, "forbidden", "no"), Problem{Status: 403, Code: "forbidden", Detail: "no"}},
		{push.Errorf(push.KindForbidden, "revoked", "no"), Problem{Status: 403, Code: "revoked", Detail: "no"}},
		{push.Errorf(push.KindForbidden, "product_disabled", "no"), Problem{Status: 403, Code: "forbidden", Detail: "no"}},
		{push.Errorf(push.KindInvalid, "invalid_field", "no"), Problem{Status: 400, Code: "invalid_field", Detail: "no"}},
		{push.Errorf(push.KindConflict, "no_session", "no"), Problem{Status: 409, Code: "no_session", Detail: "no"}},
		{push.Errorf(push.KindTooLarge, "frame_too_large", "no"), Problem{Status: 413, Code: "frame_too_large", Detail: "no"}},
		{push.Errorf(push.KindClosed, "shutting_down", "no"), Problem{Status: 503, Code: "shutting_down", Detail: "no"}},
	}
	for _, c := range cases {
		if got := *ProblemOf(c.err); got != c.want {
			t.Errorf("%v: got %+v, want %+v", c.err, got, c.want)
		}
	}
}

func TestExtraHeaders_KeepsWhatOthersSetAndNothingOfOurs(t *testing.T) {
	w := httptest.NewRecorder()
	if got := ExtraHeaders(w); got != nil {
		t.Errorf("without headers: got %q", got)
	}
	h := w.Header()
	for name := range ours {
		h.Set(name, "x")
	}
	if got := ExtraHeaders(w); got != nil {
		t.Errorf("with ours alone: got %q", got)
	}
	h.Set("Access-Control-Allow-Origin", "https://app.example.com\r\nSet-Cookie: a=b")
	h.Add("Vary", "Origin")
	h.Add("Vary", "Accept")
	want := "Access-Control-Allow-Origin: https://app.example.com  Set-Cookie: a=b\r\nVary: Origin\r\nVary: Accept\r\n"
	if got := string(ExtraHeaders(w)); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
