//go:build unix

package ws

import (
	"fmt"
	"net"
	"syscall"
)

// rawOf returns the socket's access for writes that do not wait, nil if nc has none. Whoever wraps a socket and promises
// SyscallConn promises that bytes may be written past the wrapper.
func rawOf(nc net.Conn) syscall.RawConn {
	s, ok := nc.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// tryWrite writes as much of d.buf as the kernel takes at once and returns how much that was.
func (d *drain) tryWrite(raw syscall.RawConn) (int, error) {
	d.n, d.err = 0, nil
	if err := raw.Write(d.attempt); err != nil {
		return 0, fmt.Errorf("ws: write: %w", err)
	}
	if d.err != nil {
		return 0, fmt.Errorf("ws: write: %w", d.err)
	}
	return d.n, nil
}

// attemptWrite is the one attempt; it always reports that the socket need not be waited for.
func (d *drain) attemptWrite(fd uintptr) bool {
	n, err := syscall.Write(int(fd), d.buf)
	for err == syscall.EINTR {
		n, err = syscall.Write(int(fd), d.buf)
	}
	switch err {
	case nil:
		d.n = n
	case syscall.EAGAIN:
	default:
		d.err = err
	}
	return true
}
