//go:build !unix

package longpoll

import (
	"context"
	"net"
	"syscall"
	"testing"
)

// smallReceive does nothing: answers have to be larger here.
func smallReceive(context.Context, string, string, syscall.RawConn) error { return nil }

// bare leaves the connection as it is, which weighs something.
func bare(_ *testing.B, nc net.Conn) net.Conn { return nc }
