//go:build unix

package engine

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

// tryWrite writes as much of p as the kernel takes at once and returns how much that was.
func (d *drain) tryWrite(raw syscall.RawConn, p []byte) (int, error) {
	d.out, d.n, d.err = p, 0, nil
	err := raw.Write(d.attempt)
	d.out = nil
	if err == nil {
		err = d.err
	}
	if err != nil {
		return 0, fmt.Errorf("engine: write: %w", err)
	}
	return d.n, nil
}

// attemptWrite is the one attempt; it always reports that the socket need not be waited for.
func (d *drain) attemptWrite(fd uintptr) bool {
	n, err := syscall.Write(int(fd), d.out)
	for err == syscall.EINTR {
		n, err = syscall.Write(int(fd), d.out)
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
