//go:build unix

package redistest

import (
	"syscall"
	"time"
)

// Processor returns the time for which this process has computed so far; 0 on a system that does not say. Benchmarks hold it beside that of
// the servers.
func Processor() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
