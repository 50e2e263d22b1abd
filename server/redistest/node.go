package redistest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"carillon/server/bench/child"
	"carillon/server/proxytest"
)

const (
	program  = "redis-server"
	confFile = "redis.conf"
	logFile  = "redis.log"
)

// ErrNotInstalled says that there is no Redis on this machine.
var ErrNotInstalled = errors.New("redistest: there is no " + program + " on this machine; it comes with Debian's package " +
	"redis-server (as root: apt-get install redis-server)")

// errAddressInUse says that somebody who reserves no ports was faster.
var errAddressInUse = errors.New("redistest: the port is taken")

// Node is one process of Redis: a server or a sentinel. All methods are safe for concurrent use, but two that end or start the
// process of one node at once.
type Node struct {
	// Static after construction.
	name     string // of its directory, and in errors
	dir      string
	host     string
	port     port
	bus      *port // in a cluster
	sentinel bool
	hurried  bool // a sentinel that looks more often than sentinels do
	client   *redis.Client
	proxy    *proxytest.Proxy // what clients dial, if the deployment is proxied

	mu sync.Mutex
	// Guarded by mu.
	process *child.Process // nil before the first start
	frozen  bool
	faults  faults
}

// newNode makes a node that is not started. Its directory is made, its configuration is not.
func newNode(parent, name string, c config, bus bool) (*Node, error) {
	n := &Node{name: name, dir: filepath.Join(parent, name), host: c.host}
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return nil, fmt.Errorf("redistest: %w", err)
	}
	var err error
	if n.port, err = reservePort(c.host); err != nil {
		return nil, err
	}
	if bus {
		p, err := reservePort(c.host)
		if err != nil {
			return nil, errors.Join(err, n.port.release())
		}
		n.bus = &p
	}
	return n, nil
}

// connect makes the client that the kit asks the node with. It never repeats a command, and finds out quickly that nobody is there.
func (n *Node) connect(username, password string, t *tls.Config) {
	n.client = redis.NewClient(&redis.Options{
		Addr: n.Addr(), Username: username, Password: password, TLSConfig: t,
		MaxRetries: -1, DialerRetries: 1, DialTimeout: time.Second, ReadTimeout: 2 * time.Second, ContextTimeoutEnabled: true,
		PoolSize: 4, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
}

// configure writes the configuration that the next start reads. Redis changes the file itself when sentinels say so.
func (n *Node) configure(lines []string) error {
	all := []string{
		"bind " + n.host,
		"dir " + strconv.Quote(n.dir),
		"logfile " + strconv.Quote(filepath.Join(n.dir, logFile)),
		"daemonize no",
	}
	all = append(all, lines...)
	if err := os.WriteFile(filepath.Join(n.dir, confFile), []byte(strings.Join(all, "\n")+"\n"), 0o600); err != nil {
		return fmt.Errorf("redistest: %w", err)
	}
	return nil
}

// Name returns the node's name within its deployment.
func (n *Node) Name() string { return n.name }

// Dir returns where the node keeps its files.
func (n *Node) Dir() string { return n.dir }

// Addr returns where the node listens.
func (n *Node) Addr() string { return net.JoinHostPort(n.host, n.port.String()) }

// Public returns where clients and peers are told that the node is: its own address, or that of the proxy before it.
func (n *Node) Public() string {
	if n.proxy != nil {
		return n.proxy.Addr()
	}
	return n.Addr()
}

// Client returns a client of this node alone, for what a test wants to ask or do behind the back of what it tests. It is closed with
// the deployment.
func (n *Node) Client() *redis.Client { return n.client }

// PID returns the process id of the node, 0 while it does not run.
func (n *Node) PID() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process == nil || n.process.Err() != nil {
		return 0
	}
	return n.process.PID()
}

// Log returns the end of what the node logged.
func (n *Node) Log() string {
	const most = 2 << 10
	b, err := os.ReadFile(filepath.Join(n.dir, logFile))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b[max(0, len(b)-most):]))
}

// spawn starts the process and returns without waiting for an answer from it.
func (n *Node) spawn() error {
	path, err := exec.LookPath(program)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotInstalled, err)
	}
	command := []string{path, filepath.Join(n.dir, confFile)}
	if n.sentinel {
		command = append(command, "--sentinel")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process != nil && n.process.Err() == nil {
		return fmt.Errorf("redistest: %s runs already", n.name)
	}
	p, err := child.Start(command, os.Environ())
	if err != nil {
		return fmt.Errorf("redistest: start %s: %w", n.name, err)
	}
	n.process, n.frozen = p, false
	return nil
}

