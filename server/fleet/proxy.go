package fleet

import "carillon/server/proxytest"

func (n *Node) startProxy() error {
	p, err := proxytest.New("127.0.0.1:1", proxytest.Config{}) // nobody listens there, until the node says where it does
	if err != nil {
		return err
	}
	n.proxy = p
	p.Each(func(l *proxytest.Link) {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.lose != 0 {
			l.Drop(n.lose)
		}
	})
	return nil
}

// Lose loses what other nodes say to the node (Up), what it answers (Down), or both, and tells nobody. 0 lifts that, and resets the connections
// that lost something. The fleet has to be proxied.
func (n *Node) Lose(d proxytest.Direction) {
	n.mu.Lock()
	defer n.mu.Unlock()
	was := n.lose
	n.lose = d
	for _, l := range n.proxy.Links() {
		switch {
		case l.Counts().Over:
		case d != 0:
			l.Drop(d)
		case was != 0:
			l.Reset(proxytest.Client | proxytest.Server)
		}
	}
}
