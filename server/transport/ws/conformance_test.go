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

// plain is a listener whose connections are as they are where sockets have no write that does not wait.
type plain struct{ net.Listener }

func (l plain) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return plainConn{nc, nc.(*net.TCPConn)}, nil
}

// plainConn hides what allows writes that do not wait.
type plainConn struct {
	net.Conn
	tcp *net.TCPConn
}

func (c plainConn) CloseWrite() error           { return c.tcp.CloseWrite() }
func (c plainConn) SetLinger(seconds int) error { return c.tcp.SetLinger(seconds) }

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
		name       string
		engine     Engine
		plain, tls bool
	}{
		{name: "default"},
		{name: "goroutine", engine: EngineGoroutine},
		{name: "writes that wait", plain: true},
		{name: "tls", tls: true},
	} {
		t.Run(form.name, func(t *testing.T) {
			transporttest.Run(t, func(t *testing.T, a transport.Acceptor) transporttest.Harness {
				var server, client *tls.Config
				if form.tls {
					server, client = new(tls.Config), &tls.Config{InsecureSkipVerify: true}
				}
				wrap := func(l net.Listener) net.Listener { return l }
				if form.plain {
					wrap = func(l net.Listener) net.Listener { return plain{l} }
				}
				addr, tr, stop := serve(t, Config{Acceptor: a, Workers: workers, Engine: form.engine}, wrap, server)
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