// answers reports whether the node runs and is not frozen: one that is would keep who asks it waiting.
func (n *Node) answers() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process != nil && n.process.Err() == nil && !n.frozen
}

func (n *Node) setFrozen(yes bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.frozen = yes
}

func (n *Node) signal(s os.Signal) error {
	n.mu.Lock()
	p := n.process
	n.mu.Unlock()
	if p == nil {
		return fmt.Errorf("redistest: %s was never started", n.name)
	}
	if err := p.Signal(s); err != nil {
		return fmt.Errorf("redistest: %s: %w", n.name, err)
	}
	return nil
}

// awaitUp waits until the process that we started answers, with all that it had on disk.
func (n *Node) awaitUp(ctx context.Context) error {
	n.mu.Lock()
	p := n.process
	n.mu.Unlock()
	if p == nil {
		return fmt.Errorf("redistest: %s was never started", n.name)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		select {
		case <-p.Exited():
			err := fmt.Errorf("redistest: %s ended (%w); its log ends so:\n%s", n.name, p.Err(), n.Log())
			if strings.Contains(n.Log(), "Address already in use") {
				err = fmt.Errorf("%w: %w", errAddressInUse, err)
			}
			cancel(err)
		case <-ctx.Done():
		}
	}()
	err := await(ctx, n.name+" answers", func(ctx context.Context) error {
		if err := n.listens(ctx); err != nil {
			return err
		}
		info, err := n.Info(ctx, "everything")
		switch {
		case err != nil:
			return err
		case info["process_id"] != strconv.Itoa(p.PID()):
			return fmt.Errorf("process %s answers at %s, and not ours, which is %d", info["process_id"], n.Addr(), p.PID())
		case info["loading"] == "1":
			return errors.New("it is reading its files")
		}
		return n.hurry(ctx)
	})
	cancel(nil)
	<-watching
	return err
}

// listens returns why nobody accepts a connection. The client of the node would complain on standard error.
func (n *Node) listens(ctx context.Context) error {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", n.Addr())
	if err != nil {
		return err
	}
	return nc.Close()
}

// Info returns what INFO says of one of its sections.
func (n *Node) Info(ctx context.Context, section string) (map[string]string, error) {
	text, err := n.client.Info(ctx, section).Result()
	if err != nil {
		return nil, fmt.Errorf("redistest: ask %s: %w", n.name, err)
	}
	return fields(text), nil
}

// fields reads lines of name:value, as INFO and CLUSTER INFO have them.
func fields(text string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			m[name] = value
		}
	}
	return m
}

// Shutdown ends the process as an operator does. A primary lets its replicas catch up first.
func (n *Node) Shutdown() error {
	n.mu.Lock()
	p := n.process
	n.mu.Unlock()
	if p == nil {
		return fmt.Errorf("redistest: %s was never started", n.name)
	}
	if err := p.Stop(); err != nil {
		return fmt.Errorf("redistest: shut %s down: %w", n.name, err)
	}
	return nil
}

// Kill ends the process as a crash does. What Redis had not written to the kernel is lost, what it had not flushed is not.
func (n *Node) Kill() {
	n.mu.Lock()
	p := n.process
	n.mu.Unlock()
	if p != nil {
		p.Kill()
	}
}

// Restart starts the process of a node that has ended again, with the same port, directory and configuration, and waits until it
// has read its files. It does not wait for its peers: Redis.Await does.
func (n *Node) Restart(ctx context.Context) error {
	for {
		if err := n.spawn(); err != nil {
			return err
		}
		err := n.awaitUp(ctx)
		if !errors.Is(err, errAddressInUse) || ctx.Err() != nil {
			return err
		}
		// Somebody who reserves no ports has ours for the moment.
	}
}

// close ends the process and gives the ports back.
func (n *Node) close() error {
	n.Kill()
	if n.proxy != nil {
		n.proxy.Close()
	}
	var errs []error
	if n.client != nil {
		errs = append(errs, n.client.Close())
	}
	errs = append(errs, n.port.release())
	if n.bus != nil {
		errs = append(errs, n.bus.release())
	}
	return errors.Join(errs...)
}
