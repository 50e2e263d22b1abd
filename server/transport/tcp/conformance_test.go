package tcp

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"carillon/server/transport"
	"carillon/server/transport/engine"
	"carillon/server/transport/transporttest"
	"carillon/server/wire"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const workers = 2

// serverTLS returns the configuration of a server with a certificate.
func serverTLS(t testing.TB) *tls.Config {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.StartTLS()
	defer srv.Close()
	return &tls.Config{Certificates: srv.TLS.Certificates}
}

var clientTLS = &tls.Config{InsecureSkipVerify: true}

// ordered makes known to the race detector that what a scene sets before it dials is set before its session begins: a socket
// in between tells it nothing.
type ordered struct {
	transport.Acceptor

	mu    sync.Mutex
	dials int // guarded by mu
}

func (o *ordered) Accept(c transport.Conn, m transport.Meta) (transport.Session, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.Acceptor.Accept(c, m)
}

func (o *ordered) noteDial() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.dials++
}

func TestConformance(t *testing.T) {
	secure := serverTLS(t)
	for _, form := range []struct {
		name   string
		engine engine.Form
		wrap   func(net.Listener) net.Listener
		client *tls.Config
	}{
		{name: "default"},
		{name: "goroutine", engine: engine.Goroutine},
		{name: "writes that wait", wrap: transporttest.Waiting},
		{name: "tls", wrap: func(l net.Listener) net.Listener { return tls.NewListener(l, secure) }, client: clientTLS},
	} {
		t.Run(form.name, func(t *testing.T) {
			transporttest.Run(t, func(t *testing.T, a transport.Acceptor) transporttest.Harness {
				o := &ordered{Acceptor: a}
				addr, tr, stop := serve(t, Config{Acceptor: o, Workers: workers, Engine: form.engine}, form.wrap)
				return transporttest.Harness{
					Capabilities: transport.Capabilities{Encoding: wire.Binary, Duplex: true},
					HalfClosed:   wire.CloseNormal,
					Workers:      workers,
					Dial: func(t *testing.T) transporttest.Client {
						o.noteDial()
						c := dial(t, addr, form.client)
						if s, ok := c.nc.(*tls.Conn); ok {
							_ = s.HandshakeContext(t.Context()) // the first Send or Recv tells
						}
						return c
					},
					Writes: tr.Writes,
					Close:  stop,
				}
			})
		})
	}
}
