package redistest

import (
	"errors"
	"net"
	"time"

	"carillon/server/proxytest"
)

// peerSource is where connections of nodes come from if there are proxies: by that a proxy knows them from those of clients, which
// come from 127.0.0.1.
const peerSource = "127.0.0.2"

// faults is what is wrong with the network between clients and a node, for connections that there are and those that come, and between nodes.
type faults struct {
	delayMin, delayMax time.Duration
	lose               proxytest.Direction
	cut                func(from net.Addr) bool // whose connections are cut off; nil: nobody's
	severed            []*proxytest.Link        // those that were, since
	starved            bool                     // of its peers: they hear nothing from the node
}

func (n *Node) startProxy() error {
	if n.host != "127.0.0.1" {
		return errors.New("redistest: proxies listen on 127.0.0.1 alone")
	}
	p, err := proxytest.New(n.Addr(), proxytest.Config{})
	if err != nil {
		return err
	}
	n.proxy = p
	p.Each(func(l *proxytest.Link) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.faults.apply(l)
	})
	return nil
}

// apply breaks a link as the faults say. It is called under Node.mu, so that what is set later is applied later.
func (f *faults) apply(l *proxytest.Link) {
	if !ofClient(l) {
		if f.starved {
			l.Drop(proxytest.Down)
		}
		return
	}
	if f.cut != nil && f.cut(l.From()) {
		f.severed = append(f.severed, l)
		l.Drop(proxytest.Up | proxytest.Down)
		return
	}
	l.Delay(proxytest.Down, f.delayMin, f.delayMax)
	if f.lose != 0 {
		l.Drop(f.lose)
	}
}

// ofClient reports whether a link is not one of the nodes among each other.
func ofClient(l *proxytest.Link) bool {
	host, _, err := net.SplitHostPort(l.From().String())
	return err == nil && host != peerSource
}

// announced returns the settings by which a server tells where its proxy is.
func (n *Node) announced(form Form) []string {
	if n.proxy == nil {
		return nil
	}
	host, port, err := net.SplitHostPort(n.proxy.Addr())
	if err != nil {
		panic(err) // a listener's address always has both
	}
	lines := []string{"bind-source-addr " + peerSource}
	if form == FormCluster {
		return append(lines, "cluster-announce-ip "+host, "cluster-announce-port "+port, "cluster-announce-tls-port "+port)
	}
	return append(lines, "replica-announce-ip "+host, "replica-announce-port "+port)
}

// Proxy returns the proxy before the server, for what the methods of Node do not do; nil if the deployment is not proxied.
func (n *Node) Proxy() *proxytest.Proxy { return n.proxy }

// Clients returns the links of clients that are not over.
func (n *Node) Clients() []*proxytest.Link { return n.links(true) }

// links returns the links of clients, or those of peers, that are not over.
func (n *Node) links(ofClients bool) []*proxytest.Link {
	var links []*proxytest.Link
	for _, l := range n.mustProxy().Links() {
		if ofClient(l) == ofClients && !l.Counts().Over {
			links = append(links, l)
		}
	}
	return links
}

func (n *Node) mustProxy() *proxytest.Proxy {
	if n.proxy == nil {
		panic("redistest: the deployment was started without Proxied")
	}
	return n.proxy
}

// Delay makes every reply to a client arrive between min and max late. Zeroes lift that.
func (n *Node) Delay(min, max time.Duration) {
	n.fault(func(f *faults) bool {
		f.delayMin, f.delayMax = min, max
		return false
	})
}

// LoseReplies has the server execute what clients send, and loses the replies. Lifting it resets the connections that lost
// some.
func (n *Node) LoseReplies(yes bool) { n.lose(proxytest.Down, yes) }

// Partition loses what is sent between clients and the server, either way, and tells nobody. Lifting it resets the connections that
// were cut off.
func (n *Node) Partition(yes bool) { n.lose(proxytest.Up|proxytest.Down, yes) }

// CutOff loses what is sent either way on the connections of clients whose address is one of those, and tells nobody; nil lifts it, and
// resets those connections. whose is called for each connection that there is, and that comes; it calls nothing of the deployment.
func (n *Node) CutOff(whose func(from net.Addr) bool) {
	n.mustProxy()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.faults.cut = whose
	for _, l := range n.faults.severed { // also those whose client is gone: nobody was told
		l.Reset(proxytest.Client | proxytest.Server)
	}
	n.faults.severed = nil
	for _, l := range n.links(true) {
		n.faults.apply(l)
	}
}

// Starve loses what the server sends to its replicas, and tells nobody: they stay connected and fall behind. Sentinels lose it out of sight as
// well. Lifting it resets those connections, and replicas catch up.
func (n *Node) Starve(yes bool) {
	n.mustProxy()
	n.mu.Lock()
	defer n.mu.Unlock()
	was := n.faults.starved
	n.faults.starved = yes
	for _, l := range n.links(false) {
		if was && !yes {
			l.Reset(proxytest.Client | proxytest.Server)
			continue
		}
		n.faults.apply(l)
	}
}

func (n *Node) lose(d proxytest.Direction, yes bool) {
	if !yes {
		d = 0
	}
	n.fault(func(f *faults) (reset bool) {
		reset = f.lose != 0 && d == 0
		f.lose = d
		return reset
	})
}

// Reset resets all connections of clients.
func (n *Node) Reset() { n.fault(func(*faults) bool { return true }) }

// fault changes what is wrong, for the links that there are, which change may want to be reset, and those that come.
func (n *Node) fault(change func(*faults) (reset bool)) {
	n.mustProxy()
	n.mu.Lock()
	defer n.mu.Unlock()
	reset := change(&n.faults)
	for _, l := range n.Clients() {
		if reset {
			l.Reset(proxytest.Client | proxytest.Server)
		} else {
			n.faults.apply(l)
		}
	}
}
