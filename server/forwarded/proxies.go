package forwarded

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
)

// Source is how proxies say whom they speak for.
type Source string

// The sources. An operator names the one that the proxies write: a proxy that writes one header passes the others on as the
// client made them.
const (
	XForwardedFor Source = "x-forwarded-for" // the header of that name
	Forwarded     Source = "forwarded"       // the header of RFC 7239
	ProxyV2       Source = "proxy-v2"        // version 2 of the PROXY protocol, in front of everything else (also of TLS)
)

// maxHops is how many proxies in a row are followed. It bounds the work that a request can ask for.
const maxHops = 32

// Config says who is trusted with what.
type Config struct {
	Trusted []netip.Prefix // addresses of proxies; none: nobody is trusted
	Source  Source         // XForwardedFor
}

// Proxies are the proxies in front of this node. They are safe for concurrent use.
type Proxies struct {
	// Static after construction.
	trusted []netip.Prefix
	source  Source
}

// New returns the proxies of a configuration.
func New(cfg Config) (*Proxies, error) {
	switch cfg.Source {
	case "":
		cfg.Source = XForwardedFor
	case XForwardedFor, Forwarded, ProxyV2:
	default:
		return nil, fmt.Errorf("forwarded: there is no source %q", cfg.Source)
	}
	if cfg.Source == ProxyV2 && len(cfg.Trusted) == 0 {
		return nil, errors.New("forwarded: the PROXY protocol is spoken by trusted proxies alone, and none is named")
	}
	p := &Proxies{source: cfg.Source}
	for _, t := range cfg.Trusted {
		if !t.IsValid() {
			return nil, errors.New("forwarded: a trusted network is no network")
		}
		p.trusted = append(p.trusted, unmapped(t))
	}
	return p, nil
}

// unmapped returns the network of IPv4 that an IPv6 network of mapped addresses (::ffff:0:0/96 and below) stands for.
func unmapped(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96).Masked()
	}
	return p.Masked()
}

// Trusts reports whether an address is that of a trusted proxy.
func (p *Proxies) Trusts(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(p.trusted, func(t netip.Prefix) bool { return t.Contains(a) })
}

// Remote returns the address of the client that made a request, without a port where a proxy named none. It is invalid where the
// connection has no address of IP.
func (p *Proxies) Remote(r *http.Request) netip.AddrPort {
	peer := addrPort(r.RemoteAddr)
	if p.source == ProxyV2 || !p.Trusts(peer.Addr()) {
		return peer // under the PROXY protocol the connection has the client's address already
	}
	if p.source == Forwarded {
		return p.follow(peer, r.Header["Forwarded"], nodeOf)
	}
	return p.follow(peer, r.Header["X-Forwarded-For"], addressOf)
}

// follow goes through a chain of addresses from the right, beginning at the peer, until one is not a trusted proxy's.
func (p *Proxies) follow(peer netip.AddrPort, lines []string, read func(element string) (netip.AddrPort, bool)) netip.AddrPort {
	chain := elements{lines: lines}
	for range maxHops {
		element, ok := chain.next()
		if !ok {
			return peer
		}
		if element == "" {
			continue // an empty element of a list means nothing (RFC 9110, 5.6.1.2)
		}
		a, ok := read(element)
		if !ok {
			return peer
		}
		if peer = a; !p.Trusts(a.Addr()) {
			return peer
		}
	}
	return peer
}

// addrPort reads the address of a socket; invalid if it is none of IP.
func addrPort(s string) netip.AddrPort {
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// addrPortOf is addrPort for what a connection returns.
func addrPortOf(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
