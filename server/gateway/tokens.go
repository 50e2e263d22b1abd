package gateway

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"carillon/server/auth"
	"carillon/server/jwks"
	"carillon/server/outbound"
	"carillon/server/push"
	"carillon/server/transport/web"
	"carillon/server/wire"
)

// openTokens makes what judges device tokens: keys of the catalog, keys that products publish, and tickets that stand for tokens.
func (g *Gateway) openTokens() error {
	cfg := &g.cfg
	sets, err := jwks.NewCache(jwks.Config{
		Fetch: jwks.NewFetch(outbound.NewClient(outbound.Config{Allow: cfg.OutboundAllow})), Clock: cfg.Clock, Log: cfg.Log,
	})
	if err != nil {
		return err
	}
	g.onClose(sets.Close)
	if g.tokens, err = auth.NewVerifier(auth.Config{Keys: g.cache, Sets: sets, Clock: cfg.Clock}); err != nil {
		return err
	}
	g.metrics.MustRegister(setMetrics(sets)...)
	if g.stores.tickets != nil { // for all nodes: the stream may come to another one than the ticket
		g.tickets = g.stores.tickets
		return nil
	}
	tickets, err := auth.NewTickets(auth.TicketConfig{Clock: cfg.Clock, Rand: cfg.Rand})
	if err != nil {
		return err
	}
	g.tickets = tickets
	g.metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "carillon", Subsystem: "auth", Name: "tickets",
		Help: "One-time tickets that were not redeemed, some of them perhaps expired. Those of a cluster are not counted."},
		func() float64 { return float64(tickets.Count()) }))
	return nil
}

func setMetrics(sets *jwks.Cache) []prometheus.Collector {
	fetches := func(result string, value func() int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "carillon", Subsystem: "jwks", Name: "fetches_total",
			Help: "Requests for key sets that products publish.", ConstLabels: prometheus.Labels{"result": result}},
			func() float64 { return float64(value()) })
	}
	return []prometheus.Collector{
		fetches("fetched", func() int64 { n, _ := sets.Counts(); return n }),
		fetches("failed", func() int64 { _, n := sets.Counts(); return n }),
	}
}

// ticketAnswer is the answer of POST /connect/ticket.
type ticketAnswer struct {
	Ticket        string `json:"ticket"`
	ExpiresMillis int64  `json:"expires_ms"`
}

// serveTicket serves POST /connect/ticket: a device that can send no header with its stream shows its token here, in one, and
// puts what it gets into the address. The token is judged now, so that whoever has none learns it here, and again when the ticket
// is redeemed.
func (g *Gateway) serveTicket(w http.ResponseWriter, r *http.Request) {
	if p := web.Check(r, http.MethodPost); p != nil {
		p.Write(w)
		return
	}
	token, p := web.Bearer(r)
	if p != nil {
		p.Write(w)
		return
	}
	if g.leaving.Load() && g.cfg.Cluster == nil { // it would be gone with the node
		web.ProblemOfClose(wire.CloseGoingAway, "this node is going away", 0).Write(w)
		return
	}
	id, err := g.tokens.Verify(r.Context(), token)
	if err != nil {
		refused(err).Write(w)
		return
	}
	ticket, err := g.tickets.Issue(r.Context(), id, token)
	if err != nil {
		refused(err).Write(w)
		return
	}
	writeJSON(w, http.StatusOK, ticketAnswer{ticket, auth.TicketLife.Milliseconds()})
}

// refused is a token that was refused, or could not be judged, in the words in which a session would be.
func refused(err error) *web.Problem {
	p := web.ProblemOf(err)
	if push.KindOf(err) == push.KindUnavailable {
		p.Code = wire.CloseOverloaded.String()
	}
	return p
}
