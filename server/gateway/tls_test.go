package gateway

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"carillon/server/certificate"
	"carillon/server/client"
	"carillon/server/clock"
	"carillon/server/transport/ws"
)

// authority signs certificates of this machine.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	root *x509.Certificate
	pool *x509.CertPool
	last int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, pool: x509.NewCertPool()}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.root, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.root)
	return a
}

// write puts a new certificate into the files of a pair, and returns its serial number.
func (a *authority) write(p certificate.Pair) int64 {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	a.last++
	c := &x509.Certificate{
		SerialNumber: big.NewInt(100 + a.last), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.root, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{p.Cert: {Type: "CERTIFICATE", Bytes: der}, p.Key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return c.SerialNumber.Int64()
}

// secured runs a node with a certificate, and counts the connections that its clients open.
func secured(t *testing.T, change func(*Config)) (n *testNode, a *authority, p certificate.Pair, dials *atomic.Int64) {
	t.Helper()
	a, dials = newAuthority(t), new(atomic.Int64)
	dir := t.TempDir()
	p = certificate.Pair{Cert: filepath.Join(dir, "server.pem"), Key: filepath.Join(dir, "server.key")}
	a.write(p)
	n = startWith(t, vfs.NewMem(), func(c *Config) {
		c.Certificates = []certificate.Pair{p}
		change(c)
	})
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: a.pool},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			dials.Add(1)
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
	}
	n.http = &http.Client{Transport: transport}
	t.Cleanup(transport.CloseIdleConnections)
	return n, a, p, dials
}

// presented returns the serial number of the certificate that a new connection sees.
func (a *authority) presented(n *testNode) int64 {
	a.t.Helper()
	nc, err := tls.Dial("tcp", n.PublicAddr().String(), &tls.Config{RootCAs: a.pool, NextProtos: []string{"h2", "http/1.1"}})
	if err != nil {
		a.t.Fatal(err)
	}
	defer nc.Close()
	if got := nc.ConnectionState().NegotiatedProtocol; got != "http/1.1" {
		a.t.Errorf("a client that offers HTTP/2 speaks %q, want http/1.1", got)
	}
	return nc.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

func TestGateway_CertificatesAreRenewedUnderOpenWebSockets(t *testing.T) {
	n, a, p, dials := secured(t, func(c *Config) { c.Engine = ws.EngineGoroutine })
	n.setUp()
	var phones []*watcher
	for i := range 10 {
		w := n.watch("alice", fmt.Sprintf("phone%d", i), &client.Memory{})
		<-w.caught
		phones = append(phones, w)
	}
	everyone := func(body string) {
		t.Helper()
		id := n.publish("alice", body)
		for _, w := range phones {
			w.want(t, id)
		}
	}
	everyone("before")
	before := dials.Load()

	second := a.write(p)
	if err := n.ReloadCertificates(); err != nil {
		t.Fatal(err)
	}
	if got := a.presented(n); got != second {
		t.Errorf("certificate %d is presented, want the new one, %d", got, second)
	}
	everyone("after")
	if err := os.WriteFile(p.Cert, []byte("half of a certif"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := n.ReloadCertificates(); err == nil {
		t.Error("a broken file is called good")
	}
	if got := a.presented(n); got != second {
		t.Errorf("certificate %d is presented after its file broke, want the old one, %d", got, second)
	}
	everyone("with a broken file")
	metrics := n.adminText("/metrics")
	for _, want := range []string{
		`carillon_tls_renewals_total{result="renewed"} 1`, `carillon_tls_renewals_total{result="failed"} 1`,
		`carillon_tls_fresh{cert="` + p.Cert + `"} 0`, `carillon_tls_not_after_seconds{cert="` + p.Cert + `"} `,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	if got := dials.Load(); got != before {
		t.Errorf("%d connections were opened meanwhile, want none: a renewal broke some", got-before)
	}
	for _, w := range phones {
		w.leave(t)
	}
}

// Under TLS connections cannot be parked; a node that parks others serves these all the same.
func TestGateway_ServesClientsOverTLSWhateverTheEngine(t *testing.T) {
	n, _, _, _ := secured(t, func(*Config) {})
	n.setUp()
	for _, over := range overs {
		if url, _ := n.address(over); !strings.HasPrefix(url, "https:") && !strings.HasPrefix(url, "tcps:") {
			t.Errorf("%s is reached at %s", over, url)
		}
		phone := n.watchOver(over, n.token("alice-"+string(over), "phone"), &client.Memory{})
		phone.want(t, n.publish("alice-"+string(over), "over TLS"))
		phone.leave(t)
	}
	resp, err := http.Get(urlOf(n.PublicAddr()) + "/v1/messages") // in the clear
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a request in the clear: got %d, want 400", resp.StatusCode)
	}
}

// hurried is a clock whose tickers do not make a test wait.
type hurried struct{ clock.Clock }

func (h hurried) NewTicker(d time.Duration) *time.Ticker {
	return h.Clock.NewTicker(min(d, 20*time.Millisecond))
}

func TestGateway_FindsNewCertificatesByItself(t *testing.T) {
	n, a, p, _ := secured(t, func(c *Config) { c.Clock = hurried{clock.System} })
	next := a.write(p)
	got := int64(0)
	eventually(t, networkPatience, func() bool {
		got = a.presented(n)
		return got == next
	}, func() string { return fmt.Sprintf("certificate %d is presented, want %d", got, next) })
}
