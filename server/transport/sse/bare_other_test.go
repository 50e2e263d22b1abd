//go:build !unix

package sse

import (
	"net"
	"testing"
)

// dialBare connects clients. Their weight counts with the rest here.
func dialBare(b *testing.B, addr string, n int) []net.Conn {
	b.Helper()
	var conns []net.Conn
	for range n {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := nc.Write([]byte(request)); err != nil {
			b.Fatal(err)
		}
		conns = append(conns, nc)
	}
	return conns
}

func closeBare(conns []net.Conn) {
	for _, c := range conns {
		c.Close()
	}
}
