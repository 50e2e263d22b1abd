package gateway

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"

	"carillon/server/push"
)

const (
	openRedisTimeout = 15 * time.Second // of one attempt to reach Redis
	firstPause       = 200 * time.Millisecond
	longestPause     = 5 * time.Second
)

// awaitRedis calls open until it succeeds, ctx ends, or the error is one that waiting does not change (any but KindUnavailable). Before it waits it
// calls away, and has the admin listener say what it waits for; waited reports that it did.
func (g *Gateway) awaitRedis(ctx context.Context, away func() error, open func(context.Context) error) (waited bool, err error) {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := attempt(ctx, open)
		switch {
		case err == nil && waited:
			g.log.Info("Redis is there")
			return true, nil
		case err == nil:
			return false, nil
		case ctx.Err() != nil:
			return waited, fmt.Errorf("gateway: waiting for Redis: %w", ctx.Err())
		case push.KindOf(err) != push.KindUnavailable:
			return waited, err
		}
		if !waited {
			if err := away(); err != nil {
				return true, err
			}
		}
		waited = true
		g.serveAdmin(g.waitingRoutes(err))
		wait := pause/2 + rand.N(pause/2)
		g.log.Warn("waiting for Redis", "again_in", wait, "admin", g.AdminAddr().String(), "error", err)
		over := make(chan struct{})
		timer := g.cfg.Clock.AfterFunc(wait, func() { close(over) })
		select {
		case <-over:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

func attempt(ctx context.Context, open func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, openRedisTimeout)
	defer cancel()
	return open(ctx)
}

// closeOutside closes what listenOutside opened: who comes to a node that cannot do anything is to go elsewhere at once, rather than wait to be heard.
func (g *Gateway) closeOutside() error {
	errs := []error{g.public.Close()}
	for _, l := range []net.Listener{g.nodes, g.raw} {
		if l != nil {
			errs = append(errs, l.Close())
		}
	}
	return errors.Join(errs...)
}

// waitingRoutes are those of the admin listener of a node that waits for Redis.
func (g *Gateway) waitingRoutes(why error) http.Handler {
	r := chi.NewRouter()
	r.Get("/livez", serveLive)
	r.Handle("/metrics", g.metricsHandler())
	r.Get("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusServiceUnavailable, ready{
			Status: "failing", Checks: map[string]string{"store": "waiting for Redis: " + why.Error()}, Version: g.cfg.Version,
		})
	})
	r.NotFound(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "1")
		problem(w, http.StatusServiceUnavailable, "storage_failed", "the node waits for Redis; /readyz says more")
	})
	return r
}

// route is a handler in whose place another can be put.
type route struct{ now atomic.Pointer[http.Handler] }

// ServeHTTP serves with the handler as it is now.
func (r *route) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	(*r.now.Load()).ServeHTTP(w, req)
}

// serveAdmin serves the admin listener with h, in place of what it was served with before.
func (g *Gateway) serveAdmin(h http.Handler) {
	h = g.edge.guardAdmin(h)
	g.adminRoute.now.Store(&h)
	if g.adminHTTP != nil {
		return
	}
	g.adminHTTP, g.adminEnded = g.server(&g.adminRoute), make(chan error, 1)
	go func() { g.adminEnded <- g.adminHTTP.Serve(g.admin) }()
}

// hushAdmin ends the serving of a node that was never run.
func (g *Gateway) hushAdmin() error {
	if g.adminHTTP == nil {
		return nil
	}
	err := g.adminHTTP.Close()
	<-g.adminEnded
	return err
}
