package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// Failover makes a replica of old take its place in peace, as an operator does before maintenance, and returns the new primary
// once it is known as such. old follows it.
func (r *Redis) Failover(ctx context.Context, old *Node) (*Node, error) {
	switch r.form {
	case FormStandalone:
		return nil, errors.New("redistest: a server alone has no successor")
	case FormReplicated:
		return r.handOver(ctx, old)
	case FormSentinel:
		return r.Succession(ctx, old, func() error {
			return await(ctx, "sentinels begin a failover", func(ctx context.Context) error {
				return r.sentinels[0].client.Do(ctx, "SENTINEL", "FAILOVER", masterName).Err()
			})
		})
	}
	replica, err := r.replicaOf(ctx, old)
	if err != nil {
		return nil, err
	}
	return r.Succession(ctx, old, func() error { return replica.client.ClusterFailover(ctx).Err() })
}

// Crash kills old, and returns the server that took its place once it is known as such. Where nobody else does so, the kit promotes the
// replica that has most.
func (r *Redis) Crash(ctx context.Context, old *Node) (*Node, error) {
	return r.Succession(ctx, old, func() error { old.Kill(); return nil })
}

// Succession runs a fault that keeps old from being a primary, for example its Freeze, and returns the server that took its place
// once it is known as such. With FormReplicated the kit promotes the replica that has most.
func (r *Redis) Succession(ctx context.Context, old *Node, fault func() error) (*Node, error) {
	slot := -1
	var err error
	switch r.form {
	case FormStandalone:
		return nil, errors.New("redistest: a server alone has no successor")
	case FormCluster:
		slot, err = old.someSlot(ctx)
	default:
		err = r.mustBePrimary(ctx, old)
	}
	if err != nil {
		return nil, err
	}
	if err := fault(); err != nil {
		return nil, fmt.Errorf("redistest: break %s: %w", old.name, err)
	}
	if r.form == FormReplicated {
		best, err := r.furthest(ctx, old)
		if err != nil {
			return nil, err
		}
		return best, r.Promote(ctx, best)
	}
	var successor *Node
	err = await(ctx, "somebody took the place of "+old.name, func(ctx context.Context) error {
		if r.form == FormCluster {
			successor, err = r.MasterOf(ctx, slot)
		} else {
			successor, err = r.Primary(ctx)
		}
		if err == nil && successor == old {
			err = errors.New("nobody did")
		}
		return err
	})
	return successor, err
}

func (r *Redis) mustBePrimary(ctx context.Context, n *Node) error {
	p, err := r.Primary(ctx)
	if err == nil && p != n {
		err = fmt.Errorf("redistest: %s is not the primary; %s is", n.name, p.name)
	}
	return err
}

// furthest returns the server that received most of what the primary wrote, of all that answer but old.
func (r *Redis) furthest(ctx context.Context, old *Node) (*Node, error) {
	var best *Node
	most := int64(-1)
	for _, n := range r.servers {
		if n == old || !n.answers() {
			continue
		}
		info, err := n.Info(ctx, "replication")
		if err != nil {
			return nil, err
		}
		offset, err := strconv.ParseInt(info["slave_repl_offset"], 10, 64)
		if err == nil && offset > most {
			best, most = n, offset
		}
	}
	if best == nil {
		return nil, errors.New("redistest: there is no replica to promote")
	}
	return best, nil
}

// Promote makes n the primary of a deployment that has nobody else to do that, and all others that answer its replicas.
func (r *Redis) Promote(ctx context.Context, n *Node) error {
	if r.form != FormReplicated {
		return fmt.Errorf("redistest: with %s others say who the primary is", r.form)
	}
	if err := n.client.ReplicaOf(ctx, "NO", "ONE").Err(); err != nil {
		return fmt.Errorf("redistest: promote %s: %w", n.name, err)
	}
	for _, other := range r.servers {
		if other != n && other.answers() {
			if err := other.follow(ctx, n); err != nil {
				return err
			}
		}
	}
	return nil
}

func (n *Node) follow(ctx context.Context, primary *Node) error {
	host, port, err := net.SplitHostPort(primary.Public())
	if err == nil {
		err = n.client.ReplicaOf(ctx, host, port).Err()
	}
	if err != nil {
		return fmt.Errorf("redistest: make %s follow %s: %w", n.name, primary.name, err)
	}
	return nil
}

// handOver has a primary wait for a replica and change places with it.
func (r *Redis) handOver(ctx context.Context, old *Node) (*Node, error) {
	if err := r.mustBePrimary(ctx, old); err != nil {
		return nil, err
	}
	n, err := r.furthest(ctx, old)
	if err != nil {
		return nil, err
	}
	// The primary knows the replica by the address that it announced.
	host, port, err := net.SplitHostPort(n.Public())
	if err != nil {
		return nil, err
	}
	if err := old.client.Do(ctx, "FAILOVER", "TO", host, port, "TIMEOUT", patience.Milliseconds()).Err(); err != nil {
		return nil, fmt.Errorf("redistest: hand over from %s: %w", old.name, err)
	}
	err = await(ctx, n.name+" is the primary", func(ctx context.Context) error {
		p, err := r.Primary(ctx)
		if err == nil && p != n {
			err = fmt.Errorf("%s still is", p.name)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, other := range r.servers {
		if other != n && other != old && other.answers() {
			if err := other.follow(ctx, n); err != nil {
				return nil, err
			}
		}
	}
	return n, nil
}

// someSlot returns a slot that the node serves.
func (n *Node) someSlot(ctx context.Context) (int, error) {
	peers, err := n.peers(ctx)
	if err != nil {
		return 0, err
	}
	for _, p := range peers {
		if !p.has("myself") || len(p.slots) == 0 {
			continue
		}
		first, _, _ := strings.Cut(p.slots[0], "-")
		return strconv.Atoi(first)
	}
	return 0, fmt.Errorf("redistest: %s serves no slot", n.name)
}

// replicaOf returns a replica of a master that is in step.
func (r *Redis) replicaOf(ctx context.Context, master *Node) (*Node, error) {
	info, err := master.Info(ctx, "replication")
	if err != nil {
		return nil, err
	}
	for _, n := range r.servers {
		if n != master && n.answers() && n.follows(ctx, master, info["master_replid"]) == nil {
			return n, nil
		}
	}
	return nil, fmt.Errorf("redistest: %s has no replica that is in step", master.name)
}
