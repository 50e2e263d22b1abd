// Package gateway puts a node together: stores, room, center, transports and listeners. It is the only package that knows
// all others; they meet here through their contracts.
//
// # Place in the flow
//
// The command line turns its configuration into a [Config] and calls New, Run and Close; tests do the same, many nodes in
// one process if they like, since clock, randomness, file system and network are arguments.
//
//	public listener   /connect        -> transport/ws -> room -> saver, register
//	                  /connect/sse    -> transport/sse -> room
//	                  /connect/poll   -> transport/longpoll -> room
//	                  /connect/frames -> transport/web -> room
//	                  /connect/ticket -> auth
//	                  /v1             -> center -> saver, then push.Rooms -> room
//	                  /demo           -> /v1, auth; in development
//	TCP listener      transport/tcp   -> room
//	admin listener    /admin/v1 -> center, /livez, /readyz, /metrics, /debug/pprof, /debug/free
//
// # Start
//
// New opens the stores. A node of a cluster whose Redis is away waits for it there, until it comes or New's context ends. All that answers then is
// the admin listener: that the node lives, is not ready, and why. A configuration that does not do ends New at once.
//
// # Shutdown
//
// When Run's context ends: /readyz fails, and for the Notice that is all, but that connections of product servers end with their
// next answer: who sends requests here has the time to see it, and finds no connection closed under a request. Then the room says
// goodbye to its clients with a spread, requests under way are finished, and after ShutdownTimeout whatever is left is cut. Stores
// are closed last, by Close.
package gateway

import (
	"context"
	cryptorand "crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"carillon/server/admission"
	"carillon/server/auth"
	"carillon/server/catalog"
	"carillon/server/center"
	"carillon/server/certificate"
	"carillon/server/clock"
	"carillon/server/config"
	"carillon/server/dev"
	"carillon/server/forwarded"
	"carillon/server/idgenerator"
	"carillon/server/node"
	"carillon/server/push"
	"carillon/server/register"
	"carillon/server/room"
	"carillon/server/transport"
	"carillon/server/transport/longpoll"
	"carillon/server/transport/sse"
	"carillon/server/transport/tcp"
	"carillon/server/transport/ws"
)

// Config is what a node is given. Data is needed, and Secret unless Dev is set.
type Config struct {
	Data   string // directory of the embedded store
	Dev    bool   // makes up what is missing and writes it to dev.json; never for production
	Secret string // bearer of the admin interface

	PublicListen string   // 127.0.0.1:8080
	AdminListen  string   // 127.0.0.1:8081
	TCPListen    string   // for clients over raw TCP; none if empty
	PublicHosts  []string // names under which the public listener answers, see origin.NewHosts; all
	AdminHosts   []string // the same beside localhost and addresses, see origin.NewPrivateHosts; that of AdminListen
	Origins      []string // pages that may connect, see origin.New

	Certificates []certificate.Pair // of the listeners for clients; without any they are for a proxy, or for this machine
	Proxies      forwarded.Config   // who may say that it speaks for somebody else; nobody

	OutboundAllow []netip.Prefix // private networks where products may publish keys; in development this machine too

	Engine ws.Engine // how connections are held; the best that the system has

	Notice          time.Duration // a node that stops serves everybody for so long after it says that it is not ready; none
	ShutdownTimeout time.Duration // 20 s, after that
	DrainAddress    string        // https://host of a server that takes the clients of one that drains; empty: none
	CacheBytes      int64         // of the store; its own default if 0

	Admission admission.Config     // which connections are taken; its limits, the rest is filled in here
	Door      admission.DoorConfig // how many may be open; its limits

	Roles   []Role   // what the node does; everything
	Cluster *Cluster // the nodes with which it shares Redis; nil: it is alone, on the embedded store

	Room    room.Config   // its limits and intervals; the rest is filled in here
	Center  center.Limits // of requests
	Version string        // shown to operators

	FS     vfs.FS                                              // vfs.Default
	Listen func(network, address string) (net.Listener, error) // as net.Listen does
	Clock  clock.Clock                                         // clock.System
	Rand   io.Reader                                           // crypto/rand
	Log    *slog.Logger                                        // none
}

