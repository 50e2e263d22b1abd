package gateway

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"carillon/server/auth"
	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/transport/web"
)

// server returns an HTTP server with deadlines on everything that a stranger could draw out. Connections that carry sessions
// leave it when they begin, so its deadlines do not concern them.
func (g *Gateway) server(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       60 * time.Second,
		WriteTimeout:      120 * time.Second,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          quietLog(g.log),
	}
}

// idleTimeout is how long a connection may be silent between two requests.
const idleTimeout = 120 * time.Second

func (g *Gateway) publicRoutes() http.Handler {
	r := chi.NewRouter()
	if g.cfg.has(RoleRoom) {
		r.Handle("/connect", g.ws)
		r.Handle("/connect/sse", g.sse)
		r.Handle("/connect/poll", g.polls)
		r.Handle("/connect/frames", g.lastOfConnection(g.edge.rated(web.NewFrames(g.room, g.cfg.Room.FrameBytes))))
		r.Handle("/connect/ticket", g.lastOfConnection(g.edge.rated(http.HandlerFunc(g.serveTicket))))
	} else {
		r.HandleFunc("/connect", otherRole)
		r.HandleFunc("/connect/*", otherRole)
	}
	if g.cfg.has(RoleCenter) {
		r.Mount("/v1", g.lastOfConnection(g.center.Public()))
	} else {
		r.HandleFunc("/v1/*", otherRole)
	}
	if g.cfg.Dev {
		g.routeDev(r)
	}
	r.NotFound(notFound)
	r.MethodNotAllowed(wrongMethod)
	return r
}

// lastOfConnection has a connection end with its next answer once the node is leaving. One that is kept would be closed when nobody uses it,
// and somebody may be about to: a request that meets that has failed, and who sent it cannot know whether it was heard.
func (g *Gateway) lastOfConnection(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.leaving.Load() {
			w.Header()["Connection"] = closeConnection
		}
		next.ServeHTTP(w, r)
	})
}

func (g *Gateway) adminRoutes() http.Handler {
	r := chi.NewRouter()
	r.Mount("/admin/v1", g.center.Admin())
	r.Get("/livez", serveLive)
	r.Get("/readyz", g.serveReady)
	r.Handle("/metrics", g.metricsHandler())
	r.Group(func(r chi.Router) {
		r.Use(g.onlyOperators)
		r.HandleFunc("/debug/pprof/*", pprof.Index)
		r.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		r.HandleFunc("/debug/pprof/profile", pprof.Profile)
		r.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		r.HandleFunc("/debug/pprof/trace", pprof.Trace)
		r.Post("/debug/free", g.serveFree)
	})
	r.NotFound(notFound)
	r.MethodNotAllowed(wrongMethod)
	return r
}

// onlyOperators lets those through who show the secret: a profile holds what is in memory.
func (g *Gateway) onlyOperators(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, ok := auth.BearerOf(r.Header.Get("Authorization"))
		if !g.cfg.Dev && (!ok || !auth.EqualSecret(got, g.cfg.Secret)) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			problem(w, http.StatusUnauthorized, "unauthenticated", "show the gateway's secret as a bearer token")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (g *Gateway) metricsHandler() http.Handler {
	return promhttp.HandlerFor(g.metrics, promhttp.HandlerOpts{ErrorLog: quietLog(g.log)})
}

func serveLive(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// ready is the answer of /readyz.
type ready struct {
	Status  string            `json:"status"` // ok or failing
	Checks  map[string]string `json:"checks"` // each ok, or what is wrong
	Version string            `json:"version,omitempty"`
	Clients int               `json:"clients"`
	Engine  string            `json:"engine"` // how connections are held

	// What carries sessions here, by the names that sessions and metrics have for it.
	Transports []transport.Kind `json:"transports"`

	// What an accepted persistent message survives.
	Durability string `json:"durability"`
}

func (g *Gateway) serveReady(w http.ResponseWriter, r *http.Request) {
	a := ready{
		Status: "ok", Checks: map[string]string{"store": "ok"}, Version: g.cfg.Version,
		Clients: g.clients(), Engine: string(g.Engine()), Durability: g.stores.saver.Durability().String(),
	}
	if g.room != nil {
		a.Checks["room"] = "ok"
		a.Transports = []transport.Kind{transport.WebSocket, transport.SSE, transport.LongPoll}
	}
	if g.tcp != nil {
		a.Transports = append(a.Transports, transport.TCP)
	}
	status := http.StatusOK
	fail := func(check string, err error) {
		a.Status, a.Checks[check] = "failing", err.Error()
		status = http.StatusServiceUnavailable
	}
	err := g.stores.saver.Health(r.Context())
	var e *push.Error
	switch {
	case errors.As(err, &e) && e.Code == "store_full":
		a.Checks["store"] = err.Error() // and still ready: what fills the store goes by clients that connect
	case err != nil:
		fail("store", err)
	}
	part := "room"
	if g.room == nil {
		part = "center"
	}
	switch {
	case g.leaving.Load():
		fail(part, errors.New("draining"))
	case g.room != nil && !g.joined():
		fail(part, errors.New("it has not joined the others yet"))
	}
	writeJSON(w, status, a)
}

// joined reports whether the room takes clients, or did before it left.
func (g *Gateway) joined() bool {
	select {
	case <-g.room.Joined():
		return true
	default:
		return false
	}
}

// otherRole answers what another node would do: a load balancer sent it to the wrong one.
func otherRole(w http.ResponseWriter, _ *http.Request) {
	problem(w, http.StatusMisdirectedRequest, "other_role", "this node plays another role (see roles in its configuration)")
}

func notFound(w http.ResponseWriter, _ *http.Request) {
	problem(w, http.StatusNotFound, "not_found", "there is nothing at this path")
}

func wrongMethod(w http.ResponseWriter, _ *http.Request) {
	problem(w, http.StatusMethodNotAllowed, "method_not_allowed", "this path does not take this method")
}

// problem answers with an RFC 9457 document.
func problem(w http.ResponseWriter, status int, code, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{ // a client that left is no concern of ours
		"type": "about:blank", "title": http.StatusText(status), "status": status, "code": code, "detail": detail,
	})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
