//go:build unix

package longpoll

import (
	"context"
	"net"
	"syscall"
	"testing"
)

// smallReceive makes a client's socket take little that is not read. It has to be said before the connection is made.
func smallReceive(_ context.Context, _, _ string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10) }); cerr != nil {
		return cerr
	}
	return err
}

// bareConn is a descriptor and nothing else.
type bareConn struct {
	net.Conn // nil
	fd       int
}

// Close implements net.Conn.
func (c bareConn) Close() error { return syscall.Close(c.fd) }

// bare makes a client's connection weigh nothing.
func bare(b *testing.B, nc net.Conn) net.Conn {
	b.Helper()
	raw, err := nc.(*net.TCPConn).SyscallConn()
	if err != nil {
		b.Fatal(err)
	}
	fd := -1
	if cerr := raw.Control(func(s uintptr) { fd, err = syscall.Dup(int(s)) }); cerr != nil || err != nil {
		b.Fatal(cerr, err)
	}
	nc.Close()
	return bareConn{fd: fd}
}
