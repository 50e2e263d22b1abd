//go:build !linux

package bare

import (
	"context"
	"net"

	"carillon/server/bench/sample"
)

// serveKernel fails: see [sample.ErrLinux].
func serveKernel(context.Context, net.Listener) error { return sample.ErrLinux }
