package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"

	"carillon/server/admission"
	"carillon/server/certificate"
	"carillon/server/forwarded"
	"carillon/server/origin"
	"carillon/server/transport/web"
)

// edge is what stands between the network and the handlers of a node: TLS, proxies, names, and pages in browsers.
type edge struct {
	// Static after construction.
	cfg        *Config
	certs      *certificate.Store // nil: no TLS
	proxies    *forwarded.Proxies
	gate       *admission.Gate
	door       *admission.Door
	hosts      *origin.Hosts // of the public listener
	adminHosts *origin.Hosts
	shares     map[string]*origin.Share // by path
}

// connectPaths are the paths on which devices connect over HTTP, and what they take. WebSockets need no CORS: browsers send the
// Origin of their handshakes and the transport judges it by the same rules. The REST interface is for servers and has none, so
// that no page gets to use an API key.
var connectPaths = map[string][]string{
	"/connect/sse":    {http.MethodGet},
	"/connect/poll":   {http.MethodGet, http.MethodPost},
	"/connect/frames": {http.MethodPost},
	"/connect/ticket": {http.MethodPost},
}

func newEdge(cfg *Config) (*edge, error) {
	e := &edge{cfg: cfg, shares: make(map[string]*origin.Share)}
	rules, errOrigins := origin.New(cfg.Origins)
	for path, methods := range connectPaths {
		e.shares[path] = origin.NewShare(rules, methods...)
	}
	var errHosts, errAdmin, errProxies, errCerts error
	e.hosts, errHosts = origin.NewHosts(cfg.PublicHosts)
	e.adminHosts, errAdmin = origin.NewPrivateHosts(adminHosts(cfg))
	e.proxies, errProxies = forwarded.New(cfg.Proxies)
	if len(cfg.Certificates) > 0 {
		e.certs, errCerts = certificate.Open(certificate.Config{Pairs: cfg.Certificates, Clock: cfg.Clock, Log: cfg.Log})
	}
	if err := errors.Join(
		named("public.origins", errOrigins), named("public.hosts", errHosts), named("admin.hosts", errAdmin),
		named("proxy.trusted, proxy.header", errProxies), named("tls.cert, tls.key", errCerts),
	); err != nil {
		return nil, err
	}
	return e, nil
}

// named puts the keys of the configuration in front of what is wrong with them.
func named(keys string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", keys, err)
}

// adminHosts adds the name that the admin listener was told to listen on: whoever is to reach it there calls it so.
func adminHosts(cfg *Config) []string {
	name, _, err := net.SplitHostPort(cfg.AdminListen)
	if err != nil || name == "" {
		return cfg.AdminHosts
	}
	return append(slices.Clone(cfg.AdminHosts), name)
}

// Check says what is wrong with a configuration, as far as that can be told without opening a store or a listener. It reads the
// files of certificates.
func (c Config) Check() error {
	c, err := c.withDefaults()
	if err != nil {
		return err
	}
	_, err = newEdge(&c)
	return err
}

// admit opens the gate, and the door before it, which knows proxies. Limits by address do not concern those: their clients have
// addresses of their own, which only requests tell.
func (e *edge) admit(m *admission.Metrics) (err error) {
	gc := e.cfg.Admission
	gc.Clock, gc.Metrics = e.cfg.Clock, m
	if e.gate, err = admission.New(gc); err != nil {
		return err
	}
	dc := e.cfg.Door
	dc.Spared = e.proxies.Trusts
	e.door, err = admission.NewDoor(e.gate, dc)
	return err
}

// listen puts around a listener for clients what comes before the first byte of their protocol: the words of a trusted proxy,
// the door, and TLS if the node has a certificate.
func (e *edge) listen(l net.Listener, protocols ...string) net.Listener {
	l = e.door.Listen(e.proxies.Listen(l, e.cfg.Log))
	if e.certs != nil {
		l = tls.NewListener(l, e.certs.Config(protocols...))
	}
	return l
}

func (e *edge) scheme() string {
	if e.certs != nil {
		return "https"
	}
	return "http"
}

// run keeps certificates fresh until ctx ends.
func (e *edge) run(ctx context.Context) error {
	if e.certs == nil {
		return nil
	}
	return e.certs.Run(ctx)
}

func (e *edge) reload() error {
	if e.certs == nil {
		return nil
	}
	return e.certs.Reload()
}

// guardPublic lets through to the public listener's handlers what asks for a name of this node and, on the paths for devices,
// does not come from a page that may not connect.
func (e *edge) guardPublic(next http.Handler) http.Handler {
	return guard(e.hosts, func(w http.ResponseWriter, r *http.Request) {
		share := e.shares[r.URL.Path]
		if share != nil || r.URL.Path == "/connect" {
			e.endUnheard(w, r)
		}
		if share == nil {
			next.ServeHTTP(w, r)
			return
		}
		switch share.Judge(w.Header(), r) {
		case origin.Refuse:
			problem(w, http.StatusForbidden, "origin_forbidden", "pages of this origin may not connect")
		case origin.Preflight:
			w.WriteHeader(http.StatusNoContent)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// endUnheard has the connection end with its answer if a new one from there would not be heard: a connection that is kept would be
// a way around the door.
func (e *edge) endUnheard(w http.ResponseWriter, r *http.Request) {
	if a, err := netip.ParseAddrPort(r.RemoteAddr); err == nil && !e.door.Hears(a.Addr()) {
		w.Header()["Connection"] = closeConnection
	}
}

// rated lets requests through whose address sends no more of them than it may.
func (e *edge) rated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := e.gate.AdmitRequest(e.proxies.Remote(r).Addr()); err != nil {
			web.ProblemOf(err).Write(w)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (e *edge) guardAdmin(next http.Handler) http.Handler { return guard(e.adminHosts, next.ServeHTTP) }

// Headers of every answer, for browsers that were brought to show one. Handlers of pages set their own policy. Nobody writes to
// the values: http.Header.Add of a full slice copies it.
var (
	noSniff      = []string{"nosniff"}
	noContent    = []string{"default-src 'none'; frame-ancestors 'none'"}
	noOtherSites = []string{"same-origin"} // embedding; CORS goes by its own headers

	closeConnection = []string{"close"}
)

// guard refuses requests for hosts that the listener does not answer for.
func guard(hosts *origin.Hosts, next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h["X-Content-Type-Options"], h["Content-Security-Policy"], h["Cross-Origin-Resource-Policy"] = noSniff, noContent, noOtherSites
		if !hosts.Admit(r.Host) {
			problem(w, http.StatusForbidden, "host_forbidden",
				"this node does not answer under the name that the request asks for; its operator sets public.hosts and admin.hosts")
			return
		}
		next(w, r)
	})
}
