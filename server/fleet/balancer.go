package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Balancer stands before a fleet: it sends /connect to rooms and everything else to centers, in turn, to those that say that they are
// ready. It is small, for one machine; what one in production has to do is in docs/operations/network.md.
type Balancer struct {
	fleet *Fleet
	proxy *httputil.ReverseProxy
	turn  atomic.Uint64

	mu    sync.Mutex
	ready map[*Node]bool // guarded by mu
}

// NewBalancer returns a balancer. It knows nobody to be ready before Serve has asked.
func NewBalancer(f *Fleet) *Balancer {
	b := &Balancer{fleet: f, ready: make(map[*Node]bool)}
	b.proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: attemptOf(r.In).to.Public()})
			r.SetXForwarded()
			r.Out.Host = r.In.Host
		},
		FlushInterval: -1, // streams
		ErrorLog:      log.New(io.Discard, "", 0),
		ErrorHandler:  func(_ http.ResponseWriter, r *http.Request, err error) { attemptOf(r).err = err },
	}
	return b
}

// attempt is a request on its way to one node, in the request's context. The proxy notes why nothing came back.
type attempt struct {
	to  *Node
	err error
}

type attemptKey struct{}

func attemptOf(r *http.Request) *attempt { return r.Context().Value(attemptKey{}).(*attempt) }

// Serve takes requests on a listener and watches the nodes until ctx ends, and closes the listener. told hears when a node is ready and
// when it is not any more; it may be nil.
func (b *Balancer) Serve(ctx context.Context, l net.Listener, told func(n *Node, ready bool)) error {
	ctx, cancel := context.WithCancel(ctx)
	s := &http.Server{Handler: b, ReadHeaderTimeout: 5 * time.Second}
	var watching sync.WaitGroup
	watching.Go(func() { b.watch(ctx, told) })
	context.AfterFunc(ctx, func() { s.Close() })
	err := s.Serve(l)
	cancel()
	watching.Wait()
	closing := s.Close() // of whoever else closes it nobody knows how far that is
	if errors.Is(err, http.ErrServerClosed) {
		return closing
	}
	return fmt.Errorf("fleet: balancer: %w", err)
}

// watch asks every node whether it is ready, a few times a second, until ctx ends.
func (b *Balancer) watch(ctx context.Context, told func(n *Node, ready bool)) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		var asking sync.WaitGroup
		for _, n := range b.fleet.nodes {
			asking.Go(func() { b.note(n, n.Running() && n.ready(ctx, n.Admin()), told) })
		}
		asking.Wait()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (b *Balancer) note(n *Node, ready bool, told func(*Node, bool)) {
	b.mu.Lock()
	was := b.ready[n]
	b.ready[n] = ready
	b.mu.Unlock()
	if was != ready && told != nil {
		told(n, ready)
	}
}

// SendsTo reports whether a node gets requests now: some time after it is ready, as the balancer has to hear of it. Whoever stops one
// node after the other goes on when it does, since before that the next one may be the last that takes any.
func (b *Balancer) SendsTo(n *Node) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ready[n]
}

// order returns the nodes that may take a request, the one whose turn it is first.
func (b *Balancer) order(path string) []*Node {
	role := Center
	if path == "/connect" || strings.HasPrefix(path, "/connect/") {
		role = Room
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []*Node
	for _, n := range b.fleet.nodes {
		if n.plays(role) && b.ready[n] {
			all = append(all, n)
		}
	}
	if len(all) == 0 {
		return nil
	}
	at := int(b.turn.Add(1) % uint64(len(all)))
	return append(all[at:len(all):len(all)], all[:at]...)
}

// mayRepeat is the most of a body that is kept, so that a request can go to the next node. One that is larger, as an uploaded list is, goes to one node as it comes.
const mayRepeat = 8 << 20

// ServeHTTP sends a request to a node. One that could not be reached has not begun with it, so the next one is tried; one that broke off has
// perhaps, and the client is told that nobody knows.
func (b *Balancer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, mayRepeat+1))
	if err != nil {
		http.Error(w, "the body broke off", http.StatusBadRequest)
		return
	}
	rest, nodes := io.Reader(http.NoBody), b.order(r.URL.Path)
	if len(body) > mayRepeat {
		rest, nodes = r.Body, nodes[:min(len(nodes), 1)]
	}
	for _, n := range nodes {
		a := &attempt{to: n}
		r := r.Clone(context.WithValue(r.Context(), attemptKey{}, a))
		r.Body = http.NoBody
		if len(body) > 0 {
			r.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), rest))
		}
		b.proxy.ServeHTTP(w, r)
		if a.err == nil {
			return
		}
		if !isDial(a.err) {
			http.Error(w, "the node broke off", http.StatusBadGateway)
			return
		}
		b.note(n, false, nil)
	}
	w.Header().Set("Retry-After", "1")
	http.Error(w, "no node is ready for this", http.StatusServiceUnavailable)
}

// isDial reports whether a node was not reached at all.
func isDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}
