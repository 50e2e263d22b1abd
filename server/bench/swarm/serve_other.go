//go:build !linux

package swarm

import (
	"io"

	"carillon/server/bench/sample"
)

// Serve fails: see [sample.ErrLinux].
func Serve(io.Reader, io.Writer) error { return sample.ErrLinux }
