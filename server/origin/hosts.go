package origin

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Hosts say under which names a listener may be reached. A page whose own name suddenly resolves to this node (DNS rebinding)
// is, to its browser, of the node's own origin; what gives it away is the Host that it asks for. They are safe for concurrent
// use.
type Hosts struct {
	// Static after construction.
	every    bool
	private  bool // loopback names, addresses, and requests that name no host
	patterns []string
}

// NewHosts returns the hosts of a list: names, and patterns like *.example.com, without ports. Without an entry every host is
// admitted.
func NewHosts(names []string) (*Hosts, error) {
	patterns, err := compileHosts(names)
	return &Hosts{every: len(patterns) == 0, patterns: patterns}, err
}

// NewPrivateHosts returns the hosts of a listener that is not meant for the world: besides those of the list the names of the
// machine itself (localhost), every address, and none at all. Only a name can be made to point here by somebody else, and
// every browser sends one; monitoring asks by address, and simple health checks without a Host.
func NewPrivateHosts(names []string) (*Hosts, error) {
	patterns, err := compileHosts(names)
	return &Hosts{private: true, patterns: patterns}, err
}

func compileHosts(names []string) ([]string, error) {
	var out []string
	for _, s := range names {
		name := strings.ToLower(s)
		if a, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
			out = append(out, literal(a))
			continue
		}
		if strings.Contains(name, ":") {
			return nil, fmt.Errorf("host %q: write the name alone, without scheme and port", s)
		}
		name, err := compileName(name)
		if err == nil && name == "*" {
			err = errors.New("leave the list empty to admit every host")
		}
		if err != nil {
			return nil, fmt.Errorf("host %q: %w", s, err)
		}
		out = append(out, name)
	}
	return out, nil
}

// literal returns an address as nameOf does. Nothing in it means anything to path.Match.
func literal(a netip.Addr) string { return a.Unmap().WithZone("").String() }

// Admit reports whether a request for that host (a Host header) may be answered.
func (h *Hosts) Admit(host string) bool {
	if h.every {
		return true
	}
	name, isAddress := nameOf(host)
	if h.private && (isAddress || name == "" || name == "localhost" || strings.HasSuffix(name, ".localhost")) {
		return true
	}
	return slices.ContainsFunc(h.patterns, func(p string) bool { return matches(p, name) })
}

// nameOf returns the name in a Host header, in lower case, without port and the dot that may end it, and whether it is an
// address.
func nameOf(host string) (name string, isAddress bool) {
	name, _ = splitPort(strings.ToLower(host))
	if a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")); err == nil {
		return literal(a), true
	}
	return strings.TrimSuffix(name, "."), false
}
