package fleet

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"carillon/server/bench/child"
	"carillon/server/proxytest"
	"carillon/server/redistest"
)

// Config says what a fleet is made of.
type Config struct {
	Binary     string // of carillon
	Dir        string // for dev.json and secrets; it exists
	Redis      redistest.Access
	Embedded   bool           // one node that plays both roles on a store of its own, below Dir; Redis, Rooms and Centers are not looked at
	Rooms      int            // 3
	Centers    int            // 2
	Together   int            // nodes that play both roles on Redis, in place of all those
	Durability string         // of redis.durability; its default
	Replicas   int            // of redis.replicas, with durability "replicated"
	Shards     int            // of the product that SetUp makes; 0: as many as the store gives one
	Limits     map[string]any // of that product, as the administration takes them; nil: the defaults
	Proxied    bool           // what nodes say to each other goes through a proxy before each; see Node.Lose
	Env        []string       // for every node, NAME=value: more of its configuration
}

// Role is what a node does.
type Role string

// The roles.
const (
	Room   Role = "room"
	Center Role = "center"
	Both   Role = "both"
)

// Fleet is a running cluster. All methods are safe for concurrent use.
type Fleet struct {
	// Static after Start.
	cfg    Config
	secret string
	nodes  []*Node
}

// Node is one node of it.
type Node struct {
	// Static after construction.
	fleet *Fleet
	name  string
	role  Role
	proxy *proxytest.Proxy // before what other nodes dial, if the fleet is proxied

	mu   sync.Mutex
	proc *child.Process      // guarded by mu; nil: it was never started
	life life                // guarded by mu
	more []string            // guarded by mu; see Configure
	uses string              // guarded by mu; see Use
	lose proxytest.Direction // guarded by mu; see Lose
}

// life is where a node listens during one life.
type life struct{ Public, Admin, TCP, Nodes string }

// Start starts all nodes and returns when each is ready.
func Start(ctx context.Context, cfg Config) (*Fleet, error) {
	if cfg.Rooms == 0 {
		cfg.Rooms = 3
	}
	if cfg.Centers == 0 {
		cfg.Centers = 2
	}
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return nil, fmt.Errorf("fleet: %w", err)
	}
	f := &Fleet{cfg: cfg, secret: hex.EncodeToString(secret)}
	nodes := map[Role]int{Room: cfg.Rooms, Center: cfg.Centers}
	if cfg.Embedded {
		nodes = map[Role]int{Both: 1}
	} else if cfg.Together > 0 {
		nodes = map[Role]int{Both: cfg.Together}
	}
	for role, n := range nodes {
		for i := range n {
			f.nodes = append(f.nodes, &Node{fleet: f, name: string(role) + strconv.Itoa(i+1), role: role})
		}
	}
	if cfg.Proxied && !cfg.Embedded {
		for _, n := range f.nodes {
			if err := n.startProxy(); err != nil {
				return nil, errors.Join(err, f.Close())
			}
		}
	}
	slices.SortFunc(f.nodes, func(a, b *Node) int { return strings.Compare(a.name, b.name) })
	errs := make([]error, len(f.nodes))
	var starting sync.WaitGroup
	for i, n := range f.nodes {
		starting.Go(func() { errs[i] = n.Start(ctx) })
	}
	starting.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Nodes returns all nodes by name.
func (f *Fleet) Nodes() []*Node { return slices.Clone(f.nodes) }

// Of returns the nodes that play a role.
func (f *Fleet) Of(r Role) []*Node {
	var out []*Node
	for _, n := range f.nodes {
		if n.plays(r) {
			out = append(out, n)
		}
	}
	return out
}

// Secret returns the secret of the administration.
func (f *Fleet) Secret() string { return f.secret }

// Close ends every node that runs, in peace where it can.
func (f *Fleet) Close() error {
	errs := make([]error, len(f.nodes))
	var ending sync.WaitGroup
	for i, n := range f.nodes {
		ending.Go(func() {
			if n.Running() {
				errs[i] = n.Stop()
			}
			if n.proxy != nil {
				n.proxy.Close()
			}
		})
	}
	ending.Wait()
	return errors.Join(errs...)
}

// Name returns the node's name, which is its id in the cluster too.
func (n *Node) Name() string { return n.name }

// Role returns what the node does.
func (n *Node) Role() Role { return n.role }

func (n *Node) plays(r Role) bool { return n.role == r || n.role == Both }

// Configure says what the node's next lives have in their environment besides what all nodes have, in place of what was said before. A
// name that all nodes have too counts as it is here.
func (n *Node) Configure(env ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.more = slices.Clone(env)
}

// Use says which binary the node's next lives are of, in place of the fleet's.
func (n *Node) Use(binary string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.uses = binary
}

func (n *Node) binary() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return cmp.Or(n.uses, n.fleet.cfg.Binary)
}

// Public, Admin and TCP return the node's addresses in its present life, host:port; TCP is empty for a center.
func (n *Node) Public() string { return n.now().Public }

// Admin: see Public.
func (n *Node) Admin() string { return n.now().Admin }

// TCP: see Public.
func (n *Node) TCP() string { return n.now().TCP }

func (n *Node) now() life {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.life
}

func (n *Node) process() *child.Process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.proc
}

