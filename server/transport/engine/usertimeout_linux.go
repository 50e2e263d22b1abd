package engine

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"syscall"
	"time"
)

// tcpUserTimeout is TCP_USER_TIMEOUT, which package syscall lacks.
const tcpUserTimeout = 18

// setUserTimeout has the kernel give up a peer that for so long confirms nothing of what was sent. It stays with the socket
// wherever its descriptor goes.
func setUserTimeout(nc net.Conn, after time.Duration) error {
	if s, ok := nc.(*tls.Conn); ok {
		nc = s.NetConn()
	}
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return fmt.Errorf("engine: user timeout of a %T: %w", nc, errors.ErrUnsupported)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return fmt.Errorf("engine: user timeout: %w", err)
	}
	millis := int(min(max(after.Milliseconds(), 1), math.MaxInt32))
	var set error
	if err := raw.Control(func(fd uintptr) {
		set = os.NewSyscallError("setsockopt", syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, millis))
	}); err != nil {
		return fmt.Errorf("engine: user timeout: %w", err)
	}
	if set != nil {
		return fmt.Errorf("engine: user timeout: %w", set)
	}
	return nil
}
