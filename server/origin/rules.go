package origin

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"path"
	"strings"
)

// Rules say which pages may connect, besides those of the host that they connect to. They are safe for concurrent use.
type Rules struct {
	// Static after construction.
	every   bool // "*"
	nowhere bool // "null": pages without an origin of their own, as in files and sandboxed frames
	others  []pattern
}

// pattern is one entry of the list, in lower case.
type pattern struct {
	scheme string // pattern of path.Match; empty: every one
	host   string // pattern of path.Match, with the port where one stands in the Origin
}

// nullOrigin is what a browser sends for a page whose origin is nobody's business, or nobody's.
const nullOrigin = "null"

// New returns the rules of a list. An entry is a pattern of path.Match, without regard to case, for the host (and port, where
// it is not the scheme's own) of the Origin header, or scheme://pattern for pages of that scheme alone. "*" admits every page;
// "null", which it does not include, those without an origin.
func New(patterns []string) (*Rules, error) {
	r := &Rules{}
	for _, s := range patterns {
		switch s {
		case "*":
			r.every = true
			continue
		case nullOrigin:
			r.nowhere = true
			continue
		}
		p, err := compile(s)
		if err != nil {
			return nil, fmt.Errorf("origin pattern %q: %w", s, err)
		}
		r.others = append(r.others, p)
	}
	return r, nil
}

func compile(s string) (pattern, error) {
	scheme, host, given := strings.Cut(strings.ToLower(s), "://")
	if !given {
		scheme, host = "", scheme
	}
	switch {
	case given && scheme == "":
		return pattern{}, errors.New("there is no scheme before ://")
	case strings.HasSuffix(host, "/") && strings.Count(host, "/") == 1:
		return pattern{}, errors.New("an origin has no path; leave out the slash at the end")
	}
	if _, err := path.Match(scheme, ""); err != nil {
		return pattern{}, err
	}
	host = withoutOwnPort(scheme, host)
	name, port := splitPort(host)
	name, err := compileName(name)
	if err != nil {
		return pattern{}, err
	}
	if port != "" {
		name += ":" + port
	}
	if _, err := path.Match(name, ""); err != nil {
		return pattern{}, err
	}
	return pattern{scheme, name}, nil
}

// compileName checks the pattern of a host's name. An address of IPv6, whose brackets mean something else to path.Match, is
// written as it stands in an Origin.
func compileName(name string) (string, error) {
	if name == "" {
		return "", errors.New("there is no host")
	}
	if strings.ContainsAny(name, "/?#@ ") {
		return "", errors.New("write a host, or scheme://host: no path, no user, no question mark")
	}
	if _, err := path.Match(name, ""); err != nil {
		return "", err
	}
	if inner, ok := strings.CutPrefix(name, "["); ok && strings.HasSuffix(name, "]") {
		if a, err := netip.ParseAddr(strings.TrimSuffix(inner, "]")); err == nil {
			return `\[` + a.String() + `\]`, nil
		}
	}
	last := name[strings.LastIndexByte(name, '.')+1:]
	if name != "*" && !strings.Contains(name, ":") && strings.ContainsAny(last, `*[\`) {
		return "", errors.New("its end is open: anybody could register a host that it stands for; put the wildcard in front, as in *.example.com")
	}
	return name, nil
}

// splitPort parts a host and its port, which may be a pattern; a colon inside brackets is none of a port.
func splitPort(host string) (name, port string) {
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		return host[:i], host[i+1:]
	}
	return host, ""
}

// withoutOwnPort drops a port that is the scheme's own: browsers leave it out of an Origin, and clients of a Host.
func withoutOwnPort(scheme, host string) string {
	switch scheme {
	case "https":
		return strings.TrimSuffix(host, ":443")
	case "http":
		return strings.TrimSuffix(host, ":80")
	}
	return host
}

// Admit reports whether the page that a request came from may connect. A request without an Origin came from none.
func (r *Rules) Admit(req *http.Request) bool {
	origins := req.Header["Origin"]
	switch len(origins) {
	case 0:
		return true
	case 1:
		return origins[0] == "" || r.admits(origins[0], req.Host)
	}
	return false // no browser sends two
}

// admits judges an Origin against the host that the request was for.
func (r *Rules) admits(origin, host string) bool {
	if origin == nullOrigin {
		return r.nowhere
	}
	scheme, from, ok := parse(origin)
	if !ok {
		return false
	}
	if r.every || isOwn(scheme, from, host) {
		return true
	}
	for _, p := range r.others {
		if (p.scheme == "" || matches(p.scheme, scheme)) && matches(p.host, from) {
			return true
		}
	}
	return false
}

// parse reads an Origin as RFC 6454 writes it: scheme://host[:port] and nothing else. It returns lower case, without a port
// that is the scheme's own.
func parse(origin string) (scheme, host string, ok bool) {
	scheme, host, ok = strings.Cut(strings.ToLower(origin), "://")
	if !ok || scheme == "" || host == "" || strings.ContainsAny(host, "/\\?#@ ,") {
		return "", "", false
	}
	return scheme, withoutOwnPort(scheme, host), true
}

// isOwn reports whether a page was loaded from the host that it connects to. The scheme says nothing here: behind a proxy that
// ends TLS the node does not know its own.
func isOwn(scheme, from, host string) bool {
	return (scheme == "https" || scheme == "http") && strings.EqualFold(from, withoutOwnPort(scheme, host))
}

func matches(pattern, s string) bool {
	ok, err := path.Match(pattern, s)
	return ok && err == nil // New has seen that the pattern is one
}
