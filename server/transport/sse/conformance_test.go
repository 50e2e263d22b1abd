package sse

import (
	"crypto/tls"
	"net"
	"testing"

	"carillon/server/transport"
	"carillon/server/transport/engine"
	"carillon/server/transport/transporttest"
	"carillon/server/wire"
)

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

func TestConformance(t *testing.T) {
	for _, form := range []struct {
		name       string
		engine     engine.Form
		plain, tls bool
	}{
		{name: "default"},
		{name: "goroutine", engine: engine.Goroutine},
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
				addr, tr, stop := serve(t, Config{Acceptor: a, Workers: workers, Engine: form.engine}, wrap, server, nil)
				return transporttest.Harness{
					Capabilities: transport.Capabilities{Encoding: wire.JSON},
					HalfClosed:   wire.CloseLost,
					Workers:      workers,
					Dial:         func(t *testing.T) transporttest.Client { return dialRaw(t, addr, client, request) },
					Writes:       tr.Writes,
					Close:        stop,
				}
			})
		})
	}
}
