//go:build failpoints && unix

package failpoint

import "syscall"

// kill ends this process at once, as a crash would.
func kill() {
	_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
	select {} // the signal ends the process before this is left
}