// PID returns the number of the node's process, 0 if it was never started.
func (n *Node) PID() int {
	if p := n.process(); p != nil {
		return p.PID()
	}
	return 0
}

// Running reports whether the node's process is there, be it frozen.
func (n *Node) Running() bool {
	p := n.process()
	return p != nil && p.Err() == nil
}

// Exited is closed when the node's present process is gone; it never is if there was none.
func (n *Node) Exited() <-chan struct{} {
	if p := n.process(); p != nil {
		return p.Exited()
	}
	return nil
}

// Said returns the last of what the node logged.
func (n *Node) Said() string {
	if p := n.process(); p != nil {
		return p.Said()
	}
	return ""
}

// Start begins a life of the node and returns when it is ready.
func (n *Node) Start(ctx context.Context) error {
	p, err := child.Start([]string{n.binary(), "serve"}, n.environment())
	if err != nil {
		return fmt.Errorf("fleet: %s: %w", n.name, err)
	}
	l, err := n.await(ctx, p)
	if err != nil {
		p.Kill()
		return fmt.Errorf("fleet: %s: %w", n.name, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.proc, n.life = p, l
	return nil
}

func (n *Node) environment() []string {
	c := &n.fleet.cfg
	env := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"),
		"CARILLON_SECRET=" + n.fleet.secret, "CARILLON_PUBLIC_LISTEN=127.0.0.1:0", "CARILLON_ADMIN_LISTEN=127.0.0.1:0",
		"CARILLON_TCP_LISTEN=127.0.0.1:0", "CARILLON_PROXY_TRUSTED=127.0.0.1",
		"CARILLON_DRAIN_NOTICE=1s", // the balancer asks four times a second
	}
	if c.Embedded {
		env = append(env, "CARILLON_DATA="+filepath.Join(c.Dir, n.name))
	} else {
		env = append(env, n.onRedis()...)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Concat(env, c.Env, n.more)
}

func (n *Node) onRedis() []string {
	c := &n.fleet.cfg
	roles := string(n.role)
	if n.role == Both {
		roles = "room,center"
	}
	env := []string{
		"CARILLON_ROLES=" + roles, "CARILLON_STORE_KIND=redis", "CARILLON_REDIS_MODE=" + c.Redis.Mode,
		"CARILLON_REDIS_ADDRESSES=" + strings.Join(c.Redis.Addrs, ","), "CARILLON_REDIS_MASTER=" + c.Redis.MasterName,
		"CARILLON_REDIS_USERNAME=" + c.Redis.Username, "CARILLON_REDIS_PASSWORD=" + c.Redis.Password,
		"CARILLON_NODE_ID=" + n.name, "CARILLON_NODE_LISTEN=127.0.0.1:0", "CARILLON_NODE_SECRET=" + n.fleet.secret,
	}
	if n.proxy != nil {
		env = append(env, "CARILLON_NODE_ADVERTISE="+n.proxy.Addr())
	}
	if c.Durability != "" {
		env = append(env, "CARILLON_REDIS_DURABILITY="+c.Durability)
	}
	if c.Replicas != 0 {
		env = append(env, "CARILLON_REDIS_REPLICAS="+strconv.Itoa(c.Replicas))
	}
	return env
}

// await waits until a process serves and is ready.
func (n *Node) await(ctx context.Context, p *child.Process) (l life, err error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if l.Public == "" {
			if l = parseLife(p.Said()); n.proxy != nil && l.Public != "" {
				n.proxy.Retarget(l.Nodes)
			}
		}
		if l.Public != "" && n.ready(ctx, l.Admin) {
			return l, nil
		}
		select {
		case <-p.Exited():
			return l, p.Err()
		case <-ctx.Done():
			return l, fmt.Errorf("it is not ready: %w; it said %s", ctx.Err(), p.Said())
		case <-tick.C:
		}
	}
}

// parseLife finds the addresses in what a node logs when it begins to serve.
func parseLife(log string) (l life) {
	for line := range strings.Lines(log) {
		if !strings.Contains(line, "msg=serving ") {
			continue
		}
		for field := range strings.FieldsSeq(line) {
			switch name, value, _ := strings.Cut(field, "="); name {
			case "public":
				l.Public = value
			case "admin":
				l.Admin = value
			case "nodes_listen":
				if value != "none" {
					l.Nodes = value
				}
			case "tcp":
				if value != "off" {
					l.TCP = strings.TrimPrefix(value, "tcp://")
				}
			}
		}
	}
	return l
}

func (n *Node) ready(ctx context.Context, admin string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// Stop ends the node in peace: its clients are sent elsewhere.
func (n *Node) Stop() error {
	p := n.process()
	if p == nil {
		return nil
	}
	if err := p.Stop(); err != nil {
		return fmt.Errorf("fleet: %s: %w", n.name, err)
	}
	return nil
}

// Kill ends the node at once.
func (n *Node) Kill() {
	if p := n.process(); p != nil {
		p.Kill()
	}
}

func (n *Node) signal(s os.Signal) error {
	p := n.process()
	if p == nil {
		return fmt.Errorf("fleet: %s was never started", n.name)
	}
	return p.Signal(s)
}

// Path returns where the fleet's dev.json lies, for commands that take --data.
func (f *Fleet) Path() string { return filepath.Clean(f.cfg.Dir) }
