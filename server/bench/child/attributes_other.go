//go:build !linux

package child

import "syscall"

// The bench measures on Linux alone.
func attributes() *syscall.SysProcAttr { return nil }
