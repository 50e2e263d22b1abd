package jwks

import (
	"bytes"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestFetch_ReadsWhatAnAddressAnswers(t *testing.T) {
	doc := documentOf(t, edKey("a", private().ed))
	for _, test := range []struct {
		name   string
		header http.Header
		want   time.Duration
	}{
		{"says nothing", http.Header{"Content-Type": {"application/json"}}, -1},
		{"says how long", http.Header{"Cache-Control": {"public, max-age=600, must-revalidate"}}, 10 * time.Minute},
		{"in capitals and quotes", http.Header{"Cache-Control": {`Max-Age="60"`}}, time.Minute},
		{"in two lines", http.Header{"Cache-Control": {"public", "max-age=60"}}, time.Minute},
		{"from a cache", http.Header{"Cache-Control": {"max-age=600"}, "Age": {"540"}}, time.Minute},
		{"from an old cache", http.Header{"Cache-Control": {"max-age=600"}, "Age": {"6000"}}, 0},
		{"not at all", http.Header{"Cache-Control": {"max-age=600, no-store"}}, 0},
		{"nonsense", http.Header{"Cache-Control": {"max-age=-5, max-age=soon, max-age=99999999999999"}, "Age": {"x"}}, -1},
		{"as a key set", http.Header{"Content-Type": {"application/jwk-set+json; charset=utf-8"}}, -1},
		{"as plain text", http.Header{"Content-Type": {"text/plain"}}, -1},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for k, v := range test.header {
				w.Header()[k] = v
			}
			_, _ = w.Write(doc)
		}))
		got, age, err := NewFetch(s.Client())(t.Context(), s.URL)
		s.Close()
		if err != nil || !bytes.Equal(got, doc) || age != test.want {
			t.Errorf("%s: got %d bytes, %v, %v, want %v", test.name, len(got), age, err, test.want)
		}
	}
}

func TestFetch_RefusesWhatIsNoAnswerAndDoesNotShowTheAddress(t *testing.T) {
	page := func(status int, media, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", media)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	for name, h := range map[string]http.HandlerFunc{
		"not found":    page(404, "application/json", `{"keys":[]}`),
		"an error":     page(500, "application/json", `{"keys":[]}`),
		"no content":   page(204, "application/json", ""),
		"a redirect":   func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
		"a page":       page(200, "text/html", "<html>"),
		"a large body": page(200, "application/json", strings.Repeat("x", 10*MaxDocument)),
		"a cut body": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, "{")
			panic(http.ErrAbortHandler)
		},
	} {
		s := httptest.NewUnstartedServer(h)
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.Start()
		client := s.Client()
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		doc, _, err := NewFetch(client)(t.Context(), s.URL+"/keys?secret=hush-hush")
		s.Close()
		if err == nil || doc != nil {
			t.Errorf("%s: got %q, %v", name, doc, err)
		} else if strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: the error shows the address: %v", name, err)
		}
		if _, _, err := NewFetch(client)(t.Context(), s.URL+"/keys?secret=hush-hush"); err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("nobody listens: %v", err)
		}
	}
	if _, _, err := NewFetch(http.DefaultClient)(t.Context(), "https://\x7fhush-hush"); err == nil || strings.Contains(err.Error(), "hush") {
		t.Errorf("no address: %v", err)
	}
	if _, _, err := NewFetch(http.DefaultClient)(t.Context(), "https://\x7f"); errors.Is(err, errTooLarge) {
		t.Error(err)
	}
}
