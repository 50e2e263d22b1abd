package outbound

import (
	"errors"
	"net/netip"
)

// ErrForbidden is what a connection fails with that is not allowed.
var ErrForbidden = errors.New("outbound: the address is not a public one")

// special are the networks that are no place on the internet, beside those that netip tells: registered by IANA for special
// purposes, or carrying an address of another network inside.
var special = prefixes(
	"0.0.0.0/8",       // this network
	"100.64.0.0/10",   // shared by the customers of a provider; cloud metadata in some
	"192.0.0.0/24",    // protocol assignments
	"192.0.2.0/24",    // documentation
	"192.88.99.0/24",  // 6to4 relays
	"198.18.0.0/15",   // benchmarks
	"198.51.100.0/24", // documentation
	"203.0.113.0/24",  // documentation
	"240.0.0.0/4",     // reserved, and broadcast
	"::/96",           // IPv4 inside, as it once was
	"64:ff9b::/96",    // IPv4 inside, translated
	"64:ff9b:1::/48",  // the same, locally
	"100::/64",        // discarded
	"2001::/23",       // protocol assignments, Teredo among them
	"2001:db8::/32",   // documentation
	"2002::/16",       // IPv4 inside, 6to4
	"3fff::/20",       // documentation
	"5f00::/16",       // segment routing
	"fec0::/10",       // site-local, as it once was
)

func prefixes(texts ...string) []netip.Prefix {
	ps := make([]netip.Prefix, len(texts))
	for i, s := range texts {
		ps[i] = netip.MustParsePrefix(s)
	}
	return ps
}

// isPublic reports whether an address is a place on the internet.
func isPublic(a netip.Addr) bool {
	if !a.IsGlobalUnicast() || a.IsPrivate() || a.Zone() != "" {
		return false // loopback, link-local, multicast, unspecified, private, unique local
	}
	return !within(special, a)
}

func within(ps []netip.Prefix, a netip.Addr) bool {
	for _, p := range ps {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// mayDial reports whether an address may be connected to.
func mayDial(a netip.Addr, allowed []netip.Prefix) bool {
	a = a.Unmap()
	return isPublic(a) || within(allowed, a.WithZone(""))
}