func (c Config) withDefaults() (Config, error) {
	if err := c.checkCluster(); err != nil {
		return c, err
	}
	if c.Data == "" && c.Cluster == nil {
		return c, errors.New("gateway: a data directory is needed")
	}
	if c.PublicListen == "" {
		c.PublicListen = "127.0.0.1:8080"
	}
	if c.AdminListen == "" {
		c.AdminListen = "127.0.0.1:8081"
	}
	if c.ShutdownTimeout == 0 {
		c.ShutdownTimeout = 20 * time.Second
	}
	if c.FS == nil {
		c.FS = vfs.Default
	}
	if c.Listen == nil {
		c.Listen = listen
	}
	if c.Clock == nil {
		c.Clock = clock.System
	}
	if c.Rand == nil {
		c.Rand = cryptorand.Reader
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Dev {
		c.Origins = append([]string{"localhost:*", "127.0.0.1:*", "[[]::1]:*"}, c.Origins...)
		c.OutboundAllow = append([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
			c.OutboundAllow...)
		return c, nil
	}
	if err := auth.CheckSecret(c.Secret); err != nil {
		return c, err
	}
	return c, nil
}

// Gateway is one node. Make it with New, serve with Run, and Close it in any case.
type Gateway struct {
	cfg Config
	log *slog.Logger
	dev dev.File // of a development node

	closers []func() error // in the order of opening; closed backwards
	closing sync.Once
	closed  error

	stores  stores
	cache   *catalog.Cache
	tokens  *auth.Verifier
	tickets auth.TicketStore
	room    *room.Room // nil: this node is no room
	node    *node.Node // nil: it is alone
	ws      *ws.Transport
	sse     *sse.Transport
	tcp     *tcp.Transport
	polls   *longpoll.Transport
	carry   []interface{ Close(context.Context) error } // all that carry sessions, in the order in which they end
	center  *center.Center
	metrics *prometheus.Registry

	edge                  *edge              // between the network and the handlers
	public                *longpoll.Listener // polls give connections back to it
	admin                 net.Listener
	raw                   net.Listener // of raw TCP; nil: there is none
	nodes                 net.Listener // of other nodes; nil: there are none
	publicHTTP, adminHTTP *http.Server
	adminRoute            route       // of adminHTTP
	adminEnded            chan error  // what adminHTTP.Serve returned, once
	leaving               atomic.Bool // draining or stopping
}

// New opens the stores and the listeners of a node. Nothing is served before Run, but what is said on the admin listener while the node waits
// for Redis. The context ends the waiting, and is of no concern to the node afterwards.
func New(ctx context.Context, cfg Config) (*Gateway, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	g := &Gateway{cfg: cfg, log: cfg.Log, metrics: prometheus.NewRegistry()}
	if err := g.open(ctx); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

func (g *Gateway) onClose(f func() error) { g.closers = append(g.closers, f) }

// open brings the parts up, in the order in which they need each other.
func (g *Gateway) open(ctx context.Context) error {
	cfg := &g.cfg
	g.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	var err error
	if g.edge, err = newEdge(cfg); err != nil {
		return err
	}
	if err := g.edge.admit(admission.NewMetrics(g.metrics)); err != nil {
		return err
	}
	g.metrics.MustRegister(g.edge.metrics()...)
	if err := g.listen(); err != nil {
		return err
	}
	if g.stores, err = g.openStores(ctx); err != nil {
		return err
	}
	g.cache = catalog.NewCache(g.stores.catalog, catalog.CacheConfig{Clock: cfg.Clock})

	if cfg.Dev {
		if err := g.setUpDev(context.Background()); err != nil {
			return err
		}
		cfg.Secret = g.dev.Secret
	}
	if cfg.has(RoleRoom) {
		if err := g.openRoom(); err != nil {
			return err
		}
	}
	if cfg.Cluster != nil {
		if err := g.openNode(ctx); err != nil {
			return err
		}
	}
	return g.openCenter()
}

func (g *Gateway) openStores(ctx context.Context) (stores, error) {
	if g.cfg.Cluster != nil {
		return g.openRedis(ctx)
	}
	return g.openEmbedded()
}

func (g *Gateway) listen() error {
	if err := g.listenOutside(); err != nil {
		return err
	}
	var err error
	if g.admin, err = g.cfg.Listen("tcp", g.cfg.AdminListen); err != nil {
		return config.ListenError("admin.listen", g.cfg.AdminListen, err)
	}
	g.onClose(ignoreClosed(g.admin.Close))
	return nil
}

// listenOutside opens the listeners of those who want something of the node: clients, product servers, other nodes.
func (g *Gateway) listenOutside() error {
	public, err := g.cfg.Listen("tcp", g.cfg.PublicListen)
	if err != nil {
		return config.ListenError("public.listen", g.cfg.PublicListen, err)
	}
	// HTTP/1.1 is the only protocol whose connections can be taken over.
	g.public = longpoll.NewListener(g.edge.listen(public, "http/1.1"), longpoll.ListenerConfig{
		Idle: idleTimeout, Again: g.edge.door.Back,
	})
	g.onClose(ignoreClosed(g.public.Close))
	if g.cfg.Cluster != nil {
		if err := g.listenNodes(); err != nil {
			return err
		}
	}
	if g.cfg.TCPListen == "" || !g.cfg.has(RoleRoom) {
		return nil
	}
	if g.raw, err = g.cfg.Listen("tcp", g.cfg.TCPListen); err != nil {
		return config.ListenError("tcp.listen", g.cfg.TCPListen, err)
	}
	g.raw = g.edge.listen(g.raw)
	g.onClose(ignoreClosed(g.raw.Close))
	return nil
}

func ignoreClosed(closeIt func() error) func() error {
	return func() error {
		if err := closeIt(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}
}

func (g *Gateway) openRoom() error {
	cfg := &g.cfg
	if err := g.openTokens(); err != nil {
		return err
	}
	var boot [8]byte
	if _, err := io.ReadFull(cfg.Rand, boot[:]); err != nil {
		return fmt.Errorf("gateway: boot id: %w", err)
	}
	var err error
	rc := cfg.Room
	rc.ID, rc.Boot = "room", push.BootID(binary.BigEndian.Uint64(boot[:])|1)
	if cfg.Cluster != nil {
		rc.ID, rc.Addr = cfg.Cluster.ID, g.nodeAddress()
		rc.Evict = func(to push.RoomID, o register.Order) { g.node.Evict(to, o) }
		rc.Obey = func(ctx context.Context) (bool, error) { return g.node.Catch(ctx) }
		rc.Elsewhere = func(ctx context.Context) bool { return g.node.Elsewhere(ctx) }
	}
	rc.Saver, rc.Register, rc.Tokens, rc.Policy = g.stores.saver, g.stores.register, g.tokens, g.policy
	if rc.Goodbye.Addresses == nil {
		rc.Goodbye.Addresses = addressesAt(cfg.DrainAddress)
	}
	rc.Clock, rc.Log, rc.Metrics = cfg.Clock, cfg.Log, room.NewMetrics(g.metrics)
	rc.Gate, rc.Counts = g.edge.gate, g.stores.tasks
	if g.room, err = room.New(rc); err != nil {
		return err
	}
	return g.openTransports()
}

func (g *Gateway) openTransports() (err error) {
	cfg := &g.cfg
	g.ws, err = ws.New(ws.Config{
		Acceptor: g.room, Origins: cfg.Origins, Remote: g.edge.proxies.Remote, FrameBytes: cfg.Room.FrameBytes, Engine: cfg.Engine,
		Log: cfg.Log,
	})
	if err != nil {
		return err
	}
	g.carry = append(g.carry, g.ws)
	g.metrics.MustRegister(writesMetric("ws", "WebSockets", g.ws.Writes))
	g.sse, err = sse.New(sse.Config{
		Acceptor: g.room, Tickets: g.tickets, Grace: g.room.Unconfirmed(), Remote: g.edge.proxies.Remote, Engine: sse.Engine(cfg.Engine),
		Now: cfg.Clock.Now, Log: cfg.Log,
	})
	if err != nil {
		return err
	}
	g.carry = append(g.carry, g.sse)
	g.metrics.MustRegister(writesMetric("sse", "event streams", g.sse.Writes))
	g.polls, err = longpoll.New(longpoll.Config{
		Acceptor: g.room, Tickets: g.tickets, Owner: owner(g.tokens), Remote: g.edge.proxies.Remote, Engine: cfg.Engine,
		Now: cfg.Clock.Now, Log: cfg.Log,
	})
	if err != nil {
		return err
	}
	g.carry = append(g.carry, g.polls)
	g.metrics.MustRegister(pollMetrics(g.polls, g.public)...)
	if g.raw == nil {
		return nil
	}
	g.tcp, err = tcp.New(tcp.Config{Acceptor: g.room, FrameBytes: cfg.Room.FrameBytes, Engine: cfg.Engine, Log: cfg.Log})
	if err != nil {
		return err
	}
	g.carry = append(g.carry, g.tcp) // it closes its listener too, which has refused everybody since the room drains
	g.metrics.MustRegister(writesMetric("tcp", "raw TCP connections", g.tcp.Writes))
	return nil
}

// ownerTimeout bounds how long a poll with a new token waits to hear whose it is. Where that cannot be said in time the poll
// begins a session, which is told for itself.
const ownerTimeout = 5 * time.Second

// owner tells whom a token speaks for, by the name that is in that device's cursors.
func owner(tokens room.Tokens) func(context.Context, string) (push.CursorOwner, error) {
	return func(ctx context.Context, token string) (push.CursorOwner, error) {
		ctx, cancel := context.WithTimeout(ctx, ownerTimeout)
		defer cancel()
		id, err := tokens.Verify(ctx, token)
		if err != nil {
			return 0, err
		}
		return push.OwnerOf(id.Product.ID, id.User, id.Device), nil
	}
}

// policy tells the room what it needs to know of a product.
func (g *Gateway) policy(ctx context.Context, p push.ProductID) (room.Policy, error) {
	prod, err := g.cache.LookupProduct(ctx, p)
	if err != nil {
		return room.Policy{}, err
	}
	return room.Policy{
		Shards: prod.Shards, FirstVisit: prod.FirstVisit.WithDefaults(), Limits: prod.Limits.WithDefaults(), Sessions: prod.Sessions,
	}, nil
}

func (g *Gateway) openCenter() error {
	cfg := &g.cfg
	ids, err := idgenerator.New(g.stores.blocks, idgenerator.Config{})
	if err != nil {
		return err
	}
	keys, err := auth.NewAPIKeys(auth.APIConfig{Keys: g.cache, Clock: cfg.Clock})
	if err != nil {
		return err
	}
	var reach push.Rooms = rooms{g.room}
	if g.node != nil {
		reach = g.node
	}
	drain := g.drain
	if g.room == nil {
		drain = nil
	}
	var life [8]byte
	if _, err := io.ReadFull(cfg.Rand, life[:]); err != nil {
		return fmt.Errorf("gateway: name of a life: %w", err)
	}
	holder := hex.EncodeToString(life[:])
	if cfg.Cluster != nil {
		holder = string(cfg.Cluster.ID) + "/" + holder
	}
	g.center, err = center.New(center.Config{
		Saver: g.stores.saver, Register: g.stores.register, Rooms: reach, Catalog: g.cache, Tasks: g.stores.tasks, Keys: keys, IDs: ids,
		Holder: holder, Secret: cfg.Secret,
		Backup: g.stores.backup, Drain: drain, Rand: cfg.Rand, Clock: cfg.Clock, Log: cfg.Log, Metrics: g.metrics, Limits: cfg.Center,
	})
	return err
}

// PublicAddr and AdminAddr return where the node listens.
func (g *Gateway) PublicAddr() net.Addr { return g.public.Addr() }

// AdminAddr: see PublicAddr.
func (g *Gateway) AdminAddr() net.Addr { return g.admin.Addr() }

// TCPAddr returns where the node listens for clients over raw TCP, nil if it does not.
func (g *Gateway) TCPAddr() net.Addr {
	if g.raw == nil {
		return nil
	}
	return g.raw.Addr()
}

// TCPURL returns that address as a URL for people on this machine: tcps under TLS; empty if there is none.
func (g *Gateway) TCPURL() string {
	switch {
	case g.raw == nil:
		return ""
	case g.edge.certs != nil:
		return "tcps://" + hostOf(g.raw.Addr())
	}
	return "tcp://" + hostOf(g.raw.Addr())
}

// PublicURL returns the address of the public listener as a URL for people on this machine.
func (g *Gateway) PublicURL() string { return g.edge.scheme() + "://" + hostOf(g.public.Addr()) }

// ReloadCertificates takes up what is new in the files of the node's certificates, as Run does every few seconds. The error
// says which are not good; the old ones stay in use.
func (g *Gateway) ReloadCertificates() error { return g.edge.reload() }

// Engine returns how the node holds connections; empty if it holds none.
func (g *Gateway) Engine() ws.Engine {
	if g.ws == nil {
		return ""
	}
	return g.ws.Engine()
}

// Dev returns what a development node wrote to dev.json.
func (g *Gateway) Dev() dev.File { return g.dev }

// Run serves until ctx ends or a listener fails, and then stops gracefully. It is called once.
func (g *Gateway) Run(ctx context.Context) error {
	g.publicHTTP = g.server(g.edge.guardPublic(g.publicRoutes()))
	g.publicHTTP.ConnContext = g.public.ConnContext
	g.serveAdmin(g.adminRoutes())
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)

	// What serves goes on after ctx ended, until stop says so.
	serve, halt := context.WithCancel(context.WithoutCancel(ctx))
	defer halt()
	var parts sync.WaitGroup
	part := func(name string, run func() error) {
		parts.Go(func() {
			if err := run(); err != nil && !isEnd(err) {
				fail(fmt.Errorf("gateway: %s: %w", name, err))
			}
		})
	}
	part("admin listener", func() error { return <-g.adminEnded })
	if g.node != nil { // before the register says where this node is
		part("node listener", func() error { return g.node.Serve(serve, g.nodes) })
	}
	if g.room != nil {
		part("room", func() error { return g.room.Run(serve) })
	}
	part("store", func() error { return g.stores.run(serve) })
	if g.cfg.has(RoleCenter) {
		part("tasks", func() error { g.center.RunTasks(serve); return nil })
	}
	part("admission", func() error { return g.edge.gate.Run(serve) })
	part("certificates", func() error { return g.edge.run(serve) })
	if g.room != nil {
		select { // nobody is let in before the room can take them
		case <-g.room.Joined():
		case <-ctx.Done():
		}
	}
	part("public listener", func() error { return g.publicHTTP.Serve(g.public) })
	if g.tcp != nil {
		part("TCP listener", func() error { return g.tcp.Serve(g.raw) })
	}

	<-ctx.Done()
	err := context.Cause(ctx)
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	g.log.Info("stopping", "clients", g.clients(), "notice", g.cfg.Notice, "within", g.cfg.ShutdownTimeout)
	if leaving := g.leaving.Swap(true); err == nil && !leaving { // who drains has said so before
		g.giveNotice()
	}
	return errors.Join(err, g.stop(ctx, halt, &parts))
}

// clients returns how many clients are here.
func (g *Gateway) clients() int {
	if g.room == nil {
		return 0
	}
	return g.room.Count()
}

// isEnd reports whether a part ended because it was told to.
func isEnd(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, http.ErrServerClosed) || errors.Is(err, tcp.ErrClosed)
}

// giveNotice lets the time pass in which load balancers see that the node is not ready. It serves everybody meanwhile: those who do not
// know yet would fail.
func (g *Gateway) giveNotice() {
	if g.cfg.Notice <= 0 {
		return
	}
	over := make(chan struct{})
	g.cfg.Clock.AfterFunc(g.cfg.Notice, func() { close(over) })
	<-over
}

// stop lets clients and requests go, and cuts them when the time is over.
func (g *Gateway) stop(ctx context.Context, halt func(), parts *sync.WaitGroup) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.cfg.ShutdownTimeout)
	defer cancel()
	if g.room != nil {
		if err := g.room.Drain(ctx); err != nil {
			g.log.Warn("clients are cut that did not leave in time", "clients", g.room.Count())
		}
	}
	g.center.EndStreams()
	errPublic := g.publicHTTP.Shutdown(ctx)
	if errPublic != nil {
		errPublic = errors.Join(errPublic, g.publicHTTP.Close())
	}
	halt() // the room cuts what is left, writes its last acknowledgements and leaves the register
	errTransports := g.closeTransports(ctx)
	errAdmin := g.adminHTTP.Shutdown(ctx)
	if errAdmin != nil {
		errAdmin = errors.Join(errAdmin, g.adminHTTP.Close())
	}
	parts.Wait()
	return errors.Join(errPublic, errTransports, errAdmin)
}

