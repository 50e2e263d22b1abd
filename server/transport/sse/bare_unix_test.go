//go:build unix

package sse

import (
	"net"
	"syscall"
	"testing"
)

// dialBare connects clients that are nothing but descriptors, so that they weigh nothing.
func dialBare(b *testing.B, addr string, n int) []int {
	b.Helper()
	var fds []int
	for range n {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := nc.Write([]byte(request)); err != nil {
			b.Fatal(err)
		}
		raw, err := nc.(*net.TCPConn).SyscallConn()
		if err != nil {
			b.Fatal(err)
		}
		var fd int
		if cerr := raw.Control(func(s uintptr) { fd, err = syscall.Dup(int(s)) }); cerr != nil || err != nil {
			b.Fatal(cerr, err)
		}
		nc.Close()
		fds = append(fds, fd)
	}
	return fds
}

func closeBare(fds []int) {
	for _, fd := range fds {
		syscall.Close(fd)
	}
}
