package ws

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"sync/atomic"
	"syscall"
	"testing"

	"carillon/server/transport"
	"carillon/server/transport/transporttest"
	"carillon/server/wire"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const workers = 2

// counting is a listener that counts the writes to its connections.
type counting struct {
	net.Listener
	writes *atomic.Int64
	plain  bool // hide what allows writes that do not wait
}

func (l counting) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := countingConn{nc.(*net.TCPConn), l.writes}
	if l.plain {
		return plainConn{c, c.TCPConn}, nil
	}
	return c, nil
}

type countingConn struct {
	*net.TCPConn
	writes *atomic.Int64
}

func (c countingConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.TCPConn.Write(p)
}

func (c countingConn) SyscallConn() (syscall.RawConn, error) {
	raw, err := c.TCPConn.SyscallConn()
	return countingRaw{raw, c.writes}, err
}

type countingRaw struct {
	syscall.RawConn
	writes *atomic.Int64
}

func (c countingRaw) Write(f func(fd uintptr) bool) error {
	c.writes.Add(1)
	return c.RawConn.Write(f)
}

// plainConn is a connection as it is where sockets have no write that does not wait.
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
		plain, tls bool
	}{
		{name: "tcp"},
		{name: "writes that wait", plain: true},
		{name: "tls", tls: true},
	} {
		t.Run(form.name, func(t *testing.T) {
			transporttest.Run(t, func(t *testing.T, a transport.Acceptor) transporttest.Harness {
				writes := new(atomic.Int64)
				var server, client *tls.Config
				if form.tls {
					server, client = new(tls.Config), &tls.Config{InsecureSkipVerify: true}
				}
				addr, _, stop := serve(t, Config{Acceptor: a, Workers: workers}, func(l net.Listener) net.Listener {
					return counting{l, writes, form.plain}
				}, server)
				return transporttest.Harness{
					Capabilities: transport.Capabilities{Encoding: wire.JSON, Duplex: true, Close: true},
					HalfClosed:   wire.CloseLost,
					Workers:      workers,
					Dial:         func(t *testing.T) transporttest.Client { return dialRaw(t, addr, client) },
					Writes:       writes.Load,
					Close:        stop,
				}
			})
		})
	}
}