// closeTransports ends what carries sessions, as far as it was made.
func (g *Gateway) closeTransports(ctx context.Context) error {
	var errs []error
	for _, c := range g.carry {
		errs = append(errs, c.Close(ctx))
	}
	return errors.Join(errs...)
}

// drain begins to hand clients over to other nodes; the node goes on serving requests.
func (g *Gateway) drain(ctx context.Context, d center.Drain) error {
	bye := room.Goodbye{Spread: d.Spread}
	if d.Address != nil {
		if bye.Addresses = addressesAt(*d.Address); bye.Addresses == nil {
			bye.Addresses = map[transport.Kind]string{} // none, whatever is configured
		}
	}
	g.room.SetGoodbye(bye)
	g.leaving.Store(true)
	ctx, cancel := context.WithCancel(ctx)
	cancel() // begins, and does not wait
	if err := g.room.Drain(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// Close closes the stores and listeners. Run has to have returned, if it was called. Further calls return the same.
func (g *Gateway) Close() error {
	g.closing.Do(func() {
		var errs []error
		for i := len(g.closers) - 1; i >= 0; i-- {
			errs = append(errs, g.closers[i]())
		}
		if g.publicHTTP == nil { // Run, which closes them, was never called
			errs = append(errs, g.closeTransports(context.Background()), g.hushAdmin())
		}
		g.closed = errors.Join(errs...)
	})
	return g.closed
}
