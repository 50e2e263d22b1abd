//go:build !linux

package poller

import (
	"errors"
	"net"
)

// Supported says whether this system has what a [Poller] needs.
const Supported = false

// Poller cannot be made on this system.
type Poller struct{}

// New fails with errors.ErrUnsupported: this system has no epoll.
func New(int) (*Poller, error) { return nil, errors.ErrUnsupported }

// Close does nothing.
func (*Poller) Close() error { return nil }

// Help does nothing.
func (*Poller) Help() {}

// Reserve fails with errors.ErrUnsupported.
func (*Poller) Reserve(*Socket) error { return errors.ErrUnsupported }

// Socket is always closed on this system.
type Socket struct{}

// Adopt fails with errors.ErrUnsupported.
func (*Socket) Adopt(net.Conn) error { return errors.ErrUnsupported }

// Arm fails with net.ErrClosed.
func (*Socket) Arm(Handler) error { return net.ErrClosed }

// Read fails with net.ErrClosed.
func (*Socket) Read([]byte) (int, error) { return 0, net.ErrClosed }

// Write fails with net.ErrClosed.
func (*Socket) Write([]byte) (int, error) { return 0, net.ErrClosed }

// AwaitWrite does nothing.
func (*Socket) AwaitWrite() {}

// Wrote does nothing.
func (*Socket) Wrote() {}

// Mute does nothing.
func (*Socket) Mute() {}

// CloseWrite does nothing.
func (*Socket) CloseWrite() {}

// Close does nothing.
func (*Socket) Close(bool) {}

// Detach fails with net.ErrClosed.
func (*Socket) Detach() (net.Conn, error) { return nil, net.ErrClosed }
