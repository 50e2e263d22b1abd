package origin

import (
	"net/http"
	"strings"
	"testing"
)

// asked makes a request of a page; the headers stand in pairs.
func asked(method, origin string, headers ...string) *http.Request {
	r := &http.Request{Method: method, Host: "push.example", Header: http.Header{}}
	if origin != "" {
		r.Header.Set("Origin", origin)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

func TestShare_AnswersABrowsersQuestion(t *testing.T) {
	s := NewShare(rules(t, "https://app.example"), http.MethodGet, http.MethodPost)
	h := http.Header{}
	v := s.Judge(h, asked("OPTIONS", "https://app.example", "Access-Control-Request-Method", "POST",
		"Access-Control-Request-Headers", "authorization,last-event-id"))
	if v != Preflight {
		t.Fatalf("the verdict is %v, want a whole answer", v)
	}
	for name, want := range map[string]string{
		"Access-Control-Allow-Origin":  "https://app.example",
		"Access-Control-Allow-Methods": "GET, POST",
		"Access-Control-Max-Age":       "7200",
		"Vary":                         "Origin",
	} {
		if got := h.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	for _, want := range []string{"Authorization", "Last-Event-ID", "Content-Type"} {
		if got := h.Get("Access-Control-Allow-Headers"); !strings.Contains(got, want) {
			t.Errorf("the allowed headers are %q, without %s", got, want)
		}
	}
}

func TestShare_MethodsThatThePathDoesNotTakeAreNotAllowed(t *testing.T) {
	s := NewShare(rules(t, "https://app.example"), http.MethodGet)
	h := http.Header{}
	if v := s.Judge(h, asked("OPTIONS", "https://app.example", "Access-Control-Request-Method", "DELETE")); v != Preflight {
		t.Fatalf("the verdict is %v, want a whole answer", v)
	}
	if got := h.Get("Access-Control-Allow-Methods"); got != "GET" {
		t.Errorf("the allowed methods are %q, want GET alone", got)
	}
	if got := h.Get("Access-Control-Max-Age"); got != "" {
		t.Errorf("the refusal is kept for %q seconds", got)
	}
}

func TestShare_LetsPagesReadWhatTheyAskedFor(t *testing.T) {
	s := NewShare(rules(t, "https://app.example"), http.MethodGet)
	h := http.Header{"Vary": {"Accept-Encoding"}}
	if v := s.Judge(h, asked("GET", "https://app.example")); v != Pass {
		t.Fatalf("the verdict is %v, want pass", v)
	}
	if got := h.Get("Access-Control-Allow-Origin"); got != "https://app.example" {
		t.Errorf("the allowed origin is %q", got)
	}
	if got := h.Values("Vary"); len(got) != 2 || got[0] != "Accept-Encoding" || got[1] != "Origin" {
		t.Errorf("Vary is %q, want Origin added", got)
	}
	if got := h.Get("Access-Control-Expose-Headers"); got != "Retry-After" {
		t.Errorf("the exposed headers are %q, want Retry-After", got)
	}
}

func TestShare_NeverAllowsCredentialsAndNeverEveryOrigin(t *testing.T) {
	for _, patterns := range [][]string{{"*"}, {"null"}, {"https://app.example"}} {
		s := NewShare(rules(t, patterns...), http.MethodGet)
		for _, origin := range []string{"https://app.example", "null", "https://evil.example"} {
			for _, r := range []*http.Request{
				asked("GET", origin), asked("OPTIONS", origin, "Access-Control-Request-Method", "GET"),
			} {
				h := http.Header{}
				v := s.Judge(h, r)
				if h["Access-Control-Allow-Credentials"] != nil {
					t.Errorf("%v: a page of %s may send cookies", patterns, origin)
				}
				if allowed := h.Get("Access-Control-Allow-Origin"); v == Refuse && allowed != "" || v != Refuse && allowed != origin {
					t.Errorf("%v: a page of %s gets verdict %v and the origin %q", patterns, origin, v, allowed)
				}
				if h.Get("Vary") != "Origin" {
					t.Errorf("%v: a cache could keep the answer to %s for others", patterns, origin)
				}
			}
		}
	}
}

func TestShare_RefusesStrangePages(t *testing.T) {
	s := NewShare(rules(t, "https://app.example"), http.MethodGet)
	for _, r := range []*http.Request{
		asked("GET", "https://evil.example"), asked("OPTIONS", "https://evil.example", "Access-Control-Request-Method", "GET"),
		asked("GET", "null"),
	} {
		if v := s.Judge(http.Header{}, r); v != Refuse {
			t.Errorf("%s of %s: the verdict is %v, want refuse", r.Method, r.Header.Get("Origin"), v)
		}
	}
}

func TestShare_WhoeverIsNoBrowserPasses(t *testing.T) {
	s := NewShare(rules(t), http.MethodGet)
	for _, r := range []*http.Request{asked("GET", ""), asked("OPTIONS", ""), asked("OPTIONS", "https://push.example")} {
		h := http.Header{}
		if v := s.Judge(h, r); v != Pass {
			t.Errorf("%s: the verdict is %v, want pass", r.Method, v)
		}
	}
}

func TestShare_AnswersDoNotChangeEachOther(t *testing.T) {
	s := NewShare(rules(t, "*"), http.MethodGet)
	one, two := http.Header{}, http.Header{}
	s.Judge(one, asked("GET", "https://one.example"))
	one.Add("Vary", "Cookie")
	one.Add("Access-Control-Expose-Headers", "Secret")
	s.Judge(two, asked("GET", "https://two.example"))
	if len(two["Vary"]) != 1 || len(two["Access-Control-Expose-Headers"]) != 1 {
		t.Errorf("what one answer added stands in another: %v", two)
	}
}
