package nettest

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// tools are the programs that a network is made with, and the Debian packages that they come in.
var tools = []struct{ program, pkg string }{{"ip", "iproute2"}, {"ss", "iproute2"}, {"iptables", "iptables"}}

// Network is a switch with hosts on it. Its methods are called by one goroutine at a time; an error fails the test.
type Network struct {
	t     testing.TB
	home  namespace // of the process
	ether *Host     // has no address: it holds the switch
	hosts []*Host
	rules map[way][]string // what is the matter between two hosts: the rule at the receiver, as arguments of iptables
}

// way is a direction between two hosts.
type way struct{ from, to *Host }

// New makes a network without hosts, which lasts as long as the test. Who may not make one has the test skipped.
func New(t testing.TB) *Network {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("this test makes network namespaces, which takes root: it runs with `sudo make test`, or as root in a container with CAP_SYS_ADMIN and CAP_NET_ADMIN")
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool.program); err != nil {
			t.Fatalf("%s is missing; install the package %s (apt-get install %s)", tool.program, tool.pkg, tool.pkg)
		}
	}
	n := &Network{t: t, rules: make(map[way][]string)}
	var err error
	if n.home, err = currentNamespace(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.home.close)
	n.ether = n.newHost("switch")
	n.ether.must("ip", "link", "add", "br0", "type", "bridge", "forward_delay", "0", "mcast_snooping", "0")
	n.ether.must("ip", "link", "set", "br0", "up")
	return n
}

// newHost makes a host that is not wired to anything.
func (n *Network) newHost(name string) *Host {
	n.t.Helper()
	ns, err := newNamespace(n.home)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(ns.close)
	return &Host{Name: name, net: n, ns: ns}
}

// Host adds a host. The name is for errors.
func (n *Network) Host(name string) *Host {
	n.t.Helper()
	h := n.newHost(name)
	h.num = len(n.hosts) + 1
	if h.num > 250 {
		n.t.Fatal("nettest: a network has at most 250 hosts")
	}
	h.mac = fmt.Sprintf("02:00:00:00:00:%02x", h.num)
	port := fmt.Sprintf("port%d", h.num)
	n.ether.must("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "address", h.mac, "netns", h.ns.path())
	n.ether.must("ip", "link", "set", port, "master", "br0", "up")
	h.must("ip", "link", "set", "lo", "up")
	h.must("ip", "address", "add", h.Addr()+"/16", "dev", "eth0")
	h.must("ip", "link", "set", "eth0", "up")
	n.hosts = append(n.hosts, h)
	return h
}
