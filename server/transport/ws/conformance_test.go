package ws

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"testing"

	"carillon/server/transport"
	"carillon/server/transport/transporttest"
	"carillon/server/wire"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const workers = 2

// serve runs a transport behind net/http.
func serve(
	t testing.TB, cfg Config, wrap func(net.Listener) net.Listener, config *tls.Config,
) (addr string, tr *Transport, stop func(context.Context) error) {
	t.Helper()
	tr, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(tr)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // of TLS handshakes that a test gives up
	if wrap != nil {
		srv.Listener = wrap(srv.Listener)
	}
	if config != nil {
		srv.TLS = config
		srv.StartTLS()
	} else {
		srv.Start()
	}
	return srv.Listener.Addr().String(), tr, func(ctx context.Context) error {
		err := tr.Close(ctx)
		srv.Close()
		return err
	}
}

func TestConformance(t *testing.T) {
	for _, form := range []struct {
		name   string
		engine Engine
		wrap   func(net.Listener) net.Listener
		tls    bool
	}{
		{name: "default"},
		{name: "goroutine", engine: EngineGoroutine},
		{name: "writes that wait", wrap: transporttest.Waiting},
		{name: "tls", tls: true},
	} {
		t.Run(form.name, func(t *testing.T) {
			transporttest.Run(t, func(t *testing.T, a transport.Acceptor) transporttest.Harness {
				var server, client *tls.Config
				if form.tls {
					server, client = new(tls.Config), &tls.Config{InsecureSkipVerify: true}
				}
				addr, tr, stop := serve(t, Config{Acceptor: a, Workers: workers, Engine: form.engine}, form.wrap, server)
				return transporttest.Harness{
					Capabilities: transport.Capabilities{Encoding: wire.JSON, Duplex: true, Close: true},
					HalfClosed:   wire.CloseLost,
					Workers:      workers,
					Dial:         func(t *testing.T) transporttest.Client { return dialRaw(t, addr, client) },
					Writes:       tr.Writes,
					Close:        stop,
				}
			})
		})
	}
}
