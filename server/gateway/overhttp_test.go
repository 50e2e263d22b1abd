package gateway

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// These tests are of both ways in which a session begins with a request whose answer the room decides, and which then leaves by
// itself and not through net/http.
var overHTTP = []string{"/connect/sse", "/connect/poll"}

// knock asks once and returns the answer, with its body if it is a refusal.
func (n *testNode) knock(path, token string, query url.Values, headers ...string) (*http.Response, []byte) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), networkPatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.PublicURL()+path+"?"+query.Encode(), nil)
	if err != nil {
		n.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := n.http.Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusOK {
		return res, nil
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return res, b
}

func TestOverHTTP_TheRoomsRefusalIsTheAnswer(t *testing.T) {
	n := start(t, vfs.NewMem())
	n.setUp()
	good := n.mint(n.sign, claims())
	stranger := n.sign
	stranger.Private = []byte("another secret of thirty-two byte")
	late := claims()
	late.Issued, late.Expires = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	expired := n.mint(n.sign, late)
	for _, path := range overHTTP {
		for _, c := range []struct {
			name, token string
			query       url.Values
			status      int
			code        string
		}{
			{"nobody", "", nil, 401, "unauthenticated"},
			{"a stranger", n.mint(stranger, claims()), nil, 401, "token_refused"},
			{"too late", expired, nil, 401, "token_expired"},
			{"no token at all", "a.b.c", nil, 401, "token_refused"},
			{"another version", good, url.Values{"version": {"99"}}, 400, "version"},
			{"a token in the URL", "", url.Values{"token": {good}}, 400, "token_in_url"},
			{"at once, where it is polled", "a.b.c", url.Values{"wait": {"0"}}, 401, "token_refused"},
		} {
			res, b := n.knock(path, c.token, c.query)
			var p struct {
				Status      int
				Code, Title string
			}
			if err := json.Unmarshal(b, &p); err != nil {
				t.Fatalf("%s: %s: %v in %s", path, c.name, err, b)
			}
			if res.StatusCode != c.status || p.Status != c.status || p.Code != c.code || p.Title == "" {
				t.Errorf("%s: %s: got %d %s, want %d %s", path, c.name, res.StatusCode, b, c.status, c.code)
			}
		}
	}
	if strings.Contains(n.logs.String(), expired) {
		t.Error("a token stands in the log")
	}
}

// The answer still has what the edge of the node sets: pages may read it.
func TestOverHTTP_PagesOfAdmittedOriginsReadTheAnswer(t *testing.T) {
	n := startWith(t, vfs.NewMem(), func(c *Config) { c.Origins = []string{"https://app.example"} })
	n.setUp()
	good := n.poller("alice", "browser").token
	for _, path := range overHTTP {
		for token, status := range map[string]int{good: http.StatusOK, "a.b.c": http.StatusUnauthorized} {
			res, b := n.knock(path, token, nil, "Origin", "https://app.example")
			h := res.Header
			if res.StatusCode != status || h.Get("Access-Control-Allow-Origin") != "https://app.example" || h.Get("Vary") != "Origin" {
				t.Errorf("%s: got %d with %v: %s", path, res.StatusCode, h, b)
			}
			if got := h.Values("X-Content-Type-Options"); len(got) != 1 {
				t.Errorf("%s: %d: X-Content-Type-Options stands %d times", path, status, len(got))
			}
		}
	}
}
