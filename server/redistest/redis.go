package redistest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// masterName is what sentinels call the primary that they watch.
const masterName = "carillon"

// Redis is a running deployment. All methods are safe for concurrent use, as far as what they do to a node is.
type Redis struct {
	// Static after construction.
	form      Form
	config    config
	dir       string
	ours      bool // the directory goes with the deployment
	servers   []*Node
	sentinels []*Node
	tls       *certificates // nil without TLS
}

// Access is how clients reach a deployment, in plain values.
type Access struct {
	Mode               string   // standalone, sentinel, cluster; standalone with replicas that nobody promotes is standalone
	Addrs              []string // of the server; of the sentinels; of all servers of the cluster
	MasterName         string   // of the primary that the sentinels watch
	Username, Password string
	TLS                *tls.Config // nil without TLS
}

// Standalone starts one server that runs until the test ends.
func Standalone(t testing.TB, opts ...Option) *Redis {
	t.Helper()
	return start(t, FormStandalone, opts)
}

// Replicated starts a primary and two replicas that run until the test ends.
func Replicated(t testing.TB, opts ...Option) *Redis {
	t.Helper()
	return start(t, FormReplicated, opts)
}

// Sentinel starts a primary, two replicas and three sentinels that run until the test ends.
func Sentinel(t testing.TB, opts ...Option) *Redis { t.Helper(); return start(t, FormSentinel, opts) }

// Cluster starts three masters and three replicas that run until the test ends.
func Cluster(t testing.TB, opts ...Option) *Redis { t.Helper(); return start(t, FormCluster, opts) }

func start(t testing.TB, form Form, opts []Option) *Redis {
	t.Helper()
	r, err := Start(t.Context(), form, append([]Option{Dir(t.TempDir())}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// Start returns a running deployment, to be closed by the caller.
func Start(ctx context.Context, form Form, opts ...Option) (*Redis, error) {
	const attempts = 5
	for i := 1; ; i++ {
		r, err := try(ctx, form, newConfig(opts))
		if err == nil || i == attempts || !errors.Is(err, errAddressInUse) {
			return r, err
		}
	}
}

// try starts a deployment on ports that may turn out to be taken.
func try(ctx context.Context, form Form, c config) (_ *Redis, err error) {
	r := &Redis{form: form, config: c, dir: c.dir}
	if r.dir == "" {
		if r.dir, err = os.MkdirTemp("", "carillon-redis-"); err != nil {
			return nil, fmt.Errorf("redistest: %w", err)
		}
		r.ours = true
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	if c.tls {
		if r.tls, err = newCertificates(r.dir, c.host); err != nil {
			return nil, err
		}
	}
	switch form {
	case FormStandalone:
		err = r.startReplicated(ctx, 0)
	case FormReplicated:
		err = r.startReplicated(ctx, replicas)
	case FormSentinel:
		if err = r.startReplicated(ctx, replicas); err == nil {
			err = r.startSentinels(ctx)
		}
	case FormCluster:
		err = r.startCluster(ctx)
	default:
		err = fmt.Errorf("redistest: there is no form %q", form)
	}
	if err != nil {
		return nil, err
	}
	return r, r.Await(ctx)
}

// Close kills every node and waits until it is gone.
func (r *Redis) Close() error {
	var errs []error
	for _, n := range r.Nodes() {
		errs = append(errs, n.close())
	}
	if r.ours {
		errs = append(errs, os.RemoveAll(r.dir))
	}
	return errors.Join(errs...)
}

// Form returns the form that was started.
func (r *Redis) Form() Form { return r.form }

// Servers returns the nodes that hold data. The first was the primary at the start; in a cluster the first three were masters,
// and the one three places later was the replica of each.
func (r *Redis) Servers() []*Node { return slices.Clone(r.servers) }

// Sentinels returns the nodes that watch the others.
func (r *Redis) Sentinels() []*Node { return slices.Clone(r.sentinels) }

// Nodes returns all nodes.
func (r *Redis) Nodes() []*Node { return slices.Concat(r.servers, r.sentinels) }

// Access returns how clients reach the deployment.
func (r *Redis) Access() Access {
	a := Access{Mode: string(r.form), Username: r.config.username, Password: r.config.password, TLS: r.tls.client()}
	nodes := r.servers
	switch r.form {
	case FormReplicated:
		a.Mode, nodes = string(FormStandalone), r.servers[:1]
	case FormSentinel:
		a.MasterName, nodes = masterName, r.sentinels
	}
	for _, n := range nodes {
		a.Addrs = append(a.Addrs, n.Public())
	}
	return a
}

// Options returns the same for go-redis, whose clients are told to repeat nothing and to keep to themselves who they are.
func (a Access) Options() *redis.UniversalOptions {
	return &redis.UniversalOptions{
		Addrs: a.Addrs, MasterName: a.MasterName, IsClusterMode: a.Mode == string(FormCluster),
		Username: a.Username, Password: a.Password, TLSConfig: a.TLS,
		MaxRetries: -1, DisableIdentity: true, ContextTimeoutEnabled: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}

// newServer makes a server that is not started, with the proxy before it if there is to be one.
func (r *Redis) newServer(i int) (*Node, error) {
	n, err := newNode(r.dir, fmt.Sprintf("server-%d", i), r.config, r.form == FormCluster)
	if err != nil {
		return nil, err
	}
	r.servers = append(r.servers, n)
	username, password := r.config.kit()
	n.connect(username, password, r.tls.client())
	if r.config.proxied {
		return n, n.startProxy()
	}
	return n, nil
}

// serverLines returns the configuration of a server that does not depend on the others.
func (r *Redis) serverLines(n *Node) []string {
	lines := append(r.config.server(r.form), r.tls.lines(n.port)...)
	if n.bus != nil {
		lines = append(lines, "cluster-port "+n.bus.String())
	}
	return append(lines, n.announced(r.form)...)
}

// node returns the node that listens there.
func (r *Redis) node(address string) (*Node, error) {
	for _, n := range r.Nodes() {
		if n.Addr() == address || n.Public() == address {
			return n, nil
		}
	}
	return nil, fmt.Errorf("redistest: no node of ours listens on %s", address)
}

// Await waits until the deployment is whole: every node is up, replicas are in step with their primary, sentinels know each other
// and agree on the primary, every node of a cluster says that all is well.
func (r *Redis) Await(ctx context.Context) error {
	return await(ctx, "the deployment is whole", r.whole)
}

// whole returns what the deployment lacks.
func (r *Redis) whole(ctx context.Context) error {
	for _, n := range r.Nodes() {
		if !n.answers() {
			return fmt.Errorf("%s does not run", n.name)
		}
	}
	if r.form == FormCluster {
		return r.wholeCluster(ctx)
	}
	primary, err := r.Primary(ctx)
	if err != nil {
		return err
	}
	if err := r.inStep(ctx, primary); err != nil {
		return err
	}
	return r.wholeSentinels(ctx, primary)
}
