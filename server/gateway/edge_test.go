package gateway

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"carillon/server/certificate"
	"carillon/server/client"
	"carillon/server/forwarded"
)

// raw sends a request as it stands to a listener, and returns the answer without its body.
func raw(t *testing.T, addr net.Addr, lines ...string) *http.Response {
	t.Helper()
	nc, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Write([]byte(strings.Join(lines, "\r\n") + "\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(lines[0], " ")
	res, err := http.ReadResponse(bufio.NewReader(nc), &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	return res
}

func TestGateway_AnswersUnderItsOwnNamesAlone(t *testing.T) {
	n := startWith(t, vfs.NewMem(), func(c *Config) {
		c.PublicHosts, c.AdminHosts = []string{"push.example"}, []string{"node1.internal"}
	})
	for _, c := range []struct {
		addr net.Addr
		path string
		host string
		want int
	}{
		{n.PublicAddr(), "/v1/messages", "push.example", http.StatusMethodNotAllowed},
		{n.PublicAddr(), "/v1/messages", "push.example:8080", http.StatusMethodNotAllowed},
		{n.PublicAddr(), "/v1/messages", "evil.example", http.StatusForbidden},
		{n.PublicAddr(), "/connect", "push.example", http.StatusUpgradeRequired},
		{n.PublicAddr(), "/connect", "evil.example", http.StatusForbidden},
		{n.AdminAddr(), "/livez", "localhost:8081", http.StatusOK},
		{n.AdminAddr(), "/livez", "127.0.0.1:8081", http.StatusOK},
		{n.AdminAddr(), "/livez", "node1.internal", http.StatusOK},
		{n.AdminAddr(), "/livez", "evil.example", http.StatusForbidden},
		{n.AdminAddr(), "/metrics", "evil.example:8081", http.StatusForbidden},
	} {
		res := raw(t, c.addr, "GET "+c.path+" HTTP/1.1", "Host: "+c.host)
		if res.StatusCode != c.want {
			t.Errorf("%s of %s: got %d, want %d", c.path, c.host, res.StatusCode, c.want)
		}
		if res.StatusCode == http.StatusForbidden && res.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s of %s: the refusal is a %s", c.path, c.host, res.Header.Get("Content-Type"))
		}
	}
}

// A health check that speaks HTTP/1.0 names no host. No browser does so.
func TestGateway_AdminListenerAnswersChecksThatNameNoHost(t *testing.T) {
	n := start(t, vfs.NewMem())
	if res := raw(t, n.AdminAddr(), "GET /livez HTTP/1.0"); res.StatusCode != http.StatusOK {
		t.Errorf("got %d, want 200", res.StatusCode)
	}
	if res := raw(t, n.AdminAddr(), "GET /livez HTTP/1.1", "Host: evil.example"); res.StatusCode != http.StatusForbidden {
		t.Errorf("a name that nobody configured: got %d, want 403", res.StatusCode)
	}
}

func TestGateway_APageIsAdmittedOnEveryPathForDevicesOrOnNone(t *testing.T) {
	n := startWith(t, vfs.NewMem(), func(c *Config) { c.Origins = []string{"https://*.app.example"} })
	upgrade := []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="}
	for origin, admitted := range map[string]bool{
		"https://www.app.example": true, "http://www.app.example": false, "https://evil.example": false, "null": false,
		"https://" + n.PublicAddr().String(): true, "": true,
	} {
		head := []string{"Host: " + n.PublicAddr().String()}
		if origin != "" {
			head = append(head, "Origin: "+origin)
		}
		res := raw(t, n.PublicAddr(), append(append([]string{"GET /connect HTTP/1.1"}, head...), upgrade...)...)
		if got := res.StatusCode == http.StatusSwitchingProtocols; got != admitted {
			t.Errorf("WebSocket for %q: got %d", origin, res.StatusCode)
		}
		for path, methods := range connectPaths {
			request := append([]string{methods[0] + " " + path + " HTTP/1.1", "Content-Length: 0"}, head...)
			res := raw(t, n.PublicAddr(), request...)
			if got := res.StatusCode != http.StatusForbidden; got != admitted {
				t.Errorf("%s for %q: got %d", path, origin, res.StatusCode)
			}
			want := origin
			if !admitted {
				want = ""
			}
			if got := res.Header.Get("Access-Control-Allow-Origin"); got != want {
				t.Errorf("%s for %q: the allowed origin is %q, want %q", path, origin, got, want)
			}
			if got := res.Header.Get("Vary"); got != "Origin" {
				t.Errorf("%s for %q: Vary is %q", path, origin, got)
			}
		}
	}
}

func TestGateway_BrowsersMayAskOnThePathsForDevicesAndNotOnTheOnesForServers(t *testing.T) {
	n := startWith(t, vfs.NewMem(), func(c *Config) { c.Origins = []string{"https://app.example"} })
	for path, want := range map[string]int{
		"/connect/sse": http.StatusNoContent, "/connect/poll": http.StatusNoContent, "/connect/frames": http.StatusNoContent,
		"/connect/ticket": http.StatusNoContent, "/v1/messages": http.StatusMethodNotAllowed, "/connect/other": http.StatusNotFound,
	} {
		res := raw(t, n.PublicAddr(), "OPTIONS "+path+" HTTP/1.1", "Host: push.example", "Origin: https://app.example",
			"Access-Control-Request-Method: "+append(connectPaths[path], http.MethodPost)[0], "Access-Control-Request-Headers: authorization")
		if res.StatusCode != want {
			t.Errorf("%s: got %d, want %d", path, res.StatusCode, want)
		}
		if got := res.Header.Get("Access-Control-Allow-Origin") != ""; got != (want == http.StatusNoContent) {
			t.Errorf("%s: a page may read the answer: %v", path, got)
		}
		if res.Header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: cookies are allowed", path)
		}
	}
}

func TestGateway_EveryAnswerIsFitForABrowser(t *testing.T) {
	n := start(t, vfs.NewMem())
	for _, where := range []struct {
		addr net.Addr
		path string
	}{
		{n.PublicAddr(), "/"}, {n.PublicAddr(), "/v1/messages"}, {n.PublicAddr(), "/connect"}, {n.PublicAddr(), "/connect/sse"},
		{n.AdminAddr(), "/livez"}, {n.AdminAddr(), "/metrics"}, {n.AdminAddr(), "/admin/v1/products"}, {n.AdminAddr(), "/nothing"},
	} {
		res := raw(t, where.addr, "GET "+where.path+" HTTP/1.1", "Host: localhost")
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
			"Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got := res.Header.Values(name); len(got) != 1 || got[0] != want {
				t.Errorf("%s: %s is %q, want %q", where.path, name, got, want)
			}
		}
	}
}

