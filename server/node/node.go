package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"carillon/server/clock"
	"carillon/server/push"
	"carillon/server/register"
)

// Local is the room of this node.
type Local interface {
	Deliver(d *push.Delivery)
	Sessions(p push.ProductID, u push.UserID) []push.LiveSession
	End(p push.ProductID, u push.UserID, d push.DeviceID)
	Kick(ctx context.Context, p push.ProductID, u push.UserID, k push.Kick) (int, error)
	Retag(ctx context.Context, p push.ProductID, users []push.UserID) error
	Evict(o register.Order)
	Alive() bool // it holds its lease, and takes clients
}

// Register is what a node asks of the register.
type Register interface {
	Rooms(ctx context.Context) ([]register.Room, error)
	Lookup(ctx context.Context, p push.ProductID, users []push.UserID) ([][]register.Found, error)
}

// Config is what a node is made of. Fields without a default named are required.
type Config struct {
	Room     push.RoomID // the node's own room; empty: it has none
	Local    Local       // with Room
	Register Register
	Notices  Notices // nil: what a room that cannot be reached has to know it learns from nobody
	TLS      TLS
	// LastRooms returns the rooms as they were known last, from memory: it is asked when the register cannot be. nil: nobody knows.
	LastRooms func() []register.Room

	Clock   clock.Clock   // clock.System
	Log     *slog.Logger  // none
	Metrics *Metrics      // NewMetrics(nil)
	Timeout time.Duration // of a call to another node: 2 s
	// QueueBytes bounds what waits for one other room: 8 MiB. BatchBytes bounds what goes to it at once: 1 MiB.
	QueueBytes int
	BatchBytes int
}

// maxBatch is the most that a node takes in one request, whatever others send.
const maxBatch = 16 << 20

// Node speaks with the other nodes. It is a push.Rooms. All methods are safe for concurrent use.
type Node struct {
	// Static after construction.
	cfg    Config
	log    *slog.Logger
	m      *Metrics
	client *http.Client
	dialer *http.Transport
	life   context.Context // ends with Close
	end    context.CancelFunc
	loops  sync.WaitGroup

	// Guarded by mu.
	mu    sync.Mutex
	peers map[push.RoomID]*peer

	// Guarded by startMu.
	startMu sync.Mutex
	closed  bool

	catching chan struct{} // holds a token while somebody reads notices and owns caught; never closed
	caught   uint64        // the local room has obeyed all notices up to this one

	// Guarded by obeyedMu.
	obeyedMu sync.Mutex
	obeyed   map[uint64]bool // notices above caught that came by a call first
}

var _ push.Rooms = (*Node)(nil)

// New returns a node that knows nobody yet. Close it in any case.
func New(cfg Config) (*Node, error) {
	if cfg.Register == nil || cfg.TLS.client == nil || (cfg.Room == "") != (cfg.Local == nil) {
		return nil, errors.New("node: a register, credentials, and both or neither of a room's id and the room are needed")
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics(nil)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 2 * time.Second
	}
	if cfg.QueueBytes == 0 {
		cfg.QueueBytes = 8 << 20
	}
	if cfg.BatchBytes == 0 {
		cfg.BatchBytes = 1 << 20
	}
	if cfg.QueueBytes < 1 || cfg.BatchBytes < 1 || cfg.BatchBytes > maxBatch/2 {
		return nil, fmt.Errorf("node: a batch has 1 to %d bytes", maxBatch/2)
	}
	n := &Node{cfg: cfg, log: cfg.Log, m: cfg.Metrics, peers: make(map[push.RoomID]*peer), catching: make(chan struct{}, 1), obeyed: make(map[uint64]bool)}
	n.life, n.end = context.WithCancel(context.Background())
	n.dialer = &http.Transport{
		TLSClientConfig: cfg.TLS.client, ForceAttemptHTTP2: true, TLSHandshakeTimeout: cfg.Timeout, DisableCompression: true,
		DialContext:         (&net.Dialer{Timeout: cfg.Timeout}).DialContext,
		MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute,
		HTTP2: &http.HTTP2Config{SendPingTimeout: cfg.Timeout, PingTimeout: cfg.Timeout, WriteByteTimeout: cfg.Timeout},
	}
	n.client = &http.Client{Transport: n.dialer, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return n, nil
}

// Serve serves the other nodes on a listener until ctx ends, and closes the listener.
func (n *Node) Serve(ctx context.Context, l net.Listener) error {
	s := &http.Server{
		Handler: n.handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 5 * time.Minute,
		MaxHeaderBytes: 8 << 10, TLSConfig: n.cfg.TLS.server,
		ErrorLog: log.New(io.Discard, "", 0), // strangers at the door, each on a line
	}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	err := s.ServeTLS(l, "", "")
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("node: serve: %w", err)
}

// Close ends what waits for other nodes. What was not sent is dropped.
func (n *Node) Close() error {
	n.startMu.Lock()
	n.closed = true
	n.startMu.Unlock()
	n.end()
	n.loops.Wait()
	n.dialer.CloseIdleConnections()
	return nil
}
