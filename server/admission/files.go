package admission

import "math"

// What is kept of a process's descriptors for others than clients: the store, whose files may not be missing, requests of our
// own, and the second descriptor that a connection has for a moment when it is parked.
const (
	sparedPart  = 64 // one in so many
	sparedLeast = 256
)

// MostConnections returns how many connections a process may hold that can open as many files as this one; 0, no limit, where
// that is not known.
func MostConnections() int { return mostOf(openFiles()) }

func mostOf(files uint64) int {
	if files == 0 {
		return 0
	}
	spared := max(sparedLeast, files/sparedPart)
	if files < 2*spared {
		spared = files / 2
	}
	return int(min(files-spared, math.MaxInt32))
}
