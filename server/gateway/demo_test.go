package gateway

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"carillon/server/client"
	"carillon/server/push"
	"carillon/server/transport"
)

// startDev runs a development node; dev.json needs a real directory.
func startDev(t *testing.T) *testNode {
	t.Helper()
	return startWith(t, vfs.Default, func(c *Config) { c.Data, c.Dev, c.Secret = t.TempDir(), true, "" })
}

// browse makes a request under the demo page's path, as a browser would that shows the page from this host; site is what it says of the page.
func (n *testNode) browse(method, path, host, site, body string) (int, string, http.Header) {
	n.t.Helper()
	req, err := http.NewRequestWithContext(n.t.Context(), method, "http://"+n.PublicAddr().String()+path, strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	if host != "" {
		req.Host = host
	}
	if site != "" {
		req.Header.Set("Sec-Fetch-Site", site)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Header
}

func TestDemo_IsServedInDevelopmentAlone(t *testing.T) {
	n := startDev(t)
	status, page, header := n.browse("GET", "/demo/", "", "", "")
	if status != http.StatusOK || !strings.Contains(page, "<title>Carillon demo</title>") {
		t.Errorf("the page: %d %.200s", status, page)
	}
	if got := header.Get("Content-Security-Policy"); !strings.HasPrefix(got, "default-src 'none'; script-src 'self'; ") {
		t.Errorf("its policy is %q", got)
	}
	if status, _, header := n.browse("GET", "/demo?single=1", "", "", ""); status != http.StatusTemporaryRedirect || header.Get("Location") != "/demo/?single=1" {
		t.Errorf("without the slash: %d to %q", status, header.Get("Location"))
	}
	if _, page, _ := n.browse("GET", "/", "", "", ""); !strings.Contains(page, `<a href="/demo/">`+n.PublicURL()+"/demo/</a>") {
		t.Errorf("the first page has no link to the demo: %s", page)
	}

	n = start(t, vfs.NewMem())
	for path, method := range map[string]string{
		"/demo": "GET", "/demo/": "GET", "/demo/demo.js": "GET", "/demo/token": "POST", "/demo/send": "POST", "/demo/recall": "POST", "/demo/kick": "POST",
	} {
		if status, body, _ := n.browse(method, path, "", "", `{"user":"alice","device":"phone"}`); status != http.StatusNotFound || !strings.Contains(body, `"not_found"`) {
			t.Errorf("in production %s %s is answered with %d %s", method, path, status, body)
		}
	}
}

func TestDemo_IsForBrowsersOfThisMachine(t *testing.T) {
	n := startDev(t)
	const body = `{"user":"alice","device":"phone"}`
	_, port, _ := strings.Cut(n.PublicAddr().String(), ":")
	cases := []struct {
		method, path, host, site string
		status                   int
		code                     string
	}{
		{"POST", "/demo/token", "localhost:" + port, "same-origin", 200, ""},
		{"POST", "/demo/token", "[::1]:" + port, "same-origin", 200, ""},
		{"POST", "/demo/token", "127.0.0.1", "", 200, ""},
		{"POST", "/demo/token", "evil.example:" + port, "same-origin", 403, "forbidden"},
		{"POST", "/demo/token", "localhost.evil.example", "same-origin", 403, "forbidden"},
		{"POST", "/demo/token", "192.0.2.1", "same-origin", 403, "forbidden"},
		{"GET", "/demo/", "evil.example", "", 403, "forbidden"},
		{"GET", "/demo", "evil.example", "", 403, "forbidden"},
		{"GET", "/", "evil.example", "", 403, "forbidden"},
		{"POST", "/demo/token", "", "cross-site", 403, "cross_site"},
		{"POST", "/demo/token", "", "same-site", 403, "cross_site"}, // a page of another port
	}
	for _, c := range cases {
		status, answer, _ := n.browse(c.method, c.path, c.host, c.site, body)
		if status != c.status || c.code != "" && !strings.Contains(answer, `"code":"`+c.code+`"`) {
			t.Errorf("%s %s at %q from %q: %d %s, want %d %s", c.method, c.path, c.host, c.site, status, answer, c.status, c.code)
		}
	}
}

func TestDemo_DevicesConnectAndAreSentMessages(t *testing.T) {
	n := startDev(t)
	post := func(path string, body map[string]any, want int) map[string]any {
		t.Helper()
		status, answer := n.call("POST", n.PublicURL(), "/demo/"+path, "", body)
		if status != want {
			t.Fatalf("%s: %d %v, want %d", path, status, answer, want)
		}
		return answer
	}
	token := post("token", map[string]any{"user": "alice", "device": "phone", "seconds": 60}, 200)["token"].(string)
	id, err := n.tokens.Verify(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	// Clocks may differ by half a minute.
	if life := time.Until(id.Expires); id.Platform != push.PlatformWeb || life < 50*time.Second || life > 91*time.Second {
		t.Errorf("the token is for platform %s and %s", id.Platform, life)
	}

	w := n.watchOver(transport.WebSocket, token, &client.Memory{})
	<-w.caught
	kept := post("send", map[string]any{"user": "alice", "persistent": true, "body": map[string]any{"text": "hello"}}, 201)["id"].(string)
	if m := w.want(t, kept); string(m.Body) != `{"text":"hello"}` {
		t.Errorf("it came as %s", m.Body)
	}
	passing := post("send", map[string]any{"everyone": true, "persistent": false, "body": 1}, 202)["id"].(string)
	w.want(t, passing)
	post("recall", map[string]any{"id": kept}, 200)
	select {
	case r := <-w.recall:
		if r.ID.String() != kept {
			t.Errorf("message %s was recalled, want %s", r.ID, kept)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("no recall came")
	}
	post("recall", map[string]any{"id": "1"}, 404)
	post("kick", map[string]any{"user": "alice", "device": "phone"}, 200)
	select {
	case k := <-w.kicked:
		if k.Code != 4208 {
			t.Errorf("the device was sent away with %d", k.Code)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("no kick came")
	}
	<-w.done

	over := n.tagger(transport.WebSocket, token)
	over.ask(t, []push.Tag{"news.sport"}, nil, "[news.sport]")
	over.leave(t)
	for _, secret := range []string{token, n.Dev().APIKey, "hello"} {
		if strings.Contains(n.logs.String(), secret) {
			t.Errorf("the log has %q", secret)
		}
	}
}
