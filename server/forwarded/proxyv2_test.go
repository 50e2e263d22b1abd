package forwarded

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/netip"
	"strings"
	"testing"
)

// header writes a header of the PROXY protocol.
func header(command, family byte, rest []byte) []byte {
	b := append([]byte(signature), command, family)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(rest))), rest...)
}

// from writes the header of a proxy for a connection between two addresses of one family.
func from(source, destination string) []byte {
	s, d := netip.MustParseAddrPort(source), netip.MustParseAddrPort(destination)
	rest := append(s.Addr().AsSlice(), d.Addr().AsSlice()...)
	rest = binary.BigEndian.AppendUint16(rest, s.Port())
	rest = binary.BigEndian.AppendUint16(rest, d.Port())
	if s.Addr().Is4() {
		return header(cmdProxy, streamIPv4, rest)
	}
	return header(cmdProxy, streamIPv6, rest)
}

func TestProxyV2_ReadsTheSourceAndNothingBehindTheHeader(t *testing.T) {
	v4, v6 := from("203.0.113.7:4711", "192.0.2.1:443"), from("[2001:db8::7]:4711", "[2001:db8::1]:443")
	more := append(bytes.Clone(v4[:16]), v4[16:]...) // with what a proxy adds
	more = append(more, 4, 0, 2, 'x', 'y')
	binary.BigEndian.PutUint16(more[14:], 17)
	cases := []struct {
		name string
		sent []byte
		want string
	}{
		{"IPv4", v4, "203.0.113.7:4711"},
		{"IPv6", v6, "[2001:db8::7]:4711"},
		{"mapped", from("[::ffff:203.0.113.7]:4711", "[::ffff:192.0.2.1]:443"), "203.0.113.7:4711"},
		{"with more behind the addresses", more, "203.0.113.7:4711"},
		{"local", header(cmdLocal, 0, nil), "invalid AddrPort"},
		{"local with addresses", append(append([]byte(signature), cmdLocal), v4[13:]...), "invalid AddrPort"},
		{"a family that is not known", header(cmdProxy, 0, nil), "invalid AddrPort"},
		{"a socket of Unix", header(cmdProxy, 0x31, make([]byte, 216)), "invalid AddrPort"},
	}
	for _, c := range cases {
		r := bytes.NewReader(append(bytes.Clone(c.sent), "GET / HTTP/1.1"...))
		got, err := readProxyV2(r)
		if err != nil || got.String() != c.want {
			t.Errorf("%s: got %s, %v, want %s", c.name, got, err, c.want)
		}
		if rest, _ := io.ReadAll(r); string(rest) != "GET / HTTP/1.1" {
			t.Errorf("%s: %q is left behind the header", c.name, rest)
		}
	}
}

func TestProxyV2_RefusesWhatIsNoHeader(t *testing.T) {
	good := from("203.0.113.7:4711", "192.0.2.1:443")
	changed := func(at int, to byte) []byte {
		b := bytes.Clone(good)
		b[at] = to
		return b
	}
	cases := []struct {
		name string
		sent []byte
		want string
	}{
		{"nothing", nil, "does not begin with"},
		{"a request", []byte("GET /connect HTTP/1.1\r\nHost: a\r\n\r\n"), "does not begin with"},
		{"version 1", []byte("PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n"), "does not begin with"},
		{"another version", changed(12, 0x31), "does not begin with"},
		{"another command", changed(12, 0x22), "does not begin with"},
		{"a header that ends early", good[:20], "unexpected EOF"},
		{"too few bytes for the addresses", header(cmdProxy, streamIPv6, make([]byte, 12)), "too few"},
		{"too many bytes", header(cmdProxy, streamIPv4, make([]byte, maxHeader+1)), "more than"},
	}
	for _, c := range cases {
		got, err := readProxyV2(bytes.NewReader(c.sent))
		if err == nil || !strings.Contains(err.Error(), c.want) || got.IsValid() {
			t.Errorf("%s: got %s, %v, want an error with %q", c.name, got, err, c.want)
		}
	}
}

func FuzzProxyV2(f *testing.F) {
	f.Add(from("203.0.113.7:4711", "192.0.2.1:443"))
	f.Add(from("[2001:db8::7]:4711", "[2001:db8::1]:443"))
	f.Add(header(cmdLocal, 0, nil))
	f.Add(header(cmdProxy, 0x31, make([]byte, 216)))
	f.Add([]byte("PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		r := bytes.NewReader(sent)
		a, err := readProxyV2(r)
		if err != nil {
			if a.IsValid() {
				t.Errorf("an address, %s, beside the error %v", a, err)
			}
			return
		}
		size := fixedSize + int(binary.BigEndian.Uint16(sent[14:16]))
		if read := len(sent) - r.Len(); read != size {
			t.Errorf("read %d bytes of a header of %d", read, size)
		}
	})
}
