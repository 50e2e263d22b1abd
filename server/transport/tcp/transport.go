package tcp

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"carillon/server/push"
	"carillon/server/transport"
	"carillon/server/transport/engine"
	"carillon/server/wire"
)

// Config says how to hold connections. Acceptor is required, everything else has a default.
type Config struct {
	Acceptor transport.Acceptor

	FirstFrameBytes int // largest first frame of a client; default transport.MaxFirstFrame
	FrameBytes      int // largest later one; default transport.MaxFrame
	Workers         int // drain workers; default GOMAXPROCS

	Engine engine.Form // by default engine.Epoll where there is an epoll, else engine.Goroutine

	Log *slog.Logger // failures on our side; default: none
}

// Transport takes connections from listeners and owns them. It is safe for concurrent use.
type Transport struct {
	// Static after construction.
	engine *engine.Engine
	log    *slog.Logger
	done   chan struct{} // closed by Close

	mu sync.Mutex
	// Guarded by mu.
	closed    bool
	listeners map[net.Listener]struct{}
	serving   sync.WaitGroup // added to while closed is not set
}

// New returns a running transport. Its goroutines end with [Transport.Close].
func New(cfg Config) (*Transport, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	e, err := engine.New(engine.Config{
		Kind: transport.TCP, Acceptor: cfg.Acceptor, FirstFrameBytes: cfg.FirstFrameBytes, FrameBytes: cfg.FrameBytes,
		Workers: cfg.Workers, Form: cfg.Engine, Log: cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	return &Transport{engine: e, log: cfg.Log, done: make(chan struct{}), listeners: make(map[net.Listener]struct{})}, nil
}

// Engine returns the engine that the transport runs.
func (t *Transport) Engine() engine.Form { return t.engine.Form() }

// Writes returns how many writes to sockets have been made, or tried. Compared with the number of frames it tells how many
// frames leave together.
func (t *Transport) Writes() int64 { return t.engine.Writes() }

// ErrClosed is what Serve returns after Close.
var ErrClosed = errors.New("tcp: the transport is closed")

// Serve makes a connection of each that l accepts, until l fails or the transport is closed, which closes l. TLS is the
// listener's to add (tls.NewListener). When the process has no descriptor left, it waits a little and goes on.
func (t *Transport) Serve(l net.Listener) error {
	if !t.enter(l) {
		l.Close()
		return ErrClosed
	}
	defer t.leave(l)
	pause := time.Duration(0)
	for {
		nc, err := l.Accept()
		if err == nil {
			pause = 0
			t.admit(nc)
			continue
		}
		select {
		case <-t.done:
			return ErrClosed
		default:
		}
		if !isShortage(err) {
			return err
		}
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		t.log.Warn("tcp: no connection can be accepted for now", slog.Any("err", err), slog.Duration("again_in", pause))
		select {
		case <-t.done:
			return ErrClosed
		case <-time.After(pause):
		}
	}
}

// isShortage reports whether accepting may succeed later.
func isShortage(err error) bool {
	for _, e := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (t *Transport) enter(l net.Listener) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.listeners[l] = struct{}{}
	t.serving.Add(1)
	return true
}

func (t *Transport) leave(l net.Listener) {
	t.mu.Lock()
	delete(t.listeners, l)
	t.mu.Unlock()
	t.serving.Done()
}

// Close closes the listeners, waits until the present connections have ended, which is for their sessions to bring about, and
// for every goroutine of the transport. When ctx ends, it cuts what is left and says so in its error; then it still waits for
// the goroutines, which a cut connection does not hold up.
func (t *Transport) Close(ctx context.Context) error {
	t.mu.Lock()
	if !t.closed {
		t.closed = true
		close(t.done)
	}
	var ls []net.Listener
	for l := range t.listeners {
		ls = append(ls, l)
	}
	t.mu.Unlock()
	for _, l := range ls {
		l.Close() // what it says of a listener that is gone is no news
	}
	t.serving.Wait()
	return t.engine.Close(ctx)
}

// admit makes a connection of what was accepted, or refuses it.
func (t *Transport) admit(nc net.Conn) {
	c := &conn{}
	_, secure := nc.(*tls.Conn)
	err := t.engine.Accept(c, transport.Meta{
		Kind:         transport.TCP,
		Capabilities: transport.Capabilities{Encoding: wire.Binary, Duplex: true},
		Remote:       addrPort(nc.RemoteAddr()),
	}, !secure)
	if err != nil {
		refuse(nc, err, secure)
		return
	}
	if err := t.engine.Adopt(c, nc, nil); err != nil {
		t.log.Warn("tcp: a connection is lost", slog.Any("err", err))
	}
}

// refusePatience is how long a refusal may take. A new socket has room for it, so it takes none.
const refusePatience = 100 * time.Millisecond

// refuse tells a client when to come back. One whose handshake for TLS is still to come is not worth it: it comes back with
// its backoff.
func refuse(nc net.Conn, err error, secure bool) {
	if secure {
		nc.(*tls.Conn).NetConn().Close() // Close would wait to say goodbye
		return
	}
	defer nc.Close()
	after := time.Second
	if e, ok := errors.AsType[*push.Error](err); ok {
		after = max(after, e.After)
	}
	code := wire.CloseOverloaded
	out := wire.Out{Frame: &wire.Goaway{Code: code, Reason: code.String(), DelayMillis: uint32(after.Milliseconds())}}
	if nc.SetWriteDeadline(time.Now().Add(refusePatience)) == nil {
		nc.Write(appendFrame(nil, &out)) // whoever is gone by now does not miss it
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		p := t.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	}
	return netip.AddrPort{}
}
