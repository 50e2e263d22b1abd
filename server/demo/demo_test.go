package demo

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"carillon/server/push"
)

// api notes what it is asked, and answers 201.
type api struct {
	asked []string // method, path as it came, Content-Type, credential, body
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b := []byte{}
	if r.Body != nil {
		b, _ = io.ReadAll(r.Body)
	}
	a.asked = append(a.asked, strings.Join([]string{
		r.Method, r.URL.EscapedPath(), r.Header.Get("Content-Type"), r.Header.Get("Authorization"), string(b),
	}, " "))
	answer(w, http.StatusCreated, "application/json", map[string]string{"id": "1"})
}

func newPage(t *testing.T, a http.Handler) *Handler {
	t.Helper()
	h, err := New(Config{
		Mint: func(u push.UserID, d push.DeviceID, life time.Duration) (string, error) {
			if u == "broken" {
				return "", errors.New("no entropy")
			}
			return string(u) + " " + string(d) + " " + life.String(), nil
		},
		API: a, Key: "key",
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func get(h http.Handler, method, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w
}

func post(h http.Handler, path, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// codeOf returns the code of a problem, and fails if the answer is none.
func codeOf(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	var p struct {
		Status int
		Code   string
	}
	if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Fatalf("%d of type %q, want a problem: %s", w.Code, got, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Status != w.Code {
		t.Fatalf("%d with %s: %v", w.Code, w.Body, err)
	}
	return p.Code
}

func TestHandler_ServesThePageAndWhatItLoads(t *testing.T) {
	h := newPage(t, &api{})
	for path, contentType := range map[string]string{
		"/demo/":         "text/html; charset=utf-8",
		"/demo/demo.css": "text/css; charset=utf-8",
		"/demo/demo.js":  "text/javascript; charset=utf-8",
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			w := get(h, method, path)
			if w.Code != http.StatusOK || w.Header().Get("Content-Type") != contentType || w.Body.Len() < 1000 {
				t.Errorf("%s %s: %d, %q, %d bytes", method, path, w.Code, w.Header().Get("Content-Type"), w.Body.Len())
			}
			if w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("Content-Security-Policy") != policy {
				t.Errorf("%s %s: headers %v", method, path, w.Header())
			}
		}
	}
	w := get(h, http.MethodGet, "/demo?left=bob/tv")
	if got := w.Header().Get("Location"); w.Code != http.StatusTemporaryRedirect || got != "/demo/?left=bob/tv" {
		t.Errorf("without the slash: %d to %q", w.Code, got)
	}
}

// The policy lets no style or script run that stands in the page itself, so there must be none.
func TestHandler_PageKeepsToItsPolicy(t *testing.T) {
	html := get(newPage(t, &api{}), http.MethodGet, "/demo/").Body.String()
	for _, wrong := range []string{"style=", "<style", "<script>", "onclick=", "http://www.w3.org/1999", "https://"} {
		if strings.Contains(html, wrong) {
			t.Errorf("the page has %q in it", wrong)
		}
	}
}

func TestHandler_RefusesPathsAndMethodsThatItDoesNotHave(t *testing.T) {
	h := newPage(t, &api{})
	cases := []struct {
		method, path string
		status       int
		code         string
	}{
		{"GET", "/demo/page/index.html", 404, "not_found"},
		{"GET", "/demo/../demo.go", 404, "not_found"},
		{"GET", "/demo/token", 405, "method_not_allowed"},
		{"PUT", "/demo/send", 405, "method_not_allowed"},
		{"POST", "/demo/", 405, "method_not_allowed"},
		{"OPTIONS", "/demo/send", 405, "method_not_allowed"},
	}
	for _, c := range cases {
		if w := get(h, c.method, c.path); w.Code != c.status || codeOf(t, w) != c.code {
			t.Errorf("%s %s: %d %s", c.method, c.path, w.Code, w.Body)
		}
	}
}

func TestHandler_RefusesWhatAnotherSitesPageCouldSend(t *testing.T) {
	a := &api{}
	h := newPage(t, a)
	const body = `{"user":"alice","device":"phone","body":1,"id":"1"}`
	for _, path := range []string{"/demo/token", "/demo/send", "/demo/recall", "/demo/kick"} {
		for _, site := range []string{"cross-site", "same-site", "whatever"} {
			if w := post(h, path, body, "Sec-Fetch-Site", site); w.Code != http.StatusForbidden || codeOf(t, w) != "cross_site" {
				t.Errorf("%s from %s: %d %s", path, site, w.Code, w.Body)
			}
		}
		for _, contentType := range []string{"", "text/plain", "application/x-www-form-urlencoded", "text/plain; a=application/json"} {
			if w := post(h, path, body, "Content-Type", contentType); w.Code != http.StatusUnsupportedMediaType || codeOf(t, w) != "unsupported_media_type" {
				t.Errorf("%s as %q: %d %s", path, contentType, w.Code, w.Body)
			}
		}
	}
	if len(a.asked) > 0 {
		t.Errorf("the API was asked %q", a.asked)
	}
}

func TestHandler_MintsTokensWithinTheirLives(t *testing.T) {
	h := newPage(t, &api{})
	cases := []struct {
		body   string
		status int
		want   string // of the token, or the code
	}{
		{`{"user":"alice","device":"phone"}`, 200, "alice phone 1h0m0s"},
		{`{"user":"alice","device":"phone","seconds":2}`, 200, "alice phone 2s"},
		{`{"user":"alice","device":"phone","seconds":86400}`, 200, "alice phone 24h0m0s"},
		{`{"user":"alice","device":"phone","seconds":1}`, 400, "invalid_request"},
		{`{"user":"alice","device":"phone","seconds":86401}`, 400, "invalid_request"},
		{`{"user":"alice","device":"phone","seconds":9223372036854775807}`, 400, "invalid_request"},
		{`{"user":"alice"}`, 400, "invalid_request"},
		{`{"user":"a\nb","device":"phone"}`, 400, "invalid_request"},
		{`{"user":"alice","device":"phone","product":"other"}`, 400, "invalid_request"},
		{`{"user":"alice","device":"phone"} {}`, 400, "invalid_request"},
		{`{"user":`, 400, "invalid_request"},
		{``, 400, "invalid_request"},
		{`{"user":"` + strings.Repeat("a", maxBody) + `","device":"phone"}`, 413, "request_too_large"},
		{`{"user":"broken","device":"phone"}`, 500, "internal"},
	}
	for _, c := range cases {
		w := post(h, "/demo/token", c.body, "Sec-Fetch-Site", "same-origin")
		got := ""
		if w.Code == http.StatusOK {
			var a struct{ Token string }
			if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
				t.Error(err)
			}
			got = a.Token
		} else {
			got = codeOf(t, w)
		}
		if w.Code != c.status || got != c.want {
			t.Errorf("%.80s: %d %s, want %d %s", c.body, w.Code, got, c.status, c.want)
		}
	}
}

func TestHandler_AsksTheAPIWithTheKeyAndNothingElse(t *testing.T) {
	cases := []struct{ path, body, want string }{
		{"send", `{"user":"alice","persistent":true,"body":{"a":[1,"<"]}}`,
			`POST /v1/messages application/json Bearer key {"message":{"body":{"a":[1,"\u003c"]},"persistent":true},"to":{"users":["alice"]}}`},
		{"send", `{"everyone":true,"persistent":false,"body":"x"}`,
			`POST /v1/messages application/json Bearer key {"message":{"body":"x","persistent":false},"to":{"everyone":true}}`},
		{"send", `{"tag":"news.sport","body":null}`,
			`POST /v1/messages application/json Bearer key {"message":{"body":null},"to":{"tags":{"all":["news.sport"]}}}`},
		{"recall", `{"id":"12"}`, "DELETE /v1/messages/12  Bearer key "},
		{"recall", `{"id":"../x?y"}`, "DELETE /v1/messages/..%2Fx%3Fy  Bearer key "},
		{"kick", `{"user":"a/b","device":"phone"}`,
			`POST /v1/users/a%2Fb/kick application/json Bearer key {"device":"phone","reason":"Somebody pressed Kick on the demo page."}`},
	}
	for _, c := range cases {
		a := &api{}
		w := post(newPage(t, a), "/demo/"+c.path, c.body, "Authorization", "Bearer of somebody", "Cookie", "a=b")
		if len(a.asked) != 1 || a.asked[0] != c.want {
			t.Errorf("%s %s asked\n%q, want\n%q", c.path, c.body, a.asked, c.want)
		}
		if w.Code != http.StatusCreated || !strings.Contains(w.Body.String(), `"id":"1"`) {
			t.Errorf("%s: the API's answer became %d %s", c.path, w.Code, w.Body)
		}
	}
}

func TestHandler_AsksTheAPIForOneThingAtATime(t *testing.T) {
	a := &api{}
	h := newPage(t, a)
	for _, c := range []struct{ path, body string }{
		{"send", `{"body":1}`},
		{"send", `{"user":"alice","everyone":true,"body":1}`},
		{"send", `{"user":"alice","tag":"news.sport","body":1}`},
		{"recall", `{}`},
		{"kick", `{"device":"phone"}`},
		{"kick", `{"user":"alice"}`},
	} {
		if w := post(h, "/demo/"+c.path, c.body); w.Code != http.StatusBadRequest || codeOf(t, w) != "invalid_request" {
			t.Errorf("%s %s: %d %s", c.path, c.body, w.Code, w.Body)
		}
	}
	if len(a.asked) > 0 {
		t.Errorf("the API was asked %q", a.asked)
	}
}

func TestNew_RefusesWhatIsIncomplete(t *testing.T) {
	if _, err := New(Config{API: &api{}, Key: "key"}); err == nil {
		t.Error("it was made without a way to sign tokens")
	}
}
