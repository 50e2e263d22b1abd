//go:build !race

package simulation

import (
	"flag"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"testing/synctest"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "simulate this seed alone, and print its events")
	seedsFlag = flag.Uint64("seeds", 0, "how many seeds to simulate")
	firstFlag = flag.Uint64("first-seed", 1, "the first of them")
)

// TestMain gives a world one processor and no garbage collection while it lives: then a goroutine runs until it blocks, and
// what two of them do in one step has an order too.
func TestMain(m *testing.M) {
	flag.Parse()
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(1 << 30)
	os.Exit(m.Run())
}

func simulate(t *testing.T, seed uint64, trace io.Writer) (res Result) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var err error
		if res, err = Simulate(seed, trace); err != nil {
			t.Fatal(err)
		}
	})
	runtime.GC()
	return res
}

func TestSimulation(t *testing.T) {
	if *seedFlag != 0 {
		res := simulate(t, *seedFlag, os.Stdout)
		t.Logf("%d events, %d records, digest %s", res.Events, res.Records, res.Digest)
		for _, v := range res.Violations {
			t.Error(v)
		}
		return
	}
	n := *seedsFlag
	if n == 0 {
		n = 20
	}
	for seed := *firstFlag; seed < *firstFlag+n; seed++ {
		res := simulate(t, seed, nil)
		t.Logf("seed %d: %d events, %d records, digest %s", seed, res.Events, res.Records, res.Digest)
		for i, v := range res.Violations {
			if i < 8 {
				t.Errorf("seed %d: %v", seed, v)
			}
		}
	}
}
