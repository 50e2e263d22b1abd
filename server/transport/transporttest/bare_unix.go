//go:build unix

package transporttest

import (
	"net"
	"syscall"
	"testing"
)

// End is a client's end of a connection: a descriptor and nothing else.
type End int

// Close closes the socket.
func (e End) Close() { _ = syscall.Close(int(e)) }

// Bare makes a client's connection weigh nothing in the process.
func Bare(b *testing.B, nc net.Conn) End {
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
	return End(fd)
}
