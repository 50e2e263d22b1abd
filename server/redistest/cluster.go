package redistest

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

const (
	masters = 3
	slots   = 16384 // of a cluster, as Redis has it
)

// startCluster starts masters with a third of the slots each, and a replica of each.
func (r *Redis) startCluster(ctx context.Context) error {
	for i := range 2 * masters {
		n, err := r.newServer(i)
		if err != nil {
			return err
		}
		if err := n.configure(r.serverLines(n)); err != nil {
			return err
		}
		if err := n.spawn(); err != nil {
			return err
		}
	}
	if err := r.awaitUp(ctx, r.servers); err != nil {
		return err
	}
	for i, n := range r.servers {
		// With epochs of their own, masters need not find out who gives way.
		if err := n.client.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err(); err != nil {
			return fmt.Errorf("redistest: %s: set its epoch: %w", n.name, err)
		}
		if i < masters {
			first, last := i*slots/masters, (i+1)*slots/masters-1
			if err := n.client.ClusterAddSlotsRange(ctx, first, last).Err(); err != nil {
				return fmt.Errorf("redistest: %s: take its slots: %w", n.name, err)
			}
		}
		// Everybody meets everybody: by hearsay it would take longer.
		for _, other := range r.servers[:i] {
			err := n.client.Do(ctx, "CLUSTER", "MEET", other.host, other.port.String(), other.bus.String()).Err()
			if err != nil {
				return fmt.Errorf("redistest: %s: meet %s: %w", n.name, other.name, err)
			}
		}
	}
	for i, n := range r.servers[masters:] {
		id, err := r.servers[i].client.ClusterMyID(ctx).Result()
		if err != nil {
			return fmt.Errorf("redistest: ask %s who it is: %w", r.servers[i].name, err)
		}
		err = await(ctx, n.name+" knows its master", func(ctx context.Context) error {
			return n.client.ClusterReplicate(ctx, id).Err()
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// peer is one line of what a node says of its cluster.
type peer struct {
	id, addr, master string
	flags            []string
	slots            []string // ranges, and slots under way
	connected        bool
}

func (p peer) has(flag string) bool {
	for _, f := range p.flags {
		if f == flag {
			return true
		}
	}
	return false
}

// peers returns whom the node knows, itself included.
func (n *Node) peers(ctx context.Context) ([]peer, error) {
	text, err := n.client.ClusterNodes(ctx).Result()
	if err != nil {
		return nil, fmt.Errorf("redistest: ask %s for its peers: %w", n.name, err)
	}
	var peers []peer
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 8 {
			return nil, fmt.Errorf("redistest: %s says of a peer: %q", n.name, line)
		}
		addr, _, _ := strings.Cut(f[1], "@")
		peers = append(peers, peer{
			id: f[0], addr: addr, flags: strings.Split(f[2], ","), master: f[3], connected: f[7] == "connected", slots: f[8:],
		})
	}
	return peers, nil
}

// Masters returns the servers of a cluster that serve slots, as most of the servers that run see it.
func (r *Redis) Masters(ctx context.Context) ([]*Node, error) {
	if r.form != FormCluster {
		return nil, errors.New("redistest: only a cluster has masters")
	}
	votes := map[*Node]int{}
	running := 0
	for _, n := range r.servers {
		if !n.answers() {
			continue
		}
		peers, err := n.peers(ctx)
		if err != nil {
			continue // it is frozen, or about to be gone
		}
		running++
		for _, p := range peers {
			if !p.has("master") || p.has("fail") || len(p.slots) == 0 {
				continue
			}
			if m, err := r.node(p.addr); err == nil {
				votes[m]++
			}
		}
	}
	var found []*Node
	for _, n := range r.servers {
		if votes[n] > running/2 {
			found = append(found, n)
		}
	}
	return found, nil
}

// wholeCluster returns what is missing until every node sees all others, and each master has a replica that is in step.
func (r *Redis) wholeCluster(ctx context.Context) error {
	for _, n := range r.servers {
		text, err := n.client.ClusterInfo(ctx).Result()
		if err != nil {
			return fmt.Errorf("ask %s for its cluster: %w", n.name, err)
		}
		info := fields(text)
		switch {
		case info["cluster_state"] != "ok":
			return fmt.Errorf("%s says that the cluster is %s", n.name, info["cluster_state"])
		case info["cluster_slots_ok"] != fmt.Sprint(slots):
			return fmt.Errorf("%s sees %s slots served", n.name, info["cluster_slots_ok"])
		}
		if err := r.wholePeers(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// wholePeers returns what is missing in the eyes of one node.
func (r *Redis) wholePeers(ctx context.Context, n *Node) error {
	peers, err := n.peers(ctx)
	if err != nil {
		return err
	}
	if len(peers) != len(r.servers) {
		return fmt.Errorf("%s knows %d nodes of %d", n.name, len(peers), len(r.servers))
	}
	byID := map[string]*Node{}
	followed := map[string]int{}
	for _, p := range peers {
		if !p.connected && !p.has("myself") || p.has("fail") || p.has("fail?") || p.has("handshake") || p.has("noaddr") {
			return fmt.Errorf("%s has no good word for %s: %v", n.name, p.addr, p.flags)
		}
		if byID[p.id], err = r.node(p.addr); err != nil {
			return err
		}
		followed[p.master]++
	}
	for _, p := range peers {
		switch {
		case p.has("master") && len(p.slots) > 0 && followed[p.id] == 0:
			return fmt.Errorf("%s knows no replica of %s", n.name, p.addr)
		case p.has("master") && len(p.slots) == 0:
			return fmt.Errorf("%s says that %s serves no slot", n.name, p.addr)
		case p.has("slave") && p.has("myself"):
			primary := byID[p.master]
			if primary == nil {
				return fmt.Errorf("%s follows nobody", n.name)
			}
			info, err := primary.Info(ctx, "replication")
			if err != nil {
				return err
			}
			if err := n.follows(ctx, primary, info["master_replid"]); err != nil {
				return err
			}
		}
	}
	return nil
}
