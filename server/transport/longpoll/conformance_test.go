package longpoll

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"testing"
	"time"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/transport/engine"
	"carillon/server/transport/transporttest"
	"carillon/server/wire"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const workers = 2

// serve runs a transport behind net/http, on a listener to which connections come back.
func serve(t testing.TB, cfg Config, config *tls.Config) (addr string, tr *Transport, l *Listener, stop func(context.Context) error) {
	t.Helper()
	tr, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(tr)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // of TLS handshakes that a test gives up
	srv.Config.ReadHeaderTimeout = 5 * time.Second
	l = NewListener(srv.Listener, ListenerConfig{Idle: 2 * time.Minute})
	srv.Listener = l
	srv.Config.ConnContext = l.ConnContext
	if config != nil {
		srv.TLS = config
		srv.StartTLS()
	} else {
		srv.Start()
	}
	return l.Addr().String(), tr, l, func(ctx context.Context) error {
		err := tr.Close(ctx)
		srv.Close()
		return err
	}
}

// onlyFirst lets in those who do not mean to go on. The script's clients poll until their session is over, and would begin
// another one.
type onlyFirst struct{ transport.Acceptor }

func (a onlyFirst) Accept(c transport.Conn, m transport.Meta) (transport.Session, error) {
	if m.UserAgent == agentNext {
		return nil, push.Errorf(push.KindUnavailable, "over", "the session is over")
	}
	return a.Acceptor.Accept(c, m)
}

func TestConformance(t *testing.T) {
	for _, form := range []struct {
		name string
		form engine.Form
		tls  bool
	}{
		{name: "default"},
		{name: "goroutine", form: engine.Goroutine},
		{name: "tls", tls: true},
	} {
		t.Run(form.name, func(t *testing.T) {
			transporttest.Run(t, func(t *testing.T, a transport.Acceptor) transporttest.Harness {
				var server, client *tls.Config
				if form.tls {
					server, client = new(tls.Config), &tls.Config{InsecureSkipVerify: true}
				}
				addr, tr, _, stop := serve(t, Config{Acceptor: onlyFirst{a}, Workers: workers, Engine: form.form}, server)
				return transporttest.Harness{
					Capabilities: transport.Capabilities{Encoding: wire.JSON, Polls: true},
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

var _ net.Listener = (*Listener)(nil)
