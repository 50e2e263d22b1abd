//go:build !linux

package bench

import (
	"context"
	"errors"
	"time"
)

type floor struct{ cpu, round time.Duration }

// measureFloor fails: the bench needs Linux.
func measureFloor(int, int) (floor, error) { return floor{}, errors.ErrUnsupported }

// measureEcho fails: the bench needs Linux.
func measureEcho(context.Context, int, time.Duration, time.Duration) (time.Duration, error) {
	return 0, errors.ErrUnsupported
}
