package nettest

import (
	"slices"
	"strconv"
	"strings"
)

// Cut has every packet between two hosts vanish, in both directions. Nobody is told.
func (n *Network) Cut(a, b *Host) {
	n.t.Helper()
	n.CutOneWay(a, b)
	n.CutOneWay(b, a)
}

// CutOneWay has every packet from one host to another vanish; those of the other direction arrive.
func (n *Network) CutOneWay(from, to *Host) {
	n.t.Helper()
	n.set(way{from, to}, "DROP")
}

// Reject has every TCP packet from one host to another answered with a reset, as by a firewall that forgot the connection.
func (n *Network) Reject(from, to *Host) {
	n.t.Helper()
	n.set(way{from, to}, "REJECT", "--reject-with", "tcp-reset")
}

// Partition cuts every host of one side off from every host of the other.
func (n *Network) Partition(one, other []*Host) {
	n.t.Helper()
	for _, a := range one {
		for _, b := range other {
			n.Cut(a, b)
		}
	}
}

// Heal undoes what is the matter between two hosts, in both directions.
func (n *Network) Heal(a, b *Host) {
	n.t.Helper()
	n.clear(way{a, b})
	n.clear(way{b, a})
}

// HealAll undoes every fault of the network.
func (n *Network) HealAll() {
	n.t.Helper()
	for w := range n.rules {
		n.clear(w)
	}
}

// Vanished returns how many packets from one host to another met a fault since it was set.
func (n *Network) Vanished(from, to *Host) (packets int) {
	n.t.Helper()
	mac := strings.ToLower(from.mac)
	for line := range strings.Lines(to.must("iptables", "--wait", "--list", "INPUT", "--verbose", "--exact", "--numeric")) {
		fields := strings.Fields(strings.ToLower(line))
		if !slices.Contains(fields, mac) && !slices.Contains(fields, "mac"+mac) {
			continue
		}
		count, err := strconv.Atoi(fields[0])
		if err != nil {
			n.t.Fatalf("nettest: %q counts no packets", line)
		}
		packets += count
	}
	return packets
}

// set puts a fault in place of the one that is there.
func (n *Network) set(w way, target ...string) {
	n.t.Helper()
	n.clear(w)
	rule := []string{"INPUT", "--match", "mac", "--mac-source", w.from.mac}
	if target[0] == "REJECT" {
		rule = append(rule, "--protocol", "tcp")
	}
	rule = append(append(rule, "--jump"), target...)
	w.to.must("iptables", append([]string{"--wait", "--append"}, rule...)...)
	n.rules[w] = rule
}

func (n *Network) clear(w way) {
	n.t.Helper()
	rule, ok := n.rules[w]
	if !ok {
		return
	}
	w.to.must("iptables", append([]string{"--wait", "--delete"}, rule...)...)
	delete(n.rules, w)
}
