//go:build !linux

package bench

import (
	"errors"
	"time"
)

type floor struct{ cpu, round time.Duration }

// measureFloor fails: the bench needs Linux.
func measureFloor(int, int) (floor, error) { return floor{}, errors.ErrUnsupported }
