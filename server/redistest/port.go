package redistest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports are taken from below those that the kernel gives to outgoing connections, so that none of these has the port of a
// node that is down for a moment, and from above those that services have.
const (
	firstPort = 20000
	lastPort  = 31999
)

// port is a TCP port that no other deployment on this machine takes until it is released. What holds it is a UDP socket of
// the same number, which nobody else wants and which the kernel takes back when we end, however we do.
type port struct {
	number int
	held   net.PacketConn
}

func (p port) String() string { return strconv.Itoa(p.number) }

func (p port) release() error { return p.held.Close() }

// reservePort returns a port on which nobody listens.
func reservePort(host string) (port, error) {
	var last error
	for range 200 {
		n := firstPort + rand.IntN(lastPort-firstPort+1)
		address := net.JoinHostPort(host, strconv.Itoa(n))
		held, err := net.ListenPacket("udp", address)
		if err != nil {
			last = err
			continue
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			last = errors.Join(err, held.Close())
			continue
		}
		if err := l.Close(); err != nil {
			return port{}, errors.Join(err, held.Close())
		}
		return port{n, held}, nil
	}
	return port{}, fmt.Errorf("redistest: no free port on %s: %w", host, last)
}
