package admission

import (
	"math"
	"testing"
)

func TestMostConnections_LeavesTheStoreItsFiles(t *testing.T) {
	for _, c := range []struct {
		files uint64
		want  int
	}{{0, 0}, {100, 50}, {1024, 768}, {20_000, 19_688}, {1 << 20, 1<<20 - 1<<14}, {math.MaxUint64, math.MaxInt32}} {
		if got := mostOf(c.files); got != c.want {
			t.Errorf("of %d files %d are for connections, want %d", c.files, got, c.want)
		}
	}
}
