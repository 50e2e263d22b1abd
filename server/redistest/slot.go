package redistest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// MasterOf returns the server that serves a slot of a cluster, if most of the servers that answer and itself say so.
func (r *Redis) MasterOf(ctx context.Context, slot int) (*Node, error) {
	if r.form != FormCluster {
		return nil, errors.New("redistest: only a cluster has slots")
	}
	votes, asked := map[*Node]int{}, 0
	itself := map[*Node]bool{}
	for _, n := range r.servers {
		if !n.answers() {
			continue
		}
		peers, err := n.peers(ctx)
		if err != nil {
			continue // it is about to be gone
		}
		asked++
		for _, p := range peers {
			if !p.has("master") || !p.serves(slot) {
				continue
			}
			if m, err := r.node(p.addr); err == nil {
				votes[m]++
				itself[m] = itself[m] || p.has("myself")
			}
		}
	}
	for n, v := range votes {
		if v > asked/2 && itself[n] {
			return n, nil
		}
	}
	return nil, fmt.Errorf("redistest: slot %d has no master that most know", slot)
}

func (p peer) serves(slot int) bool {
	return slices.ContainsFunc(p.slots, func(s string) bool {
		if strings.HasPrefix(s, "[") {
			return false // under way
		}
		first, last, isRange := strings.Cut(s, "-")
		if !isRange {
			last = first
		}
		f, err := strconv.Atoi(first)
		l, err2 := strconv.Atoi(last)
		return err == nil && err2 == nil && f <= slot && slot <= l
	})
}

// Move is a slot of a cluster on its way from one master to another. Until Finish, the old one answers for keys that it still has and
// says ASK for others; the new one answers who says ASKING.
type Move struct {
	r        *Redis
	slot     int
	from, to *Node
	fromID   string
	toID     string
}

// BeginMove opens the way of a slot to another master.
func (r *Redis) BeginMove(ctx context.Context, slot int, to *Node) (*Move, error) {
	from, err := r.MasterOf(ctx, slot)
	if err != nil {
		return nil, err
	}
	if from == to {
		return nil, fmt.Errorf("redistest: %s has slot %d already", to.name, slot)
	}
	m := &Move{r: r, slot: slot, from: from, to: to}
	if m.fromID, err = from.client.ClusterMyID(ctx).Result(); err != nil {
		return nil, fmt.Errorf("redistest: ask %s who it is: %w", from.name, err)
	}
	if m.toID, err = to.client.ClusterMyID(ctx).Result(); err != nil {
		return nil, fmt.Errorf("redistest: ask %s who it is: %w", to.name, err)
	}
	if err := m.set(ctx, to, "IMPORTING", m.fromID); err != nil {
		return nil, err
	}
	return m, m.set(ctx, from, "MIGRATING", m.toID)
}

func (m *Move) set(ctx context.Context, n *Node, state, id string) error {
	if err := n.client.Do(ctx, "CLUSTER", "SETSLOT", m.slot, state, id).Err(); err != nil {
		return fmt.Errorf("redistest: slot %d at %s: %s: %w", m.slot, n.name, state, err)
	}
	return nil
}

// Keys moves at most n keys, and returns how many it moved.
func (m *Move) Keys(ctx context.Context, n int) (int, error) {
	keys, err := m.from.client.ClusterGetKeysInSlot(ctx, m.slot, n).Result()
	if err != nil {
		return 0, fmt.Errorf("redistest: keys of slot %d: %w", m.slot, err)
	}
	if len(keys) == 0 {
		return 0, nil
	}
	args := []any{"MIGRATE", m.to.host, m.to.port.String(), "", 0, 5000}
	switch name, password := m.r.config.kit(); {
	case name != "":
		args = append(args, "AUTH2", name, password)
	case password != "":
		args = append(args, "AUTH", password)
	}
	args = append(args, "KEYS")
	for _, k := range keys {
		args = append(args, k)
	}
	if err := m.from.client.Do(ctx, args...).Err(); err != nil {
		return 0, fmt.Errorf("redistest: move keys of slot %d: %w", m.slot, err)
	}
	return len(keys), nil
}

// Finish moves what is left and gives the slot to its new master, and returns once most nodes know it.
func (m *Move) Finish(ctx context.Context) error {
	for {
		n, err := m.Keys(ctx, 100)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
	}
	// First the new master, so that the slot is never nobody's. The old one refuses if a key came to it meanwhile, which it does not
	// while it says ASK for every key that it has not.
	for _, n := range []*Node{m.to, m.from} {
		if err := m.set(ctx, n, "NODE", m.toID); err != nil {
			return err
		}
	}
	return await(ctx, fmt.Sprintf("slot %d is known to be at %s", m.slot, m.to.name), func(ctx context.Context) error {
		n, err := m.r.MasterOf(ctx, m.slot)
		if err == nil && n != m.to {
			err = fmt.Errorf("it is at %s", n.name)
		}
		return err
	})
}

// MoveSlot gives a slot to another master with all its keys, while clients use it.
func (r *Redis) MoveSlot(ctx context.Context, slot int, to *Node) error {
	m, err := r.BeginMove(ctx, slot, to)
	if err != nil {
		return err
	}
	return m.Finish(ctx)
}
