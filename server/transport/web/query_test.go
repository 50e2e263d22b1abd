package web

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/wire"
)

// bag holds tickets, each good for once.
type bag map[string]string

// Redeem implements Tickets.
func (b bag) Redeem(_ context.Context, ticket string) (string, bool, error) {
	token, ok := b[ticket]
	delete(b, ticket)
	return token, ok, nil
}

// get returns a request for a path with that query.
func get(query string, headers ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/connect/sse", nil)
	r.URL.RawQuery = query
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

const cursor = "1.366b3e2ade2f1357.4a1b.9c3d55e07f12a6b8.6955b90000000.77.9c3d55e07f12a6b8.6955b90100000"

func TestParse_TakesWhatIsKnownAndPassesOverTheRest(t *testing.T) {
	bearer := []string{"Authorization", "Bearer abc"}
	plain := Request{Connect: wire.Connect{Version: wire.Version, Token: "abc"}, Wait: MaxWait}
	with := func(change func(*Request)) Request {
		r := plain
		change(&r)
		return r
	}
	cases := []struct {
		name    string
		query   string
		headers []string
		want    Request
	}{
		{"nothing but a token", "", bearer, plain},
		{"the scheme in any case", "", []string{"Authorization", "bEARER abc"}, plain},
		{"a cursor", "cursor=" + cursor, bearer, with(func(r *Request) { r.Connect.Cursor = cursor })},
		{"a cursor that is none", "cursor=yesterday", bearer, with(func(r *Request) { r.Connect.Cursor = "yesterday" })},
		{"an empty cursor", "cursor=", bearer, plain},
		{"the header is newer", "cursor=old", append([]string{"Last-Event-ID", cursor}, bearer...),
			with(func(r *Request) { r.Connect.Cursor = cursor })},
		{"an empty header says nothing", "cursor=old", append([]string{"Last-Event-ID", ""}, bearer...),
			with(func(r *Request) { r.Connect.Cursor = "old" })},
		{"everything", "client=carillon-js%2F1.0+beta&version=2&session=18446744073709551615&wait=0&cursor=c", bearer, Request{
			Connect: wire.Connect{Version: 2, Token: "abc", Cursor: "c", Client: "carillon-js/1.0 beta"},
			Session: 1<<64 - 1,
		}},
		{"a name that is escaped", "%63ursor=c", bearer, with(func(r *Request) { r.Connect.Cursor = "c" })},
		{"the longest hold", "wait=55", bearer, plain},
		{"a ticket", "ticket=t1", nil, plain},
		{"what is unknown", "_=1&_=2&x=%zz&%zz=1&=&;", bearer, plain},
		{"names in another case are unknown", "CURSOR=c&Token=t", bearer, plain},
	}
	for _, c := range cases {
		got, p := Parse(get(c.query, c.headers...), bag{"t1": "abc"})
		switch {
		case p != nil:
			t.Errorf("%s: refused with %+v", c.name, *p)
		case *got != c.want:
			t.Errorf("%s: got %+v, want %+v", c.name, *got, c.want)
		}
	}
}

func TestParse_RefusalsNameTheParameterAndRepeatNothing(t *testing.T) {
	const secret = "sesame"
	bearer := []string{"Authorization", "Bearer " + secret}
	long := strings.Repeat(secret, 1000)
	cases := []struct {
		name      string
		query     string
		headers   []string
		status    int
		code      string
		parameter string
	}{
		{"no credential", "", nil, 401, CodeUnauthenticated, ""},
		{"another scheme", "", []string{"Authorization", "Basic " + secret}, 401, CodeUnauthenticated, "Authorization"},
		{"two credentials", "", append(bearer, bearer...), 400, CodeInvalid, "Authorization"},
		{"a token too long", "", []string{"Authorization", "Bearer " + long}, 400, CodeInvalid, "Authorization"},
		{"a token in the URL", "token=" + secret, bearer, 400, CodeTokenInURL, ""},
		{"a token in the URL, by its other name", "access_token=" + secret, nil, 400, CodeTokenInURL, ""},
		{"a long token in the URL", "token=" + long, nil, 400, CodeTokenInURL, ""},
		{"a cursor too long", "cursor=" + strings.Repeat("s", push.MaxCursorString+1), bearer, 400, CodeInvalid, "cursor"},
		{"a header too long", "", append([]string{"Last-Event-ID", long}, bearer...), 400, CodeInvalid, "Last-Event-ID"},
		{"the header twice", "", append([]string{"Last-Event-ID", "a", "Last-Event-ID", "b"}, bearer...), 400, CodeInvalid, "Last-Event-ID"},
		{"a cursor twice", "cursor=a&cursor=b", bearer, 400, CodeInvalid, "cursor"},
		{"a cursor that is badly escaped", "cursor=%2", bearer, 400, CodeInvalid, "cursor"},
		{"a client too long", "client=" + long, bearer, 400, CodeInvalid, "client"},
		{"a client too long only as it is escaped", "client=" + strings.Repeat("%73", wire.MaxClient+1), bearer, 400, CodeInvalid, "client"},
		{"a client that is no text", "client=%ff", bearer, 400, CodeInvalid, "client"},
		{"a version of none", "version=0", bearer, 400, CodeInvalid, "version"},
		{"a version beyond 32 bits", "version=4294967296", bearer, 400, CodeInvalid, "version"},
		{"a version that is no number", "version=" + secret, bearer, 400, CodeInvalid, "version"},
		{"no session", "session=", bearer, 400, CodeInvalid, "session"},
		{"a session below zero", "session=-1", bearer, 400, CodeInvalid, "session"},
		{"a session beyond 64 bits", "session=18446744073709551616", bearer, 400, CodeInvalid, "session"},
		{"a session with a leading zero", "session=07", bearer, 400, CodeInvalid, "session"},
		{"a wait too long", "wait=56", bearer, 400, CodeInvalid, "wait"},
		{"a wait that is no whole number", "wait=.5", bearer, 400, CodeInvalid, "wait"},
		{"a wait with a sign", "wait=%2B5", bearer, 400, CodeInvalid, "wait"},
		{"an empty ticket", "ticket=", bearer, 400, CodeInvalid, "ticket"},
		{"a ticket too long", "ticket=" + long, nil, 400, CodeInvalid, "ticket"},
		{"a ticket beside a token", "ticket=" + secret, bearer, 400, CodeInvalid, "ticket"},
		{"an unknown ticket", "ticket=" + secret, nil, 401, CodeTicketRefused, "ticket"},
	}
	for _, c := range cases {
		got, p := Parse(get(c.query, c.headers...), bag{})
		if p == nil {
			t.Errorf("%s: taken as %+v", c.name, *got)
			continue
		}
		if p.Status != c.status || p.Code != c.code || p.Parameter != c.parameter {
			t.Errorf("%s: got %d %s of %q, want %d %s of %q", c.name, p.Status, p.Code, p.Parameter, c.status, c.code, c.parameter)
		}
		if p.Detail == "" || strings.Contains(p.Detail, secret) {
			t.Errorf("%s: detail %q", c.name, p.Detail)
		}
	}
}

func TestParse_ATicketIsSpentByAGoodRequestAlone(t *testing.T) {
	ts := bag{"t1": "abc"}
	for _, bad := range []string{"ticket=t1&wait=99", "wait=99&ticket=t1", "ticket=t1&token=x"} {
		if _, p := Parse(get(bad), ts); p == nil || p.Status != 400 {
			t.Errorf("%s: got %+v, want a refusal", bad, p)
		}
	}
	if _, p := Parse(get("ticket=t1", "Last-Event-ID", strings.Repeat("1", 200)), ts); p == nil || p.Status != 400 {
		t.Errorf("a long header: got %+v, want a refusal", p)
	}
	if r, p := Parse(get("ticket=t1"), ts); p != nil || r.Connect.Token != "abc" {
		t.Errorf("the good request: got %+v, %+v", r, p)
	}
	if _, p := Parse(get("ticket=t1"), ts); p == nil || p.Code != CodeTicketRefused {
		t.Errorf("the second use: got %+v, want %s", p, CodeTicketRefused)
	}
	if _, p := Parse(get("ticket=t1"), nil); p == nil || p.Code != CodeTicketRefused {
		t.Errorf("a node without tickets: got %+v, want %s", p, CodeTicketRefused)
	}
}

func TestCheck_RefusesWhatCannotBeTakenFromNetHTTP(t *testing.T) {
	cases := []struct {
		name   string
		change func(r *http.Request)
		status int
		code   string
	}{
		{"as it should be", func(*http.Request) {}, 0, ""},
		{"HTTP/1.0", func(r *http.Request) { r.ProtoMinor = 0 }, 0, ""},
		{"HTTP/2", func(r *http.Request) { r.ProtoMajor, r.ProtoMinor = 2, 0 }, 505, CodeVersion},
		{"HEAD", func(r *http.Request) { r.Method = http.MethodHead }, 405, CodeMethod},
		{"POST", func(r *http.Request) { r.Method = http.MethodPost }, 405, CodeMethod},
		{"a body", func(r *http.Request) { r.ContentLength = 1 }, 400, CodeBody},
		{"a body of a length that is not said", func(r *http.Request) { r.ContentLength = -1 }, 400, CodeBody},
	}
	for _, c := range cases {
		r := get("")
		c.change(r)
		p := Check(r, http.MethodGet)
		if p == nil {
			p = &Problem{}
		}
		if p.Status != c.status || p.Code != c.code {
			t.Errorf("%s: got %d %s, want %d %s", c.name, p.Status, p.Code, c.status, c.code)
		}
	}
	r := get("")
	r.Method = http.MethodPut
	if p := Check(r, http.MethodGet, http.MethodPost); p == nil || p.Allow != "GET, POST" {
		t.Errorf("got %+v, want Allow: GET, POST", p)
	}
}

// FuzzParse holds every query to the limits, and whatever is taken to what net/url makes of it.
func FuzzParse(f *testing.F) {
	for _, q := range []string{
		"", "cursor=" + cursor, "cursor=%31.%2e&client=a+b%2fc", "version=1&session=7&wait=55", "wait=056", "wait=", "wait=-0",
		"token=x", "%74oken=x", "access_token=", "ticket=t", "ticket=%00", "cursor=a&cursor=a", "cursor=a;client=b", "&&=&=%",
		"client=%c3%28", "session=18446744073709551615", "session=18446744073709551616", "x=%zz&wait=1", "wait=%31", "wait=1%",
	} {
		f.Add(q, "", "Bearer a.b.c")
		f.Add(q, cursor, "")
	}
	f.Fuzz(func(t *testing.T, raw, last, authorization string) {
		r := get(raw, "Authorization", authorization)
		if authorization == "" {
			r.Header.Del("Authorization")
		}
		if last != "" {
			r.Header.Set("Last-Event-ID", last)
		}
		got, p := Parse(r, bag{"t": "of the ticket"})
		values, _ := url.ParseQuery(strings.ReplaceAll(raw, ";", "%3B"))
		if p != nil {
			if got != nil || p.Status != 400 && p.Status != 401 || p.Code == "" || p.Detail == "" {
				t.Fatalf("refused with %+v beside %+v", p, got)
			}
			return
		}
		if values.Has("token") || values.Has("access_token") {
			t.Fatal("a token in the URL was taken")
		}
		c := &got.Connect
		want := values.Get("cursor")
		if last != "" {
			want = last
		}
		if c.Cursor != want || c.Client != values.Get("client") {
			t.Fatalf("got cursor %q and client %q, want %q and %q", c.Cursor, c.Client, want, values.Get("client"))
		}
		switch {
		case c.Token == "" || len(c.Token) > wire.MaxToken || len(c.Cursor) > push.MaxCursorString || len(c.Client) > wire.MaxClient:
			t.Fatalf("beyond a limit: %+v", c)
		case c.Version < 1 || got.Wait < 0 || got.Wait > MaxWait || got.Wait%time.Second != 0:
			t.Fatalf("out of range: %+v", got)
		case values.Has("ticket") != (c.Token == "of the ticket") && authorization == "":
			t.Fatalf("token %q", c.Token)
		}
	})
}
