package config

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
)

// ListenError turns the error of listening on the address of a key ("public.listen") into one that says what to do.
func ListenError(key, address string, err error) error {
	if isInUse(err) {
		return fmt.Errorf("%s: another program listens on %s already; choose another address with --%s or %s: %w",
			key, address, flagName(key), envName(key), err)
	}
	return fmt.Errorf("%s: cannot listen on %s; the address is set with --%s or %s: %w",
		key, address, flagName(key), envName(key), err)
}

// isInUse reports whether the address was taken. Windows has a number of its own for it, WSAEADDRINUSE.
func isInUse(err error) bool {
	return errors.Is(err, syscall.EADDRINUSE) || runtime.GOOS == "windows" && errors.Is(err, syscall.Errno(10048))
}
