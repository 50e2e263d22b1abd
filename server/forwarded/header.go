package forwarded

import (
	"net/netip"
	"strings"
)

// elements reads a header that is a list, from its end: the last line first, in a line the last element. A comma inside
// quotes parts nothing. What stands to the left of an element has no part in how the element is read.
type elements struct {
	lines []string // those that nothing was read of yet
	line  string   // what is left of the line being read
	open  bool     // there is something left of it
}

// next returns the next element without white space around it, and false when there is none.
func (e *elements) next() (string, bool) {
	if !e.open {
		if len(e.lines) == 0 {
			return "", false
		}
		e.line, e.lines, e.open = e.lines[len(e.lines)-1], e.lines[:len(e.lines)-1], true
	}
	quoted := false
	for i := len(e.line) - 1; i >= 0; i-- {
		switch c := e.line[i]; {
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			element := e.line[i+1:]
			e.line = e.line[:i]
			return trim(element), true
		}
	}
	e.open = false
	return trim(e.line), true
}

func trim(s string) string { return strings.Trim(s, " \t") }

// addressOf reads an element of X-Forwarded-For: an address, with or without a port, and brackets around one of IPv6 where
// there is a port and, by some, where there is none.
func addressOf(s string) (netip.AddrPort, bool) {
	if a, err := netip.ParseAddr(s); err == nil {
		return known(a, 0)
	}
	if inner, ok := strings.CutPrefix(s, "["); ok {
		if inner, ok := strings.CutSuffix(inner, "]"); ok {
			a, err := netip.ParseAddr(inner)
			return ifKnown(a, 0, err == nil && a.Is6())
		}
	}
	a, err := netip.ParseAddrPort(s)
	return ifKnown(a.Addr(), a.Port(), err == nil)
}

func ifKnown(a netip.Addr, port uint16, ok bool) (netip.AddrPort, bool) {
	if !ok {
		return netip.AddrPort{}, false
	}
	return known(a, port)
}

// known refuses an address with a zone, which means something on the proxy's machine alone, and none at all.
func known(a netip.Addr, port uint16) (netip.AddrPort, bool) {
	if a.Zone() != "" || a.IsUnspecified() {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a.Unmap(), port), true
}

// nodeOf reads an element of Forwarded (RFC 7239): pairs with semicolons between them, of which "for" names the node that the
// proxy was asked by. Unknown and hidden nodes (unknown, _name) are none, and a port that is hidden counts as not said.
func nodeOf(s string) (netip.AddrPort, bool) {
	node, found := "", false
	for s != "" {
		var name, value string
		var ok bool
		if name, value, s, ok = pair(s); !ok {
			return netip.AddrPort{}, false
		}
		if !strings.EqualFold(name, "for") {
			continue
		}
		if found { // "for" stands once (RFC 7239, 4)
			return netip.AddrPort{}, false
		}
		node, found = value, true
	}
	if i := strings.LastIndex(node, ":_"); i >= 0 {
		node = node[:i]
	}
	return addressOf(node)
}

// pair takes the first pair off an element. A value is a token or a quoted string; in one that names a node nothing needs a
// backslash, so none is taken.
func pair(s string) (name, value, rest string, ok bool) {
	name, s, ok = strings.Cut(s, "=")
	name = trim(name)
	if !ok || name == "" || strings.ContainsAny(name, `";, `) {
		return "", "", "", false
	}
	if quoted, is := strings.CutPrefix(s, `"`); is {
		if value, s, ok = strings.Cut(quoted, `"`); !ok || strings.Contains(value, `\`) {
			return "", "", "", false
		}
		if s = trim(s); s != "" && s[0] != ';' {
			return "", "", "", false
		}
		return name, value, trim(strings.TrimPrefix(s, ";")), true
	}
	value, rest, _ = strings.Cut(s, ";")
	if value = trim(value); strings.Contains(value, `"`) {
		return "", "", "", false
	}
	return name, value, trim(rest), true
}
