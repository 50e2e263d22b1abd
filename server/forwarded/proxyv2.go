package forwarded

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// The header of the PROXY protocol, version 2:
//
//	12 bytes   signature
//	byte       version (2) in the high half, command in the low one: 0 local (the proxy speaks for itself), 1 proxy
//	byte       family in the high half (1 IPv4, 2 IPv6, 0 and others: none of ours), kind in the low one (1 stream)
//	2 bytes    length of what follows, big endian
//	           addresses (source, destination, 4 or 16 bytes each), ports (2 bytes each), and whatever a proxy adds
const (
	signature  = "\r\n\r\n\x00\r\nQUIT\n"
	fixedSize  = len(signature) + 4
	maxHeader  = 2 << 10 // of what follows the fixed part: 36 bytes of addresses, and names and certificates that proxies add
	cmdLocal   = 0x20
	cmdProxy   = 0x21
	streamIPv4 = 0x11
	streamIPv6 = 0x21
)

var errNoHeader = errors.New("forwarded: the connection does not begin with a header of the PROXY protocol, version 2")

// readProxyV2 reads the header, and not one byte more. The address is invalid if the proxy speaks for itself, or for
// something that has no address of IP.
func readProxyV2(r io.Reader) (netip.AddrPort, error) {
	var fixed [fixedSize]byte
	if _, err := io.ReadFull(r, fixed[:]); err != nil {
		return netip.AddrPort{}, fmt.Errorf("%w: %w", errNoHeader, err)
	}
	command, family := fixed[12], fixed[13]
	if string(fixed[:12]) != signature || command != cmdLocal && command != cmdProxy {
		return netip.AddrPort{}, errNoHeader
	}
	size := int(binary.BigEndian.Uint16(fixed[14:]))
	if size > maxHeader {
		return netip.AddrPort{}, fmt.Errorf("forwarded: a header of the PROXY protocol has %d bytes, more than %d", size, maxHeader)
	}
	rest := make([]byte, size)
	if _, err := io.ReadFull(r, rest); err != nil {
		return netip.AddrPort{}, fmt.Errorf("forwarded: header of the PROXY protocol: %w", err)
	}
	if command == cmdLocal {
		return netip.AddrPort{}, nil
	}
	each := 0
	switch family {
	case streamIPv4:
		each = 4
	case streamIPv6:
		each = 16
	default:
		return netip.AddrPort{}, nil
	}
	if size < 2*each+4 {
		return netip.AddrPort{}, fmt.Errorf("forwarded: a header of the PROXY protocol has %d bytes, too few for its addresses", size)
	}
	a, _ := netip.AddrFromSlice(rest[:each])
	return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(rest[2*each:])), nil
}
