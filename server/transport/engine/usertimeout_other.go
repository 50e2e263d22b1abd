//go:build !linux

package engine

import (
	"net"
	"time"
)

// setUserTimeout does nothing: this system gives peers up in its own time.
func setUserTimeout(net.Conn, time.Duration) error { return nil }
