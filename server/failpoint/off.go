//go:build !failpoints

package failpoint

// Enabled reports whether this binary has failpoints.
const Enabled = false

// Hit does nothing in this binary.
func Hit(Name) {}

// HitErr returns nil in this binary.
func HitErr(Name) error { return nil }
