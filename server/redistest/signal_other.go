//go:build !unix

package redistest

import (
	"context"
	"errors"
)

var errNoSignals = errors.New("redistest: a process cannot be frozen on this system")

// Freeze is an error on this system.
func (n *Node) Freeze(context.Context) error { return errNoSignals }

// Thaw is an error on this system.
func (n *Node) Thaw(context.Context) error { return errNoSignals }
