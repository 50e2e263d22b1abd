//go:build !unix

package transporttest

import (
	"net"
	"testing"
)

// End is a client's end of a connection. Its weight counts with the rest here.
type End struct{ nc net.Conn }

// Close closes the socket.
func (e End) Close() { e.nc.Close() }

// Bare returns the connection as it is.
func Bare(_ *testing.B, nc net.Conn) End { return End{nc} }
