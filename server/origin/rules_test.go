package origin

import (
	"net/http"
	"strings"
	"testing"
)

func rules(t testing.TB, patterns ...string) *Rules {
	t.Helper()
	r, err := New(patterns)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRules_AdmitOwnAndListedPagesAlone(t *testing.T) {
	listed := []string{
		"*.chat.example", "https://app.example", "https://*.shop.example", "localhost:*", "[::1]:*", "[[]fe80::1]:*",
		"capacitor://localhost", "https://port.example:443", "http://plain.example:8080", "WWW.Upper.Example",
	}
	cases := []struct {
		origin string
		want   bool
	}{
		{"https://push.example", true}, // the host that is connected to
		{"http://push.example", true},
		{"https://PUSH.example", true},
		{"https://push.example:443", true},
		{"https://push.example:8443", false},
		{"ftp://push.example", false},
		{"http://a.chat.example", true},
		{"https://a.b.chat.example", true},
		{"https://chat.example", false},
		{"https://achat.example", false},
		{"https://a.chat.example.evil.example", false},
		{"https://a.chat.example:8443", false},
		{"https://app.example", true},
		{"https://app.example:443", true},
		{"http://app.example", false},
		{"https://app.example:444", false},
		{"https://a.shop.example", true},
		{"http://a.shop.example", false},
		{"http://localhost:3000", true},
		{"https://localhost:1", true},
		{"http://localhost", false},
		{"http://[::1]:3000", true},
		{"http://[fe80::1]:3000", true},
		{"http://[::2]:3000", false},
		{"capacitor://localhost", true},
		{"ionic://localhost", false},
		{"https://port.example", true},
		{"http://plain.example:8080", true},
		{"http://plain.example", false},
		{"https://www.upper.example", true},
		{"null", false},
		{"", true}, // none
		{"app.example", false},
		{"https://", false},
		{"://app.example", false},
		{"https://app.example/", false},
		{"https://user@app.example", false},
		{"https://app.example@evil.example", false},
		{"https://evil.example#https://app.example", false},
		{`https://evil.example\.chat.example`, false},
		{"https://app.example, https://evil.example", false},
	}
	r := rules(t, listed...)
	for _, c := range cases {
		req := &http.Request{Host: "push.example", Header: http.Header{"Origin": {c.origin}}}
		if got := r.Admit(req); got != c.want {
			t.Errorf("%q is admitted: %v, want %v", c.origin, got, c.want)
		}
	}
}

func TestRules_EveryPageIsNotOneWithoutOrigin(t *testing.T) {
	for _, c := range []struct {
		patterns []string
		origin   string
		want     bool
	}{
		{[]string{"*"}, "https://anybody.example", true},
		{[]string{"*"}, "null", false},
		{[]string{"*"}, "nonsense", false},
		{[]string{"null"}, "null", true},
		{[]string{"null"}, "https://anybody.example", false},
		{[]string{"https://*"}, "https://anybody.example:8443", true},
		{[]string{"https://*"}, "http://anybody.example", false},
		{nil, "https://anybody.example", false},
	} {
		if got := rules(t, c.patterns...).admits(c.origin, "push.example"); got != c.want {
			t.Errorf("%v admit %q: %v, want %v", c.patterns, c.origin, got, c.want)
		}
	}
}

func TestRules_TwoOriginsAreNoBrowser(t *testing.T) {
	r := rules(t, "*")
	req := &http.Request{Host: "push.example", Header: http.Header{"Origin": {"https://a.example", "https://b.example"}}}
	if r.Admit(req) {
		t.Error("a request with two origins is admitted")
	}
	if !r.Admit(&http.Request{Host: "push.example"}) {
		t.Error("a request without a header is not admitted")
	}
}

func TestNew_SaysWhatIsWrongWithAPattern(t *testing.T) {
	for pattern, want := range map[string]string{
		"[a":                    "syntax error",
		"":                      "no host",
		"https://":              "no host",
		"://app.example":        "no scheme",
		"https://app.example/":  "leave out the slash",
		"https://app.example/a": "no path",
		"a@b.example":           "no user",
		"app.example*":          "its end is open",
		"app.*":                 "its end is open",
		"192.168.*:80":          "its end is open",
		"app.exampl[a-z]x":      "its end is open",
		"app.exampl[a-z]":       "its end is open",
	} {
		if _, err := New([]string{pattern}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q in it", pattern, err, want)
		}
	}
}

func FuzzRules(f *testing.F) {
	for _, s := range []string{"https://app.example", "null", "http://[::1]:3000", "https://a.chat.example", "https://evil.example", "://", "https://a@b"} {
		f.Add(s, "push.example")
	}
	r := rules(f, "*.chat.example", "https://app.example", "localhost:*", "[::1]:*")
	f.Fuzz(func(t *testing.T, origin, host string) {
		if origin == "" || !r.admits(origin, host) {
			return
		}
		_, from, ok := strings.Cut(strings.ToLower(origin), "://")
		own := strings.EqualFold(withoutOwnPort("https", from), withoutOwnPort("https", host)) ||
			strings.EqualFold(withoutOwnPort("http", from), withoutOwnPort("http", host))
		listed := strings.HasSuffix(from, ".chat.example") || strings.HasSuffix(from, ".chat.example:443") ||
			strings.HasSuffix(from, ".chat.example:80") || from == "app.example" || from == "app.example:443" ||
			strings.HasPrefix(from, "localhost:") || strings.HasPrefix(from, "[::1]:")
		if !ok || !own && !listed || strings.ContainsAny(from, "/@ ") {
			t.Errorf("%q is admitted to %q", origin, host)
		}
	})
}
