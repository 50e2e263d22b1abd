package forwarded

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

// trusting returns proxies of two private networks.
func trusting(t testing.TB, source Source) *Proxies {
	t.Helper()
	p, err := New(Config{
		Trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8"), netip.MustParsePrefix("::ffff:192.168.7.0/120")},
		Source:  source,
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func remote(p *Proxies, peer string, header http.Header) string {
	return p.Remote(&http.Request{RemoteAddr: peer, Header: header}).String()
}

func TestRemote_IsTheRightmostAddressThatIsNotTrusted(t *testing.T) {
	cases := []struct {
		name  string
		peer  string
		lines []string
		want  string
	}{
		{"no header", "10.0.0.1:1", nil, "10.0.0.1:1"},
		{"one proxy", "10.0.0.1:1", []string{"203.0.113.7"}, "203.0.113.7:0"},
		{"one proxy that tells the port", "10.0.0.1:1", []string{"203.0.113.7:4711"}, "203.0.113.7:4711"},
		{"a proxy on IPv6", "[fd00::1]:1", []string{"2001:db8::7"}, "[2001:db8::7]:0"},
		{"brackets", "10.0.0.1:1", []string{"[2001:db8::7]"}, "[2001:db8::7]:0"},
		{"brackets and port", "10.0.0.1:1", []string{"[2001:db8::7]:4711"}, "[2001:db8::7]:4711"},
		{"mapped addresses", "[::ffff:10.0.0.1]:1", []string{"::ffff:203.0.113.7"}, "203.0.113.7:0"},
		{"a mapped network", "192.168.7.9:1", []string{"203.0.113.7"}, "203.0.113.7:0"},
		{"outside the mapped network", "192.168.8.9:1", []string{"203.0.113.7"}, "192.168.8.9:1"},
		{"a chain of proxies", "10.0.0.1:1", []string{"203.0.113.7, 10.0.0.3,10.0.0.2"}, "203.0.113.7:0"},
		{"a chain over lines", "10.0.0.1:1", []string{"203.0.113.7", "10.0.0.3", "10.0.0.2"}, "203.0.113.7:0"},
		{"what the client made up", "10.0.0.1:1", []string{"198.51.100.1, 10.9.9.9, 203.0.113.7, 10.0.0.2"}, "203.0.113.7:0"},
		{"a line that the client made up", "10.0.0.1:1", []string{"198.51.100.1", "203.0.113.7"}, "203.0.113.7:0"},
		{"a client among the proxies", "10.0.0.1:1", []string{"10.0.0.9, 10.0.0.2"}, "10.0.0.9:0"},
		{"nonsense of a trusted proxy", "10.0.0.1:1", []string{"203.0.113.7, unknown, 10.0.0.2"}, "10.0.0.2:0"},
		{"nonsense of a client", "10.0.0.1:1", []string{`", x, 203.0.113.7`}, "203.0.113.7:0"},
		{"empty elements", "10.0.0.1:1", []string{"203.0.113.7,, ,"}, "203.0.113.7:0"},
		{"an empty header", "10.0.0.1:1", []string{""}, "10.0.0.1:1"},
		{"a zone", "10.0.0.1:1", []string{"fe80::1%eth0"}, "10.0.0.1:1"},
		{"no address at all", "10.0.0.1:1", []string{"0.0.0.0"}, "10.0.0.1:1"},
		{"more proxies than are followed", "10.0.0.1:1", []string{"203.0.113.7," + strings.Repeat("10.0.0.2,", maxHops)}, "10.0.0.2:0"},
		{"a peer that is not trusted", "203.0.113.9:1", []string{"198.51.100.1"}, "203.0.113.9:1"},
		{"a peer without an address", "@", []string{"198.51.100.1"}, "invalid AddrPort"},
	}
	p := trusting(t, "")
	for _, c := range cases {
		header := http.Header{"X-Forwarded-For": c.lines, "Forwarded": {"for=198.51.100.99"}, "X-Real-Ip": {"198.51.100.98"}}
		if got := remote(p, c.peer, header); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

func TestRemote_ReadsForwardedAsRFC7239HasIt(t *testing.T) {
	cases := []struct {
		name  string
		lines []string
		want  string
	}{
		{"IPv4", []string{"for=203.0.113.7"}, "203.0.113.7:0"},
		{"case and other pairs", []string{"proto=https; FOR=203.0.113.7 ;by=10.0.0.1"}, "203.0.113.7:0"},
		{"quoted with port", []string{`for="203.0.113.7:4711";proto=https`}, "203.0.113.7:4711"},
		{"IPv6", []string{`for="[2001:db8:cafe::17]:4711"`}, "[2001:db8:cafe::17]:4711"},
		{"IPv6 without port", []string{`for="[2001:db8:cafe::17]"`}, "[2001:db8:cafe::17]:0"},
		{"a hidden port", []string{`for="203.0.113.7:_port"`}, "203.0.113.7:0"},
		{"a comma in quotes", []string{`for=203.0.113.7;host="a,b"`}, "203.0.113.7:0"},
		{"a chain", []string{`for=198.51.100.1, for=203.0.113.7;proto=http`, `for="[fd00::2]", for=10.0.0.2`}, "203.0.113.7:0"},
		{"a quote that the client left open", []string{`for="198.51.100.1, for=203.0.113.7`}, "203.0.113.7:0"},
		{"a quote that the client left open on a line", []string{`for="198.51.100.1`, `for=203.0.113.7`}, "203.0.113.7:0"},
		{"unknown", []string{"for=203.0.113.7, for=unknown, for=10.0.0.2"}, "10.0.0.2:0"},
		{"a hidden node", []string{"for=_gateway"}, "10.0.0.1:1"},
		{"no for", []string{"for=203.0.113.7, proto=https"}, "10.0.0.1:1"},
		{"two fors", []string{"for=203.0.113.7;for=203.0.113.8"}, "10.0.0.1:1"},
		{"an escape", []string{`for="203.0.113.\7"`}, "10.0.0.1:1"},
		{"text behind a quote", []string{`for="203.0.113.7"x;proto=http`}, "10.0.0.1:1"},
		{"a quote inside a token", []string{`for=203.0.113.7";proto=http"`}, "10.0.0.1:1"},
		{"an open quote of a proxy", []string{`for="203.0.113.7`}, "10.0.0.1:1"},
		{"no pair", []string{"203.0.113.7"}, "10.0.0.1:1"},
	}
	p := trusting(t, Forwarded)
	for _, c := range cases {
		header := http.Header{"Forwarded": c.lines, "X-Forwarded-For": {"198.51.100.99"}}
		if got := remote(p, "10.0.0.1:1", header); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
	if got := remote(p, "203.0.113.9:1", http.Header{"Forwarded": {"for=198.51.100.1"}}); got != "203.0.113.9:1" {
		t.Errorf("a peer that is not trusted has %s, want its own address", got)
	}
}

func TestRemote_UnderTheProxyProtocolHeadersMeanNothing(t *testing.T) {
	p := trusting(t, ProxyV2)
	header := http.Header{"X-Forwarded-For": {"198.51.100.1"}, "Forwarded": {"for=198.51.100.1"}}
	if got := remote(p, "10.0.0.1:1", header); got != "10.0.0.1:1" {
		t.Errorf("got %s, want the connection's address", got)
	}
}

func TestRemote_TrustsNobodyByDefault(t *testing.T) {
	p, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	if got := remote(p, "127.0.0.1:1", http.Header{"X-Forwarded-For": {"198.51.100.1"}}); got != "127.0.0.1:1" {
		t.Errorf("got %s, want the peer's address", got)
	}
}

func TestNew_RejectsWhatCannotWork(t *testing.T) {
	for _, cfg := range []Config{
		{Source: "x-real-ip"}, {Source: ProxyV2}, {Trusted: []netip.Prefix{{}}},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("New(%+v): got no error", cfg)
		}
	}
}

// Whatever a client writes, the address that the last proxy appends is the one that counts.
func FuzzRemote(f *testing.F) {
	for _, s := range []string{
		"", "198.51.100.1", `"`, `for="`, `for="198.51.100.1, for=`, "for=unknown", ",,,", `\"`, "[::1]:80", "for=_a;by=\"b,c\"",
	} {
		f.Add(s, true)
		f.Add(s, false)
	}
	plain, rfc := trusting(f, XForwardedFor), trusting(f, Forwarded)
	f.Fuzz(func(t *testing.T, made string, lines bool) {
		for _, c := range []struct {
			p            *Proxies
			name, suffix string
		}{
			{plain, "X-Forwarded-For", "203.0.113.7:4711, fd00::2"},
			{rfc, "Forwarded", `for="203.0.113.7:4711";host="a,b", for="[fd00::2]"`},
		} {
			header := http.Header{c.name: {made, c.suffix}}
			if !lines {
				header = http.Header{c.name: {made + "," + c.suffix}}
			}
			if got := remote(c.p, "10.0.0.1:1", header); got != "203.0.113.7:4711" {
				t.Errorf("%s %q: got %s", c.name, header[c.name], got)
			}
			alone := http.Header{c.name: {made}}
			if got := remote(c.p, "203.0.113.9:1", alone); got != "203.0.113.9:1" {
				t.Errorf("%s %q of a stranger: got %s", c.name, made, got)
			}
			if got := c.p.Remote(&http.Request{RemoteAddr: "10.0.0.1:1", Header: alone}); !got.IsValid() || got.Addr().Zone() != "" || got.Addr().Is4In6() {
				t.Errorf("%s %q: got %s", c.name, made, got)
			}
		}
	})
}