func TestConfig_CheckSaysWhatIsWrongWithTheEdge(t *testing.T) {
	good := Config{Data: "data", Secret: secret}
	if err := good.Check(); err != nil {
		t.Errorf("a good one: %v", err)
	}
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"origins":      {func(c *Config) { c.Origins = []string{"https://a.example/"} }, "public.origins: origin pattern"},
		"public hosts": {func(c *Config) { c.PublicHosts = []string{"a.example:80"} }, "public.hosts: host"},
		"admin hosts":  {func(c *Config) { c.AdminHosts = []string{"*"} }, "admin.hosts: host"},
		"proxies":      {func(c *Config) { c.Proxies.Source = forwarded.ProxyV2 }, "proxy.trusted, proxy.header: "},
		"certificates": {func(c *Config) { c.Certificates = []certificate.Pair{{Cert: "/no/where", Key: "/no/where"}} }, "tls.cert, tls.key: "},
		"secret":       {func(c *Config) { c.Secret = "short" }, "secret"},
	} {
		cfg := good
		c.change(&cfg)
		if err := cfg.Check(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, c.want)
		}
	}
}

// throughProxy dials a node as a proxy does that speaks for one client.
func throughProxy(n *testNode) *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err == nil {
			_, err = io.WriteString(nc, "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"+"\xcb\x00\x71\x07"+"\xc0\x00\x02\x01"+"\x12\x67"+"\x01\xbb")
		}
		return nc, err
	}}
}

func TestGateway_ServesClientsThroughTheProxyProtocol(t *testing.T) {
	n := startWith(t, vfs.NewMem(), func(c *Config) {
		c.Proxies = forwarded.Config{Source: forwarded.ProxyV2, Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	})
	proxy := throughProxy(n)
	defer proxy.CloseIdleConnections()
	n.http = &http.Client{Transport: proxy}
	n.setUp()
	for _, over := range overs {
		phone := n.watchOver(over, n.token("alice-"+string(over), "phone"), &client.Memory{})
		phone.want(t, n.publish("alice-"+string(over), "through the proxy"))
		phone.leave(t)
	}
	if nc, err := net.Dial("tcp", n.PublicAddr().String()); err != nil {
		t.Error(err)
	} else {
		defer nc.Close()
		if _, err := io.WriteString(nc, "GET /v1/messages HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Error(err)
		}
		if b, err := io.ReadAll(nc); len(b) > 0 {
			t.Errorf("a connection without a header is answered with %q, %v", b, err)
		}
	}
}
