package web

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"carillon/server/transport"
	"carillon/server/wire"
)

func TestMetaOf_NamesTheClientAndBoundsItsName(t *testing.T) {
	can := transport.Capabilities{Encoding: wire.JSON}
	proxied := netip.MustParseAddrPort("198.51.100.7:99")
	cases := []struct {
		name, addr, agent string
		remote            func(*http.Request) netip.AddrPort
		want              transport.Meta
	}{
		{"of the socket", "192.0.2.1:1234", "raw/1", nil,
			transport.Meta{Remote: netip.MustParseAddrPort("192.0.2.1:1234"), UserAgent: "raw/1"}},
		{"mapped into IPv6", "[::ffff:192.0.2.1]:1234", "", nil, transport.Meta{Remote: netip.MustParseAddrPort("192.0.2.1:1234")}},
		{"none", "pipe", "", nil, transport.Meta{}},
		{"of a proxy", "192.0.2.1:1234", "", func(*http.Request) netip.AddrPort { return proxied }, transport.Meta{Remote: proxied}},
		{"a long name", "pipe", strings.Repeat("a", 255) + "ä", nil, transport.Meta{UserAgent: strings.Repeat("a", 255)}},
		{"a name that is no text", "pipe", "a\xff", nil, transport.Meta{UserAgent: "a"}},
	}
	for _, c := range cases {
		r := get("", "User-Agent", c.agent)
		r.RemoteAddr = c.addr
		c.want.Kind, c.want.Capabilities = transport.SSE, can
		if got := MetaOf(r, transport.SSE, can, c.remote); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}
