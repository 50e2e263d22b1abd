//go:build planted

package planted

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
)

// Enabled reports whether this binary has bugs to choose from.
const Enabled = true

// Env is the environment variable that chooses one.
const Env = "CARILLON_PLANTED"

var (
	once   sync.Once
	chosen atomic.Pointer[Bug]
)

func load() {
	if err := choose(Bug(os.Getenv(Env))); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

func choose(b Bug) error {
	if b != None && !slices.Contains(slices.Concat(All(), OfTasks(), OfRunners()), b) {
		return fmt.Errorf("planted: %q is no planted bug", string(b))
	}
	chosen.Store(&b)
	return nil
}

// Choose puts one bug on, in place of what was on; None turns all off.
func Choose(b Bug) error {
	once.Do(load)
	return choose(b)
}

// Is reports whether the bug is on.
func Is(b Bug) bool {
	once.Do(load)
	return *chosen.Load() == b
}

// Highs is what the bug RepeatsByPosition remembers: the highest number of each sort. It is used by one goroutine.
type Highs struct{ of map[int]uint64 }

// Passed reports whether n is not above the highest number of its sort before, and notes it.
func (h *Highs) Passed(sort int, n uint64) bool {
	if h.of == nil {
		h.of = make(map[int]uint64)
	}
	before := h.of[sort]
	h.of[sort] = max(before, n)
	return n <= before
}
