package outbound

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestGuard_TakesPublicAddressesAlone(t *testing.T) {
	for _, test := range []struct {
		public bool
		addrs  string
	}{
		{true, "1.1.1.1 8.8.8.8 100.63.255.255 100.128.0.1 172.15.0.1 172.32.0.1 192.167.1.1 223.255.255.1 2606:4700::1111 2a00:1450::1 ::ffff:8.8.8.8"},
		{false, "0.0.0.0 0.1.2.3 127.0.0.1 127.255.255.254 ::1 :: ::ffff:127.0.0.1 ::127.0.0.1 ::ffff:10.0.0.1"},
		{false, "10.0.0.1 172.16.0.1 172.31.255.255 192.168.0.1 fc00::1 fd12:3456::1 fec0::1"},
		{false, "169.254.169.254 ::ffff:169.254.169.254 fe80::1 fe80::1%eth0 100.64.0.1 100.100.100.200"},
		{false, "224.0.0.1 239.255.255.255 255.255.255.255 240.0.0.1 ff02::1"},
		{false, "64:ff9b::7f00:1 64:ff9b:1::1 2002:7f00:1:: 2001:0:1::1 2001:db8::1 100::1 192.0.2.1 198.18.0.1 192.0.0.170 192.88.99.1"},
	} {
		for s := range strings.FieldsSeq(test.addrs) {
			if got := mayDial(netip.MustParseAddr(s), nil); got != test.public {
				t.Errorf("%s may be reached: %v, want %v", s, got, test.public)
			}
		}
	}
}

func TestGuard_AllowsWhatTheOperatorNamed(t *testing.T) {
	allowed := prefixes("10.1.0.0/16", "fd00::/8")
	for s, want := range map[string]bool{
		"10.1.2.3": true, "::ffff:10.1.2.3": true, "10.2.0.1": false, "fd00::1": true, "fc00::1": false, "127.0.0.1": false, "8.8.8.8": true,
	} {
		if got := mayDial(netip.MustParseAddr(s), allowed); got != want {
			t.Errorf("%s may be reached: %v, want %v", s, got, want)
		}
	}
	for _, bad := range []string{"", "localhost:80", "127.0.0.1", "[::1"} {
		if err := judge(bad, allowed); !errors.Is(err, ErrForbidden) {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

// inner is a server of this machine, and counts who reached it.
func inner(t *testing.T, start func(*httptest.Server), h http.HandlerFunc) (url string, reached *atomic.Int32) {
	t.Helper()
	reached = new(atomic.Int32)
	s := httptest.NewUnstartedServer(h)
	s.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			reached.Add(1)
		}
	}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	start(s)
	t.Cleanup(s.Close)
	return s.URL, reached
}

func ok(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "inside") }

func TestClient_DoesNotReachThisMachine(t *testing.T) {
	url, reached := inner(t, (*httptest.Server).Start, ok)
	named := strings.Replace(url, "127.0.0.1", "localhost", 1) // a name is judged by what it stands for
	for _, u := range []string{url, named} {
		resp, err := NewClient(Config{}).Get(u)
		if err == nil {
			resp.Body.Close()
		}
		if !errors.Is(err, ErrForbidden) {
			t.Errorf("%s: got %v, want that it is forbidden", u, err)
		}
	}
	if reached.Load() != 0 {
		t.Errorf("%d connections reached the server", reached.Load())
	}
	resp, err := NewClient(Config{Allow: prefixes("127.0.0.0/8", "::1/128")}).Get(url)
	if err != nil {
		t.Fatalf("where it is allowed: %v", err)
	}
	resp.Body.Close()
}

func TestClient_UsesNoProxy(t *testing.T) {
	proxy, reached := inner(t, (*httptest.Server).Start, ok)
	t.Setenv("HTTP_PROXY", proxy)
	t.Setenv("HTTPS_PROXY", proxy)
	resp, err := NewClient(Config{}).Get("http://192.168.255.1/")
	if err == nil {
		resp.Body.Close()
	}
	if !errors.Is(err, ErrForbidden) || reached.Load() != 0 {
		t.Errorf("got %v, and %d connections to the proxy", err, reached.Load())
	}
}

func TestClient_FollowsNoRedirect(t *testing.T) {
	secret, reached := inner(t, (*httptest.Server).Start, ok)
	url, _ := inner(t, (*httptest.Server).Start, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, secret, http.StatusFound)
	})
	resp, err := NewClient(Config{Allow: prefixes("127.0.0.0/8")}).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusFound || reached.Load() != 0 {
		t.Errorf("got %d, and %d connections to where it points", resp.StatusCode, reached.Load())
	}
}

func TestClient_ChecksCertificates(t *testing.T) {
	var cert *x509.Certificate
	url, _ := inner(t, func(s *httptest.Server) { s.StartTLS(); cert = s.Certificate() }, ok)
	allow := prefixes("127.0.0.0/8")
	if resp, err := NewClient(Config{Allow: allow}).Get(url); err == nil {
		resp.Body.Close()
		t.Error("a certificate of nobody was taken")
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	resp, err := NewClient(Config{Allow: allow, TLS: &tls.Config{RootCAs: roots}}).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}
