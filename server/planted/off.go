//go:build !planted

package planted

// Enabled reports whether this binary has bugs to choose from.
const Enabled = false

// Is reports false in this binary.
func Is(Bug) bool { return false }

// Highs is empty in this binary.
type Highs struct{}

// Passed reports false in this binary.
func (*Highs) Passed(int, uint64) bool { return false }
