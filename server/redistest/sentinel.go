package redistest

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"
)

const (
	sentinels = 3
	quorum    = 2
)

// startSentinels starts sentinels that watch the servers. They are told of each other and of the replicas, as they would write it
// down themselves; finding out takes them seconds.
func (r *Redis) startSentinels(ctx context.Context) error {
	for i := range sentinels {
		n, err := newNode(r.dir, fmt.Sprintf("sentinel-%d", i), r.config, false)
		if err != nil {
			return err
		}
		n.sentinel, n.hurried = true, !r.config.patient
		n.connect("", "", r.tls.client())
		r.sentinels = append(r.sentinels, n)
	}
	for _, n := range r.sentinels {
		if err := n.configure(r.sentinelLines(n)); err != nil {
			return err
		}
		if err := n.spawn(); err != nil {
			return err
		}
	}
	return r.awaitUp(ctx, r.sentinels)
}

// hurry has a sentinel that was started look at servers every second, and talk of them twice a second. By itself it looks every ten,
// and makes a primary that comes back a replica of its successor only after eight more.
func (n *Node) hurry(ctx context.Context) error {
	if !n.hurried {
		return nil
	}
	err := n.client.Do(ctx, "SENTINEL", "DEBUG", "INFO-PERIOD", 1000, "PUBLISH-PERIOD", 500).Err()
	if err != nil {
		return fmt.Errorf("redistest: hurry %s: %w", n.name, err)
	}
	return nil
}

func (r *Redis) sentinelLines(n *Node) []string {
	host, down := r.config.host, r.config.downAfter.Milliseconds()
	at := func(n *Node) string { return strings.ReplaceAll(n.Public(), ":", " ") }
	lines := append(r.tls.lines(n.port),
		"protected-mode no",
		"sentinel myid "+sentinelID(n),
		fmt.Sprintf("sentinel monitor %s %s %d", masterName, at(r.servers[0]), quorum),
		fmt.Sprintf("sentinel down-after-milliseconds %s %d", masterName, down),
		// An election that nobody won is held again after twice that.
		fmt.Sprintf("sentinel failover-timeout %s %d", masterName, 2*down),
		fmt.Sprintf("sentinel parallel-syncs %s %d", masterName, replicas),
	)
	if r.config.proxied {
		// A sentinel says that it is where its connections come from, unless it is told.
		lines = append(lines, "bind-source-addr "+peerSource, "sentinel announce-ip "+host)
	}
	if name, password := r.config.kit(); password != "" {
		if name != "" {
			lines = append(lines, fmt.Sprintf("sentinel auth-user %s %s", masterName, name))
		}
		lines = append(lines, fmt.Sprintf("sentinel auth-pass %s %s", masterName, password))
	}
	for _, s := range r.servers[1:] {
		lines = append(lines, fmt.Sprintf("sentinel known-replica %s %s", masterName, at(s)))
	}
	for _, other := range r.sentinels {
		if other != n {
			lines = append(lines, fmt.Sprintf("sentinel known-sentinel %s %s %s %s", masterName, host, other.port, sentinelID(other)))
		}
	}
	return lines
}

// sentinelID returns the name under which a sentinel votes, which no other has on this machine at that time.
func sentinelID(n *Node) string {
	sum := sha1.Sum([]byte(n.Addr() + n.dir))
	return hex.EncodeToString(sum[:])
}

// named returns the server that more than half of all sentinels name as the primary, if it says so itself.
func (r *Redis) named(ctx context.Context) (*Node, error) {
	votes := map[string]int{}
	for _, s := range r.sentinels {
		if !s.answers() {
			continue
		}
		at, err := s.client.Do(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", masterName).StringSlice()
		if err != nil || len(at) != 2 {
			continue // it is frozen, or about to be gone
		}
		address := net.JoinHostPort(at[0], at[1])
		if votes[address]++; votes[address] <= sentinels/2 {
			continue
		}
		n, err := r.node(address)
		if err != nil {
			return nil, err
		}
		info, err := n.Info(ctx, "replication")
		if err != nil {
			return nil, err
		}
		if info["role"] != "master" {
			return nil, fmt.Errorf("redistest: the sentinels name %s, which is a %s", n.name, info["role"])
		}
		return n, nil
	}
	return nil, errors.New("redistest: no primary is named by most of the sentinels")
}

// wholeSentinels returns what is missing until all sentinels see primary, all replicas and each other.
func (r *Redis) wholeSentinels(ctx context.Context, primary *Node) error {
	for _, s := range r.sentinels {
		what := func(kind string) ([]any, error) {
			list, err := s.client.Do(ctx, "SENTINEL", kind, masterName).Slice()
			if err != nil {
				return nil, fmt.Errorf("ask %s for its %s: %w", s.name, kind, err)
			}
			return list, nil
		}
		at, err := s.client.Do(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", masterName).StringSlice()
		if err != nil || len(at) != 2 || net.JoinHostPort(at[0], at[1]) != primary.Public() {
			return fmt.Errorf("%s does not see %s as the primary (%v)", s.name, primary.name, err)
		}
		for kind, want := range map[string]int{"REPLICAS": len(r.servers) - 1, "SENTINELS": len(r.sentinels) - 1} {
			list, err := what(kind)
			if err != nil {
				return err
			}
			if len(list) != want {
				return fmt.Errorf("%s sees %d %s of %d", s.name, len(list), kind, want)
			}
			for _, one := range list {
				peer := pairs(one)
				for _, bad := range []string{"down", "disconnected", "failover", "reconf"} {
					if strings.Contains(peer["flags"], bad) {
						return fmt.Errorf("%s says of %s: %s", s.name, peer["name"], peer["flags"])
					}
				}
				if kind == "REPLICAS" && net.JoinHostPort(peer["master-host"], peer["master-port"]) != primary.Public() {
					return fmt.Errorf("%s does not know yet whom %s follows", s.name, peer["name"])
				}
			}
		}
		if err := s.client.Do(ctx, "SENTINEL", "CKQUORUM", masterName).Err(); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// pairs reads what is a map to a client that speaks RESP3, and a list of names and values to one that does not.
func pairs(v any) map[string]string {
	m := map[string]string{}
	switch v := v.(type) {
	case map[any]any:
		for name, value := range v {
			m[fmt.Sprint(name)] = fmt.Sprint(value)
		}
	case []any:
		for i := 0; i+1 < len(v); i += 2 {
			m[fmt.Sprint(v[i])] = fmt.Sprint(v[i+1])
		}
	}
	return m
}
