package web

import (
	"net/http"
	"net/netip"
	"strings"

	"carillon/server/transport"
)

// maxUserAgent is the most bytes of a User-Agent that a session keeps.
const maxUserAgent = 256

// MetaOf describes the connection of a request. remote says who the client is where that is not the socket's far end (behind
// trusted proxies); nil: nobody does.
func MetaOf(r *http.Request, k transport.Kind, can transport.Capabilities, remote func(*http.Request) netip.AddrPort) transport.Meta {
	m := transport.Meta{Kind: k, Capabilities: can, UserAgent: userAgent(r)}
	if remote != nil {
		m.Remote = remote(r)
	} else if a, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		m.Remote = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	}
	return m
}

func userAgent(r *http.Request) string {
	s := r.UserAgent()
	if len(s) > maxUserAgent {
		s = strings.Clone(s[:maxUserAgent])
	}
	return strings.ToValidUTF8(s, "")
}
