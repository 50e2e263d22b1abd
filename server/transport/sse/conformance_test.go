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

func TestConformance(t *testing.T) {
	for _, form := range []struct {
		name   string
		engine engine.Form
		wrap   func(net.Listener) net.Listener
		tls    bool
	}{
		{name: "default"},
		{name: "goroutine", engine: engine.Goroutine},
		{name: "writes that wait", wrap: transporttest.Waiting},
		{name: "tls", tls: true},
	} {
		t.Run(form.name, func(t *testing.T) {
			transporttest.Run(t, func(t *testing.T, a transport.Acceptor) transporttest.Harness {
				var server, client *tls.Config
				if form.tls {
					server, client = new(tls.Config), &tls.Config{InsecureSkipVerify: true}
				}
				addr, tr, stop := serve(t, Config{Acceptor: a, Workers: workers, Engine: form.engine}, form.wrap, server, nil)
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
