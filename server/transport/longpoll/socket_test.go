//go:build unix

package longpoll

import (
	"context"
	"syscall"
)

// smallReceive makes a client's socket take little that is not read. It has to be said before the connection is made.
func smallReceive(_ context.Context, _, _ string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10) }); cerr != nil {
		return cerr
	}
	return err
}
