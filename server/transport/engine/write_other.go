//go:build !unix

package engine

import (
	"errors"
	"net"
	"syscall"
)

// rawOf returns nil: sockets of this system have no write that does not wait, and every connection is drained by a
// goroutine of its own while there is something to write.
func rawOf(net.Conn) syscall.RawConn { return nil }

// tryWrite is never reached here.
func (d *drain) tryWrite(syscall.RawConn, []byte) (int, error) {
	return 0, errors.ErrUnsupported
}

func (d *drain) attemptWrite(uintptr) bool { return true }
