package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
)

// replicas is how many replicas a primary has, other than in a cluster.
const replicas = 2

// startReplicated starts a primary and so many replicas.
func (r *Redis) startReplicated(ctx context.Context, replicas int) error {
	for i := range 1 + replicas {
		n, err := r.newServer(i)
		if err != nil {
			return err
		}
		lines := r.serverLines(n)
		if i > 0 {
			// Sentinels hold a replica against the address by which they know its primary.
			host, port, err := net.SplitHostPort(r.servers[0].Public())
			if err != nil {
				return err
			}
			lines = append(lines, "replicaof "+host+" "+port)
		}
		if err := n.configure(lines); err != nil {
			return err
		}
		if err := n.spawn(); err != nil {
			return err
		}
		if i == 0 { // a replica that comes first tries again only after a second
			if err := n.awaitUp(ctx); err != nil {
				return err
			}
		}
	}
	return r.awaitUp(ctx, r.servers)
}

func (r *Redis) awaitUp(ctx context.Context, nodes []*Node) error {
	for _, n := range nodes {
		if err := n.awaitUp(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Primary returns the server that takes writes: with sentinels the one that most of them name. A cluster has several; see Masters.
func (r *Redis) Primary(ctx context.Context) (*Node, error) {
	switch r.form {
	case FormCluster:
		return nil, errors.New("redistest: a cluster has no primary; it has masters")
	case FormSentinel:
		return r.named(ctx)
	}
	var found *Node
	for _, n := range r.servers {
		if !n.answers() {
			continue
		}
		info, err := n.Info(ctx, "replication")
		switch {
		case err != nil:
			continue // it is frozen, or about to be gone
		case info["role"] != "master":
		case found != nil:
			return nil, fmt.Errorf("redistest: %s and %s both say that they are the primary", found.name, n.name)
		default:
			found = n
		}
	}
	if found == nil {
		return nil, errors.New("redistest: no server says that it is the primary")
	}
	return found, nil
}

// Primaries returns the servers that take writes: the masters of a cluster, otherwise the primary.
func (r *Redis) Primaries(ctx context.Context) ([]*Node, error) {
	if r.form == FormCluster {
		return r.Masters(ctx)
	}
	n, err := r.Primary(ctx)
	if err != nil {
		return nil, err
	}
	return []*Node{n}, nil
}

// inStep returns what is missing until every other server is a replica of primary that has all its data.
func (r *Redis) inStep(ctx context.Context, primary *Node) error {
	info, err := primary.Info(ctx, "replication")
	if err != nil {
		return err
	}
	if info["role"] != "master" {
		return fmt.Errorf("%s is a %s", primary.name, info["role"])
	}
	if got, want := info["connected_slaves"], strconv.Itoa(len(r.servers)-1); got != want {
		return fmt.Errorf("%s has %s replicas of %s", primary.name, got, want)
	}
	for _, n := range r.servers {
		if n != primary {
			if err := n.follows(ctx, primary, info["master_replid"]); err != nil {
				return err
			}
		}
	}
	return nil
}

// follows returns what is missing until the node is a replica of primary that has all its data.
func (n *Node) follows(ctx context.Context, primary *Node, lineage string) error {
	info, err := n.Info(ctx, "replication")
	if err != nil {
		return err
	}
	at := net.JoinHostPort(info["master_host"], info["master_port"])
	switch {
	case info["role"] != "slave" || at != primary.Addr() && at != primary.Public():
		return fmt.Errorf("%s is no replica of %s", n.name, primary.name)
	case info["master_link_status"] != "up":
		return fmt.Errorf("%s has its link to %s %s", n.name, primary.name, info["master_link_status"])
	case info["master_replid"] != lineage:
		return fmt.Errorf("%s is of another lineage than %s", n.name, primary.name)
	}
	return nil
}
