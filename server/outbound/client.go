package outbound

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"
)

// Config says how a client is made. Its zero value is useful.
type Config struct {
	Allow   []netip.Prefix // networks that may be reached although they are not public ones
	Timeout time.Duration  // of a whole request; 5 s
	TLS     *tls.Config    // of tests; the system's roots, TLS 1.2 at least
}

// maxHeader bounds the head of an answer.
const maxHeader = 16 << 10

// NewClient returns a client. It keeps no connection: requests are rare, and to many.
func NewClient(c Config) *http.Client {
	if c.Timeout == 0 {
		c.Timeout = 5 * time.Second
	}
	dialer := &net.Dialer{
		Timeout: c.Timeout,
		Control: func(_, address string, _ syscall.RawConn) error { return judge(address, c.Allow) },
	}
	return &http.Client{
		Timeout:       c.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:            dialer.DialContext,
			TLSClientConfig:        c.TLS,
			TLSHandshakeTimeout:    c.Timeout,
			ResponseHeaderTimeout:  c.Timeout,
			MaxResponseHeaderBytes: maxHeader,
			DisableKeepAlives:      true,
			ForceAttemptHTTP2:      false,
		},
	}
}

// judge is asked with each address right before it is connected to, after names were looked up.
func judge(address string, allowed []netip.Prefix) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: it cannot be read", ErrForbidden)
	}
	if !mayDial(at.Addr(), allowed) {
		return ErrForbidden
	}
	return nil
}
